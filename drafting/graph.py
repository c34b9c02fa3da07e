"""The draft graph as a networkx DiGraph: nodes are formulas, edges are what one denoising step can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import networkx as nx

from verify.graph.file import GraphFile, Validity
from verify.graph.formulas import ROOT, Formula, FormulaError, format_formula, formula, is_subset
from verify.graph.structure import followers, members
from verify.policies.contract import PolicyError
from verify.policies.specification import step_sizes


class DraftGraphError(ValueError):
    """Formulas or edges that make no draft graph."""


class DraftGraph(nx.DiGraph):
    """A DAG of draft formulas with the empty formula as root.

    There is an edge A -> B when A is a proper subset of B and B has ``step_size`` pairs more (any number
    when that is
    None: a threshold rule commits as many as pass). All such edges are there. Every algorithm of networkx
    applies; :meth:`validate` says whether what you changed is still a draft graph.

    Iterating gives the formulas, root included. The step size is kept in ``graph.graph["step_size"]``, so
    copies and subgraphs have it too.
    """

    def __init__(self, incoming_graph_data: Any = None, **attr: Any) -> None:
        super().__init__(incoming_graph_data, **attr)
        self.add_node(ROOT)

    @classmethod
    def from_formulas(cls, formulas: Iterable[Formula], step_size: int | None = None) -> DraftGraph:
        """The draft graph over ``formulas`` (the root may be left out, order does not matter).

        Args:
            formulas: pairs in any order; a formula that comes twice counts once.
            step_size: pairs that one denoising step adds, None when it varies.

        Complexity: O(n^2 / 64) machine words per pair for n formulas, plus the edges.

        Raises:
            DraftGraphError: a node has no path from the root (no decode could ever accept it; nothing is
                dropped silently), ``step_size`` below 1, or a set of pairs that is no formula.
        """
        if step_size is not None and step_size < 1:
            raise DraftGraphError(f"step_size must be at least 1 or None, got {step_size}")
        try:
            distinct = {formula(value) for value in formulas} | {ROOT}
        except FormulaError as error:
            raise DraftGraphError(str(error)) from error
        nodes = sorted(distinct, key=_order)
        graph = cls(step_size=step_size)
        graph.add_nodes_from(nodes)
        for parent, bits in zip(nodes, followers(nodes, step_size), strict=True):
            graph.add_edges_from((parent, nodes[child]) for child in members(bits))
        graph.validate()
        return graph

    @property
    def step_size(self) -> int | None:
        """Pairs that one denoising step adds; None when it varies."""
        return self.graph.get("step_size")

    @property
    def budget(self) -> int:
        """Draft nodes, the root excluded."""
        return len(self) - 1

    def draft_nodes(self) -> tuple[Formula, ...]:
        """All nodes but the root, by size, then lexicographically: a topological order."""
        return tuple(sorted((node for node in self if node != ROOT), key=_order))

    def depths(self) -> dict[Formula, int]:
        """Per node, the fewest denoising steps from the root: what figures and the graph file call depth.

        With a step size this is also the only depth (every path to a node is as long); without one every
        node can follow the root at once and has depth 1, and :meth:`layers` tells more.
        """
        return dict(nx.single_source_shortest_path_length(self, ROOT))

    def layers(self) -> dict[Formula, int]:
        """Per node, the most denoising steps from the root (networkx topological generations): for
        drawing."""
        generations = nx.topological_generations(self)
        return {node: level for level, generation in enumerate(generations) for node in generation}

    def validate(self) -> None:
        """Check that this is a draft graph; the error names the first node or edge that is wrong.

        Raises:
            DraftGraphError: no root, a node that is no canonical formula, an edge that one step cannot make,
                or a node without a path from the root.
        """
        if ROOT not in self:
            raise DraftGraphError("a draft graph needs the root, the empty formula (), as a node")
        for node in self:
            try:
                canonical = formula(node)
            except (FormulaError, TypeError, ValueError) as error:
                raise DraftGraphError(f"node {node!r} is no draft formula: {error}") from error
            if node != canonical:
                raise DraftGraphError(f"node {node!r} must be written in its canonical form {canonical!r}")
        for parent, child in self.edges:
            added = len(child) - len(parent)
            if added < 1 or not is_subset(parent, child):
                raise DraftGraphError(
                    f"edge {format_formula(parent)} -> {format_formula(child)} must lead to a proper superset"
                )
            if self.step_size is not None and added != self.step_size:
                raise DraftGraphError(
                    f"edge {format_formula(parent)} -> {format_formula(child)} adds {added} pairs, "
                    f"one denoising step adds {self.step_size}"
                )
        lost = set(self) - {ROOT} - nx.descendants(self, ROOT)
        if lost:
            first = min(lost, key=_order)
            step = "any number of pairs" if self.step_size is None else f"{self.step_size} pairs"
            raise DraftGraphError(
                f"{len(lost)} of {self.budget} nodes have no path from the root by steps of {step}, first "
                f"{format_formula(first)}; add the states before them or leave them out"
            )

    def to_graph_file(
        self,
        validity: Validity,
        provenance: Mapping[str, Any] | None = None,
        values: Mapping[str, Any] | None = None,
        latency: Mapping[str, Any] | None = None,
    ) -> GraphFile:
        """This graph as the content of a graph file, nodes in the order of :meth:`draft_nodes`.

        Raises:
            DraftGraphError: the step size of the graph is not that of the policy it is to be valid for.
            verify.graph.file.GraphFileError: a rank out of range for the validity, or another breach.
        """
        wanted = _step_size(validity.policy, self.step_size)
        if wanted != self.step_size:
            raise DraftGraphError(
                f"policy {validity.policy!r} has step size {wanted}, the graph was built with "
                f"{self.step_size}; build it with DraftGraph.from_formulas(nodes, step_size) of that policy"
            )
        return GraphFile.from_nodes(self.draft_nodes(), validity, provenance=provenance, values=values, latency=latency)

    @classmethod
    def from_graph_file(cls, file: GraphFile) -> DraftGraph:
        """The graph of a loaded file."""
        return cls.from_formulas(file.nodes, _step_size(file.validity.policy, None))


def _step_size(policy: str, unknown: int | None) -> int | None:
    """The policy's step size; ``unknown`` for a rule that is not ours."""
    try:
        return step_sizes(policy)
    except PolicyError:
        return unknown


def _order(node: Formula) -> tuple[int, Formula]:
    return len(node), node
