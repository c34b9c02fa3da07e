"""The graph file: a draft graph as JSON, format version 1 (docs/graph-format.md is its specification).

The loader trusts nothing: a file that loads is a graph that a runtime may use without further checks. The
writer sends what it writes through the same checks, so that no file of ours is refused by us.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verify.files.json_text import format_json, plain_json
from verify.files.strict_json import (
    StrictJsonError,
    expect_format,
    expect_object,
    expect_plain,
    fail,
    parse_json,
    read_json,
)
from verify.files.writing import write_atomically
from verify.graph.formulas import ROOT, Formula
from verify.graph.structure import all_edges, check_depths, fewest_steps, read_edges, read_nodes
from verify.graph.validity import Validity, edge_step, read_validity
from verify.graph.values import check_latency, check_values
from verify.ranked import TIE_RULE

GRAPH_FORMAT = "draftgraph"
GRAPH_FORMAT_VERSION = 1
RANK_ORIGIN = "lagged"

MAX_BYTES = 16 * 2**20
MAX_KEYS = 2**16
MAX_NODES = 2**16
MAX_EDGES = 2**20

FIELDS = (
    "format",
    "version",
    "validity",
    "rank_origin",
    "tie_rule",
    "nodes",
    "depths",
    "edges",
    "values",
    "provenance",
    "latency",
)


class GraphFileError(ValueError):
    """A graph file, or a graph to be written to one, that breaks the format."""


@dataclass(frozen=True)
class GraphFile:
    """A draft graph with everything that its file says.

    Attributes:
        nodes: formulas, the root (the empty one) first.
        edges: every (parent, child) pair of node indices such that the child can follow the parent in one
            step.
        depths: per node, the fewest edges from the root.
        validity: for whom the graph holds.
        rank_origin: which distribution gives the ranks; "lagged" is the only one of version 1.
        tie_rule: how equal probabilities are ordered.
        provenance: where the graph comes from (trace hash, search, seed, tool version, ...).
        values: per split, what the graph is worth there.
        latency: the measured latency table with its units, or None.
    """

    nodes: tuple[Formula, ...]
    edges: tuple[tuple[int, int], ...]
    depths: tuple[int, ...]
    validity: Validity
    rank_origin: str = RANK_ORIGIN
    tie_rule: str = TIE_RULE
    provenance: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    latency: dict[str, Any] | None = None

    @property
    def budget(self) -> int:
        """Draft nodes, the root excluded."""
        return len(self.nodes) - 1

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[Formula],
        validity: Validity,
        *,
        provenance: Mapping[str, Any] | None = None,
        values: Mapping[str, Any] | None = None,
        latency: Mapping[str, Any] | None = None,
    ) -> GraphFile:
        """The graph over ``nodes``, with all the edges that the policy's step size allows and their depths.

        The root is put first, whether or not it is among them; the other nodes keep their order.

        Raises:
            GraphFileError: the nodes or anything else break the format, as by :func:`load_graph`.
        """
        try:
            checked = read_validity(plain_json(validity.stated()))
            rooted = plain_json([[], *(node for node in nodes if node != ROOT)])
            ordered = read_nodes(rooted, checked.block_length, checked.top_j, MAX_NODES)
            edges = all_edges(ordered, edge_step(checked.policy), MAX_EDGES)
            depths = fewest_steps(ordered, edges)
        except StrictJsonError as error:
            raise GraphFileError(f"graph: {error}") from None
        graph = cls(
            nodes=ordered,
            edges=edges,
            depths=depths,
            validity=checked,
            provenance=dict(provenance or {}),
            values=dict(values or {}),
            latency=None if latency is None else dict(latency),
        )
        check_graph(graph)
        return graph


def load_graph(path: str | Path) -> GraphFile:
    """Read the graph file at ``path``.

    Raises:
        GraphFileError: the file is missing, too large, not JSON, of another version, or breaks a rule of
            docs/graph-format.md; the message names the place, what was expected and what was found.

    Takes time linear in the file plus, for the check that all edges are there, ``(N / 64) * total formula
    size`` machine words for ``N`` nodes.

    >>> import tempfile
    >>> validity = Validity("toy", None, policy="static:1", block_length=8, cache="dual", temperature=0.0, top_j=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_graph(GraphFile.from_nodes([((1, 1),), ((1, 1), (2, 1))], validity), f"{folder}/graph.json")
    ...     graph = load_graph(f"{folder}/graph.json")
    >>> graph.budget, graph.nodes, graph.edges
    (2, ((), ((1, 1),), ((1, 1), (2, 1))), ((0, 1), (1, 2)))
    >>> graph.validity.policy
    'static:1'
    """
    try:
        return _graph(read_json(path, MAX_BYTES, MAX_KEYS))
    except StrictJsonError as error:
        raise GraphFileError(f"{path}: {error}") from None


def parse_graph(text: str) -> GraphFile:
    """The graph in the ``text`` of a graph file; the errors are those of :func:`load_graph`, about ``graph``."""
    try:
        return _graph(parse_json(text.encode("utf-8"), MAX_KEYS))
    except StrictJsonError as error:
        raise GraphFileError(f"graph: {error}") from None


def save_graph(graph: GraphFile, path: str | Path) -> None:
    """Write ``graph`` to ``path``: whole or not at all, and only when :func:`load_graph` would take it.

    Folders on the way to ``path`` are made.

    Raises:
        GraphFileError: the graph breaks the format.
        OSError: the file cannot be written; whatever stood at ``path`` is untouched.
    """
    check_graph(graph, str(path))
    data = format_graph(graph).encode("utf-8")
    if len(data) > MAX_BYTES:
        raise GraphFileError(f"{path}: size: expected at most {MAX_BYTES} bytes, found {len(data)} bytes")
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)


def check_graph(graph: GraphFile, where: str = "graph") -> None:
    """Raise :class:`GraphFileError` unless ``graph`` keeps every rule of the format."""
    try:
        _graph(_payload(graph))
    except StrictJsonError as error:
        raise GraphFileError(f"{where}: {error}") from None


def format_graph(graph: GraphFile) -> str:
    """The text of the graph's file: one node or edge a line, so that two graphs can be compared with
    ``diff``."""
    return format_json(_payload(graph), by_row=("nodes", "edges"))


def _payload(graph: GraphFile) -> dict[str, Any]:
    """The JSON object of ``graph``, unchecked; numpy's numbers and arrays become plain ones."""
    payload: dict[str, Any] = {"format": GRAPH_FORMAT, "version": GRAPH_FORMAT_VERSION}
    payload.update({name: getattr(graph, name) for name in FIELDS[2:]})
    payload["validity"] = graph.validity.stated()
    return plain_json(payload)


def _graph(payload: object) -> GraphFile:
    """Check a parsed file and make the graph. Raises :class:`StrictJsonError`."""
    outer = expect_format(payload, GRAPH_FORMAT, GRAPH_FORMAT_VERSION)
    expect_object(payload, "file", FIELDS)

    validity = read_validity(outer["validity"])
    for name, only in (("rank_origin", RANK_ORIGIN), ("tie_rule", TIE_RULE)):
        if outer[name] != only:
            fail(name, f'"{only}"', outer[name])
    nodes = read_nodes(outer["nodes"], validity.block_length, validity.top_j, MAX_NODES)
    edges = read_edges(outer["edges"], nodes, edge_step(validity.policy), MAX_EDGES)
    depths = fewest_steps(nodes, edges)
    check_depths(outer["depths"], depths)
    check_values(outer["values"], len(nodes))
    provenance = expect_object(outer["provenance"], "provenance")
    expect_plain(provenance, "provenance")
    check_latency(outer["latency"])
    return GraphFile(
        nodes=nodes,
        edges=edges,
        depths=depths,
        validity=validity,
        provenance=provenance,
        values=outer["values"],
        latency=outer["latency"],
    )
