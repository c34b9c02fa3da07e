"""``export``: a graph is written for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli import options, printing
from studies.cli.graphs import read_graph
from studies.cli.guard import command
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from verify.graph.file import GraphFile


FORMATS = ("json", "safetensors", "dot")


@command()
def export_command(
    graph: options.GraphArgument,
    out: Annotated[Path, typer.Option("--out", help="Where to write.")],
    format: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "safetensors",
    overwrite: options.OverwriteOption = False,
) -> None:
    """Write a graph for another runtime: checked JSON, static buffers as safetensors, or Graphviz DOT."""
    from drafting.export import export_static_buffers
    from verify.graph.file import save_graph

    check_output(out, overwrite)
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
    printing.say(printing.bold(out), f": {file.budget} drafts as {format}")


def _write_dot(file: GraphFile, out: Path) -> None:
    import networkx as nx

    from drafting.graph import DraftGraph
    from verify.files.writing import write_atomically
    from verify.graph.formulas import format_formula

    drawn = nx.transitive_reduction(DraftGraph.from_graph_file(file))
    names = {node: f"n{index}" for index, node in enumerate(file.nodes)}
    lines = ["digraph draft_graph {"]
    lines += [f'  {name} [label="{format_formula(node)}"];' for node, name in names.items()]
    lines += [f"  {names[parent]} -> {names[child]};" for parent, child in drawn.edges]
    with write_atomically(out) as temporary:
        temporary.write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")
