"""``search``, ``evaluate``, ``export`` and ``plot``: a graph is found, valued, written and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import networkx as nx
import typer

from calibrate.files import write_atomically
from calibrate.traces.table import Traces, read_traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.export import export_static_buffers
from drafting.graph import DraftGraph
from drafting.replay import replay
from drafting.searches.methods import METHODS, SearchInput, find_graphs
from drafting.trie import PrefixTrie
from studies.cli import app as cli
from studies.runs.calibration import node_statistics
from studies.runs.run_directory import RESULTS_FORMAT
from studies.statistics.intervals import interval_fields
from verify.graph.file import GraphFile, GraphFileError, Validity, load_graph, save_graph
from verify.graph.formulas import format_formula
from verify.policies.specification import make_policy

GraphArgument = Annotated[Path, typer.Argument(help="A graph file.")]
FORMATS = ("json", "safetensors", "dot")


def read_graph(path: Path) -> GraphFile:
    """Read a graph file; whoever names a run's results instead is told where its graphs are.

    Raises:
        verify.graph.file.GraphFileError: as :func:`verify.graph.file.load_graph`.
    """
    try:
        return load_graph(path)
    except GraphFileError as error:
        if RESULTS_FORMAT not in str(error):
            raise
        raise GraphFileError(f"{error}; these are results, graphs are under {path.parent / 'graphs'}/") from None


def unfit(mismatches: Sequence[str], policy: str | None) -> str:
    """The ``mismatches`` of a graph and a run in one line; says so when a ``--policy`` that was given is among them."""
    own_policy = policy is not None and any(line.startswith("policy:") for line in mismatches)
    return "; ".join(mismatches) + ("; leave --policy out" if own_policy else "")


def trace_validity(traces: Traces) -> Validity:
    """For whom a graph from these traces is valid."""
    run = traces.metadata
    return Validity(
        model=run["model"],
        model_revision=run["model_revision"],
        policy=run["policy"],
        block_length=run["block_length"],
        cache=run["cache"],
        temperature=run["temperature"],
        top_j=run["top_j"],
    )


@cli.command("search")
def search_command(
    traces: Annotated[Path, typer.Argument(help="A trace folder written by `draftgraph record`.")],
    out: Annotated[Path, typer.Option("--out", help="The graph file to write.")],
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "greedy",
    budget: Annotated[int, typer.Option("--budget", min=1, help="Draft nodes.")] = 10,
    time_limit: Annotated[float, typer.Option("--time-limit", min=0.0, help="Seconds for --method exact.")] = 30.0,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Find a draft graph for a budget in recorded traces."""
    cli.check_output(out, overwrite)
    found = read_traces(traces)
    valid = trace_validity(found)
    anchors = AnchorTable.from_traces(found, max_depth=None)
    if anchors.n_anchors == 0:
        raise ValueError(
            f"{traces} holds no anchor (every block was complete after one step): there is nothing to draft"
        )
    trie = PrefixTrie.from_anchors(anchors)
    step_size = make_policy(valid.policy).step_size
    given = SearchInput(trie, budget, valid.block_length, step_size, time_limit)
    found_graph = find_graphs(method, given, [budget])[budget]
    nodes = found_graph.nodes
    if not nodes:
        raise ValueError(f"{method} found no draft node in {traces}: no draft was ever possible under {valid.policy}")
    graph = DraftGraph.from_formulas(nodes, step_size)
    value = replay(nodes, anchors)
    counts, reach = node_statistics(graph.draft_nodes(), trie)
    provenance = {
        "tool": "draftgraph",
        "tool_version": tool_version(),
        "search": method,
        "budget": budget,
        "trace_hash": found.trace_hash(),
        "prompt_set_hash": found.metadata["prompt_set_hash"],
        "prompts": int(found.metadata["prompts"]),
        "dtype": found.metadata["dtype"],
        "generation_length": int(found.metadata["generation_length"]),
        "node_counts": [int(trie.total), *counts],
        "node_reach": [1.0, *reach],
    }
    values = {"search": {**value.row(), **interval_fields(value)}}
    proof = ""
    if found_graph.bound is not None and found_graph.gap is not None:
        values["search"] |= {"bound": found_graph.bound, "gap": found_graph.gap}
        proof = ", proved optimal" if found_graph.gap == 0 else f", NOT proved optimal: gap {found_graph.gap:.2%}"
    save_graph(graph.to_graph_file(valid, provenance, values), out)
    if len(nodes) < budget:
        cli.console.print(
            f"[yellow]only {len(nodes)} of {budget} draft nodes:[/] the traces hold no further candidates"
        )
    cli.console.print(
        f"{method}, {len(nodes)} drafts{proof}: accepted drafts {value.accepted_drafts:.3f}, nfe reduction "
        f"{value.nfe_reduction:.2f} on the traces searched (value it on other prompts with `draftgraph evaluate`)\n"
        f"[bold]{out}[/]"
    )


@cli.command("evaluate")
def evaluate_command(
    graphs: Annotated[list[Path], typer.Argument(help="Graph files.")],
    traces: Annotated[Path, typer.Option("--traces", help="A trace folder, best one that no search has seen.")],
) -> None:
    """Replay graphs over recorded traces: accepted drafts and forward passes, without a model."""
    found = read_traces(traces)
    run = trace_validity(found)
    anchors = AnchorTable.from_traces(found, max_depth=None)
    table = cli.plain_table(
        f"replay on {found.metadata['prompts']} prompts, {run.policy}, {run.cache} cache",
        {
            "graph": "left",
            "D": "right",
            "accepted\ndrafts": "right",
            "forwards\nplain": "right",
            "forwards\ngraph": "right",
            "nfe\nreduction": "right",
        },
    )
    for path in graphs:
        file = read_graph(path)
        wrong = file.validity.mismatches(run)
        if wrong:
            raise ValueError(f"{path} does not fit the traces in {traces}: " + "; ".join(wrong))
        value = replay(file.nodes[1:], anchors)
        table.add_row(
            str(path),
            str(file.budget),
            f"{value.accepted_drafts:.3f}",
            str(value.plain_forwards),
            str(value.forwards),
            f"{value.nfe_reduction:.3f}",
        )
    cli.console.print(table)


@cli.command("export")
def export_command(
    graph: GraphArgument,
    out: Annotated[Path, typer.Option("--out", help="Where to write.")],
    format: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "safetensors",
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Write a graph for another runtime: checked JSON, static buffers as safetensors, or Graphviz DOT."""
    cli.check_output(out, overwrite)
    if out.suffix == ".json" and format != "json":
        raise ValueError(f"{out} ends in .json, but --format is {format}; give --format json or another --out")
    file = read_graph(graph)
    if format == "json":
        save_graph(file, out)
    elif format == "safetensors":
        export_static_buffers(file, out)
    elif format == "dot":
        _write_dot(file, out)
    else:
        raise ValueError(f"unknown format {format!r}, expected one of {', '.join(FORMATS)}")
    cli.console.print(f"[bold]{out}[/]: {file.budget} drafts as {format}")


def _write_dot(file: GraphFile, out: Path) -> None:
    drawn = nx.transitive_reduction(DraftGraph.from_graph_file(file))
    names = {node: f"n{index}" for index, node in enumerate(file.nodes)}
    lines = ["digraph draft_graph {"]
    lines += [f'  {name} [label="{format_formula(node)}"];' for node, name in names.items()]
    lines += [f"  {names[parent]} -> {names[child]};" for parent, child in drawn.edges]
    with write_atomically(out) as temporary:
        temporary.write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")


@cli.command("plot")
def plot_command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories, or files of ablate, study, calibration-size, latency, budget or verify."),
    ],
) -> None:
    """Draw every figure of saved results: PNG, SVG and the data as CSV."""
    for run in runs:
        for path in cli.draw(run):
            cli.console.print(str(path))
