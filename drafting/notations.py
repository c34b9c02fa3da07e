"""Draft graphs in notations of others: Graphviz DOT, GraphML, CSV, and path lists of a tree (docs/notations.md).

They are for people and for tools that read them. A runtime is better served by the graph file or the static buffers,
as nothing here is checked when it is read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import networkx as nx

from drafting.graph import DraftGraph
from drafting.spanning import AcceptanceLost, tree_paths
from verify.files.json_text import format_json, plain_json
from verify.files.writing import write_atomically
from verify.graph.file import GraphFile
from verify.graph.formulas import Formula, format_formula

#: What a node of a graph file may have of the traces, in the columns of a table and the attributes of a node.
_VALUES = ("count", "reach")
PATHS_FORMAT, PATHS_VERSION = "draftgraph-paths", 1


def dot_text(file: GraphFile) -> str:
    """The graph for Graphviz: node ``nK`` is node K of the file, with its formula as label.

    Edges that follow from others are left out (the transitive reduction), as a reader could not follow the rest.
    """
    names = _names(file)
    lines = ["digraph draft_graph {"]
    lines += [f'  {name} [label="{format_formula(node)}"];' for node, name in names.items()]
    drawn = nx.transitive_reduction(DraftGraph.from_graph_file(file))
    lines += [f"  {names[parent]} -> {names[child]};" for parent, child in drawn.edges]
    return "\n".join([*lines, "}"]) + "\n"


def write_graphml(file: GraphFile, path: str | Path) -> None:
    """Write the graph with every edge as GraphML (``networkx.read_graphml`` reads it): whole or not at all.

    Nodes are ``n0`` (the root), ``n1``, ... in the order of the file, with ``formula`` (JSON text), ``depth`` and,
    where the file states them, ``count`` and ``reach``. The graph has ``rank_origin``, ``tie_rule`` and the fields of
    the validity that are stated.

    Raises:
        OSError: the file cannot be written.
    """
    source, names = DraftGraph.from_graph_file(file), _names(file)
    written = nx.DiGraph(rank_origin=file.rank_origin, tie_rule=file.tie_rule, **_stated(file))
    for (node, name), depth in zip(names.items(), file.depths, strict=True):
        values = {key: source.nodes[node][key] for key in _VALUES if key in source.nodes[node]}
        written.add_node(name, formula=formula_json(node), depth=depth, **values)
    written.add_edges_from((f"n{parent}", f"n{child}") for parent, child in file.edges)
    with write_atomically(path) as temporary:
        nx.write_graphml_xml(written, temporary)


def csv_text(file: GraphFile) -> str:
    """The graph as a table (RFC 4180, lines end in a line feed): one row a node, the root first.

    Columns: ``node`` (its number in the file), ``depth``, ``formula`` (JSON text), ``parents`` (their numbers, with
    blanks between), ``count`` and ``reach`` (empty where the file does not state them).
    """
    source = DraftGraph.from_graph_file(file)
    parents: list[list[int]] = [[] for _ in file.nodes]
    for parent, child in file.edges:
        parents[child].append(parent)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["node", "depth", "formula", "parents", *_VALUES])
    for number, node in enumerate(file.nodes):
        values = [source.nodes[node].get(key, "") for key in _VALUES]
        above = " ".join(map(str, sorted(parents[number])))
        table.writerow([number, file.depths[number], formula_json(node), above, *values])
    return text.getvalue()


def paths_text(file: GraphFile, parents: Mapping[Formula, Formula], lost: AcceptanceLost) -> str:
    """A spanning tree of the graph as the path list that Medusa and EAGLE read, with what the tree loses, as JSON.

    Args:
        file: the graph.
        parents: the tree, from :func:`drafting.spanning.spanning_tree`.
        lost: what it accepts less than the graph.
    """
    ranks = vocabulary_ranks(file.nodes)
    choices = tree_paths(parents, ranks)
    payload = {
        "format": PATHS_FORMAT,
        "version": PATHS_VERSION,
        "validity": file.validity.stated(),
        "rank_origin": file.rank_origin,
        "tie_rule": file.tie_rule,
        "vocabulary_ranks": ranks,
        "top_k": 1 + max(choice for path in choices for choice in path),
        "acceptance": asdict(lost),
        "medusa_choices": choices,
    }
    return format_json(plain_json(payload), by_row=("medusa_choices",))


def formulas_of_paths(choices: Iterable[Sequence[int]], ranks: int) -> list[Formula]:
    """The nodes that a path list names, in its order; ``ranks``: its ``vocabulary_ranks``."""
    return [tuple(sorted((choice // ranks + 1, choice % ranks + 1) for choice in path)) for path in choices]


def vocabulary_ranks(nodes: Iterable[Formula]) -> int:
    """The highest vocabulary rank that ``nodes`` name, 1 without any."""
    return max((j for node in nodes for _, j in node), default=1)


def formula_json(node: Formula) -> str:
    """``[[1,1],[2,1]]``: a formula as it stands in the graph file."""
    return json.dumps(node, separators=(",", ":"))


def _names(file: GraphFile) -> dict[Formula, str]:
    return {node: f"n{number}" for number, node in enumerate(file.nodes)}


def _stated(file: GraphFile) -> dict[str, Any]:
    return {name: value for name, value in file.validity.stated().items() if value is not None}
