"""``export``: a graph is written for another runtime, or in a notation that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli import options, printing
from studies.cli.graphs import read_graph
from studies.cli.guard import command
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from drafting.trie import PrefixTrie
    from verify.graph.file import GraphFile


FORMATS = ("json", "safetensors", "dot", "graphml", "csv", "medusa", "sglang")
#: Formats that are JSON, so that a file of another format does not get the name of a graph file.
JSON_FORMATS = ("json", "medusa")


@command()
def export_command(
    graph: options.GraphArgument,
    out: Annotated[Path, typer.Option("--out", help="Where to write.")],
    format: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "safetensors",
    traces: Annotated[
        Path | None,
        typer.Option(
            "--traces", help="With --format medusa: a trace folder on which the tree is chosen, and its loss counted."
        ),
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Write a graph for another runtime or tool: static buffers, SGLang, Medusa paths, DOT, GraphML, CSV, JSON."""
    from drafting.export import export_static_buffers
    from drafting.notations import csv_text, dot_text, write_graphml
    from verify.files.writing import write_atomically
    from verify.graph.file import save_graph
    from verify.runtimes.sglang_config import write_sglang_config

    check_output(out, overwrite)
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}, expected one of {', '.join(FORMATS)}")
    if out.suffix == ".json" and format not in JSON_FORMATS:
        raise ValueError(f"{out} ends in .json, but --format is {format}; give --format json or another --out")
    if traces is not None and format != "medusa":
        raise ValueError(f"--traces belongs to --format medusa, got --format {format}; leave --traces out")
    file = read_graph(graph)
    said, text = f"{file.budget} drafts as {format}", None
    if format == "json":
        save_graph(file, out)
    elif format == "safetensors":
        export_static_buffers(file, out)
    elif format == "sglang":
        write_sglang_config(graph, out)
    elif format == "graphml":
        write_graphml(file, out)
    elif format == "medusa":
        text, said = _paths(file, graph, traces)
    else:
        text = dot_text(file) if format == "dot" else csv_text(file)
    if text is not None:
        with write_atomically(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    printing.say(printing.bold(out), f": {said}")


def _paths(file: GraphFile, path: Path, traces: Path | None) -> tuple[str, str]:
    """The path list of a spanning tree, and what is said of it."""
    from drafting.graph import DraftGraph
    from drafting.notations import paths_text
    from drafting.spanning import SpanningTreeError, acceptance_lost, spanning_tree

    trie = None if traces is None else _trie(file, path, traces)
    try:
        tree = spanning_tree(DraftGraph.from_graph_file(file), trie)
    except SpanningTreeError as error:
        raise ValueError(f"{path}: {error}") from None
    lost = acceptance_lost(file, tree, trie)
    return paths_text(file, tree, lost), f"{file.budget} drafts as paths. {lost.sentence()}"


def _trie(file: GraphFile, path: Path, traces: Path) -> PrefixTrie:
    """The traces that the tree is chosen on, checked to be of the decodes that the graph is for."""
    from calibrate.traces.table import read_traces
    from drafting.anchors import AnchorTable
    from drafting.provenance import trace_validity
    from drafting.trie import PrefixTrie

    recorded = read_traces(traces)
    if wrong := file.validity.mismatches(trace_validity(recorded.metadata)):
        raise ValueError(f"{path} does not fit the traces in {traces}: " + "; ".join(wrong))
    return PrefixTrie.from_anchors(AnchorTable.from_traces(recorded, max_depth=None))
