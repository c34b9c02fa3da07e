"""The graph file: a draft graph as JSON, format version 1 (docs/graph-format.md is its specification).

The loader trusts nothing: a file that loads is a graph that a runtime may use without further checks. The
writer sends what it writes through the same checks, so that no file of ours is refused by us.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from verify.files.strict_json import (
    StrictJsonError,
    Words,
    expect_integer,
    expect_number,
    expect_object,
    expect_plain,
    expect_text,
    fail,
    read_json,
)
from verify.files.writing import write_atomically
from verify.graph.formulas import ROOT, Formula
from verify.graph.structure import all_edges, check_depths, fewest_steps, read_edges, read_nodes
from verify.graph.values import check_latency, check_values
from verify.policies.contract import PolicyError
from verify.policies.specification import make_policy
from verify.ranked import TIE_RULE

GRAPH_FORMAT = "draftgraph"
GRAPH_FORMAT_VERSION = 1
RANK_ORIGIN = "lagged"
CACHES = ("none", "prefix", "dual", "block_causal")

#: Names of rules that are ours: behind one of them, parameters that cannot be read are an error, no foreign rule.
_OWN_RULES = ("static", "threshold", "quota", "dynamic", "dream")

MAX_BYTES = 16 * 2**20
MAX_KEYS = 2**16
MAX_NODES = 2**16
MAX_EDGES = 2**20
MAX_BLOCK_LENGTH = 2**15 - 1
MAX_TOP_J = 2**15 - 1

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
class Validity:
    """For whom a graph was calibrated; with anything else its formulas mean other states.

    Attributes:
        model: the checkpoint's name, without a path.
        model_revision: what identifies its weights (a commit or a digest), None where none was stated.
        policy: the specification of the unmasking policy, for example ``static:1``.
        block_length: positions in a block, ``L``.
        cache: one of ``CACHES``.
        temperature: at which tokens were sampled, 0 for argmax.
        top_j: vocabulary ranks that were recorded; no formula names a higher one.
    """

    model: str
    model_revision: str | None
    policy: str
    block_length: int
    cache: str
    temperature: float
    top_j: int

    def mismatches(self, run: Validity) -> list[str]:
        """What stands between this graph and a ``run``, one readable line each; empty when the graph fits.

        Where both sides state a revision it says whether the model is the same, and names are not compared: one folder
        has many. A run may know more vocabulary ranks than the graph was calibrated with, not fewer.
        """
        lines = []
        revised = self.model_revision is not None and run.model_revision is not None
        for item in fields(self):
            ours, theirs = getattr(self, item.name), getattr(run, item.name)
            if item.name == "model":
                fits = revised or ours == theirs
            elif item.name == "model_revision":
                fits = not revised or ours == theirs
                ours, theirs = f"{ours} of {self.model}", f"{theirs} of {run.model}"
            elif item.name == "top_j":
                fits = theirs >= ours
            else:
                fits = ours == theirs
            if not fits:
                name = item.name.replace("_", " ")
                lines.append(f"{name}: the graph was calibrated for {ours!r}, the run has {theirs!r}")
        return lines


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
            checked = _validity(_plain(vars(validity)))
            rooted = _plain([[], *(node for node in nodes if node != ROOT)])
            ordered = read_nodes(rooted, checked.block_length, checked.top_j, MAX_NODES)
            edges = all_edges(ordered, _step_size(checked.policy), MAX_EDGES)
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
    lines = []
    for name, value in _payload(graph).items():
        if name in ("nodes", "edges") and value:
            rows = ",\n    ".join(json.dumps(row, separators=(",", ":")) for row in value)
            text = f"[\n    {rows}\n  ]"
        elif isinstance(value, dict):
            text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).replace("\n", "\n  ")
        else:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        lines.append(f'  "{name}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _payload(graph: GraphFile) -> dict[str, Any]:
    """The JSON object of ``graph``, unchecked; numpy's numbers and arrays become plain ones."""
    payload: dict[str, Any] = {"format": GRAPH_FORMAT, "version": GRAPH_FORMAT_VERSION}
    payload.update({name: getattr(graph, name) for name in FIELDS[2:]})
    payload["validity"] = vars(graph.validity)
    return _plain(payload)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _graph(payload: object) -> GraphFile:
    """Check a parsed file and make the graph. Raises :class:`StrictJsonError`."""
    # The version before the fields: a file of another version may well have others.
    outer = expect_object(payload, "file")
    if outer.get("format") != GRAPH_FORMAT:
        fail("format", f'"{GRAPH_FORMAT}"', outer.get("format", Words("no such field")))
    version = outer.get("version", Words("no such field"))
    if type(version) is not int or version != GRAPH_FORMAT_VERSION:
        fail("version", f"{GRAPH_FORMAT_VERSION}, the only one this release reads", version)
    expect_object(payload, "file", FIELDS)

    validity = _validity(outer["validity"])
    for name, only in (("rank_origin", RANK_ORIGIN), ("tie_rule", TIE_RULE)):
        if outer[name] != only:
            fail(name, f'"{only}"', outer[name])
    nodes = read_nodes(outer["nodes"], validity.block_length, validity.top_j, MAX_NODES)
    edges = read_edges(outer["edges"], nodes, _step_size(validity.policy), MAX_EDGES)
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


def _validity(value: object) -> Validity:
    stated = expect_object(value, "validity", [item.name for item in fields(Validity)])
    if stated["model_revision"] is not None:
        expect_text(stated["model_revision"], "validity.model_revision")
    policy = expect_text(stated["policy"], "validity.policy")
    _step_size(policy)
    if stated["cache"] not in CACHES:
        fail("validity.cache", f"one of {', '.join(CACHES)}", stated["cache"])
    return Validity(
        model=expect_text(stated["model"], "validity.model"),
        model_revision=stated["model_revision"],
        policy=policy,
        block_length=expect_integer(stated["block_length"], "validity.block_length", 1, MAX_BLOCK_LENGTH),
        cache=stated["cache"],
        temperature=expect_number(stated["temperature"], "validity.temperature", 0.0),
        top_j=expect_integer(stated["top_j"], "validity.top_j", 1, MAX_TOP_J),
    )


def _step_size(policy: str) -> int | None:
    """Pairs per step under ``policy``; None when it varies, also for a rule that is not ours."""
    try:
        known = make_policy(policy)
    except PolicyError as error:
        if policy.partition(":")[0] in _OWN_RULES:
            fail("validity.policy", "a policy with valid parameters", Words(str(error)[:300]))
        return None
    if known.spec != policy:
        # Two spellings of one policy would count as two when a run is compared with the graph.
        fail("validity.policy", f'"{known.spec}"', policy)
    return known.step_size
