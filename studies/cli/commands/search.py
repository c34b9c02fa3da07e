"""``search``: a draft graph is found in recorded traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.cli import options, printing
from studies.cli.guard import command
from studies.cli.outputs import check_output


@command()
def search_command(
    traces: Annotated[Path, typer.Argument(help="A trace folder written by `draftgraph record`.")],
    out: Annotated[Path, typer.Option("--out", help="The graph file to write.")],
    method: Annotated[str, typer.Option("--method", help=options.METHOD_HELP)] = "greedy",
    budget: Annotated[int, typer.Option("--budget", min=1, help="Draft nodes.")] = 10,
    time_limit: Annotated[float, typer.Option("--time-limit", min=0.0, help="Seconds for --method exact.")] = 30.0,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Find a draft graph for a budget in recorded traces."""
    from calibrate.traces.table import read_traces
    from drafting.anchors import AnchorTable
    from drafting.graph import DraftGraph
    from drafting.provenance import search_provenance, trace_validity
    from drafting.replay import replay
    from drafting.searches.methods import SearchInput, find_graphs
    from drafting.trie import PrefixTrie
    from studies.statistics.intervals import interval_fields
    from verify.graph.file import save_graph
    from verify.policies.specification import make_policy

    check_output(out, overwrite)
    found = read_traces(traces)
    valid = trace_validity(found.metadata)
    anchors = AnchorTable.from_traces(found, max_depth=None)
    if anchors.n_anchors == 0:
        raise ValueError(
            f"{traces} holds no anchor (every block was complete after one step): there is nothing to draft"
        )
    trie = PrefixTrie.from_anchors(anchors)
    step_size = make_policy(valid.policy).step_size
    problem = SearchInput(trie, valid.block_length, step_size, time_limit)
    found_graph = find_graphs(method, problem, [budget])[budget]
    nodes = found_graph.nodes
    if not nodes:
        raise ValueError(f"{method} found no draft node in {traces}: no draft was ever possible under {valid.policy}")
    graph = DraftGraph.from_formulas(nodes, step_size).annotate(trie)
    value = replay(nodes, anchors)
    provenance = search_provenance(found.metadata, found.trace_hash(), method, budget, found.prompt_hashes())
    values = {"search": {**value.row(), **interval_fields(value)}}
    proof = ""
    if found_graph.bound is not None and found_graph.gap is not None:
        values["search"] |= {"bound": found_graph.bound, "gap": found_graph.gap}
        proof = ", proved optimal" if found_graph.gap == 0 else f", NOT proved optimal: gap {found_graph.gap:.2%}"
    save_graph(graph.to_graph_file(valid, provenance, values), out)
    if len(nodes) < budget:
        printing.say(
            printing.yellow(f"only {len(nodes)} of {budget} draft nodes:"), " the traces hold no further candidates"
        )
    printing.say(
        f"{method}, {len(nodes)} drafts{proof}: accepted drafts {value.accepted_drafts:.3f}, nfe reduction "
        f"{value.nfe_reduction:.2f} on the traces searched (value it on other prompts with `draftgraph evaluate`)\n",
        printing.bold(out),
    )
