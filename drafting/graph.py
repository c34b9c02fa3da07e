"""The draft graph as a networkx DiGraph: nodes are formulas, edges are what one denoising step can do.

Traces give nodes and edges their values (:meth:`DraftGraph.annotate`); docs/graph.md shows networkx at work on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from drafting.anchors import AnchorTable
from drafting.annotation import trace_attributes
from drafting.replay import per_prompt, replay
from drafting.searches.result import SearchResult
from drafting.trie import PrefixTrie
from drafting.values import path_value
from verify.graph.file import GraphFile, Validity, save_graph
from verify.graph.formulas import ROOT, Formula, FormulaError, format_formula, formula, is_subset
from verify.graph.structure import followers, members
from verify.policies.contract import PolicyError
from verify.policies.specification import step_sizes

if TYPE_CHECKING:
    from calibrate.traces.table import Traces

#: Lists of one number a node in a graph file, and the node attributes that they hold.
_NODE_VALUES = (("node_counts", "count"), ("node_reach", "reach"))


class DraftGraphError(ValueError):
    """Formulas or edges that do not make a draft graph."""


class DraftGraph(nx.DiGraph):
    """A DAG of draft formulas with the empty formula as root.

    There is an edge A -> B when A is a proper subset of B and B has ``step_size`` pairs more. Where the step size
    is None (a threshold rule commits as many positions as pass) B may have any number of pairs more. All such
    edges are there. Every algorithm of networkx applies; :meth:`validate` says whether what you changed is still a
    draft graph, and :meth:`annotate` writes on nodes and edges what the traces say of them.

    Iterating gives the formulas, root included. What belongs to the graph as a whole is kept in the dictionary
    ``graph.graph``, as networkx does it, so copies and subgraphs have it too: ``step_size``; ``trie``, the traces that
    annotated it; and of a graph that ``drafting.search`` found, ``search``, ``validity`` and ``provenance``.

    >>> graph = DraftGraph.from_formulas([((1, 1),), ((2, 1),), ((1, 1), (2, 1))], step_size=1)
    >>> graph.budget, graph.depths()[((1, 1), (2, 1))]
    (3, 2)
    >>> sorted(nx.ancestors(graph, ((1, 1), (2, 1))))
    [(), ((1, 1),), ((2, 1),)]
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
                dropped silently), ``step_size`` below 1, or a set of pairs that is not a formula.
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
        """Per node, the most denoising steps from the root (networkx topological generations): for drawing."""
        generations = nx.topological_generations(self)
        return {node: level for level, generation in enumerate(generations) for node in generation}

    def annotate(self, trie: PrefixTrie) -> DraftGraph:
        """Write what the traces say as attributes on every node and edge, and return the graph itself.

        An anchor *accepts* a node when its chain comes by the node and every state of the chain before it is in the
        graph. "Share" means a share of all anchors; the weights of a trie count.

        On a node:

        * ``count``: anchors whose chain contains the state, accepted or not; on the root all anchors.
        * ``reach``: the reach probability, the share of anchors at which the node is accepted; 1 on the root. The sum
          over draft nodes is the expected accepted length.
        * ``marginal_value``: accepted drafts per anchor that are lost when this node alone is taken out: those of the
          node and of all that is accepted behind it. On the root it is 0, as the root is no draft.
        * ``acceptance``: of the anchors at which a parent of the node is accepted, the share at which the node is too;
          1 on the root, 0 where no parent is ever accepted.

        On an edge A -> B:

        * ``count``: anchors whose chain goes from A to B in one step, accepted or not.
        * ``reach``: the share of anchors at which A is accepted and B directly after it.
        * ``marginal_value``: accepted drafts per anchor that are accepted over this edge: B and all behind it.
        * ``acceptance``: of the anchors at which A is accepted, the share that accepts B directly after it.

        Attributes are those of the whole graph: annotate again after a change, and a subgraph on its own copy.
        Values look at nodes only, so an edge that was taken out by hand stops no chain.

        Args:
            trie: prefix counts of the traces.

        Complexity: O(T + P * depth), for T trie nodes, of which P are paths inside the graph.

        Raises:
            drafting.values.DepthError: the chains of the trie were cut shallower than the graph reaches.

        >>> a, b, ab = ((1, 1),), ((2, 1),), ((1, 1), (2, 1))
        >>> trie = PrefixTrie.from_chains([[a, ab], [a], [b, ab], [b]], weights=[4, 6, 5, 1])
        >>> graph = DraftGraph.from_formulas([a, ab], step_size=1).annotate(trie)
        >>> graph.nodes[a]
        {'count': 10.0, 'reach': 0.625, 'marginal_value': 0.875, 'acceptance': 0.625}
        >>> graph.edges[a, ab]
        {'count': 4.0, 'reach': 0.25, 'marginal_value': 0.25, 'acceptance': 0.4}
        >>> graph.expected_accepted_length()
        0.875
        """
        of_node, of_edge = trace_attributes(self, trie)
        if self.graph.get("trie") is not trie:  # a bound that was proved on other traces says nothing here
            self.graph.pop("search", None)
        nx.set_node_attributes(self, of_node)
        nx.set_edge_attributes(self, of_edge)
        self.graph["trie"] = trie
        return self

    def expected_accepted_length(self, source: PrefixTrie | AnchorTable | Traces | None = None) -> float:
        """The drafts that an anchor accepts in the mean, the root not counted: ``drafting.values.path_value``.

        Args:
            source: traces to value the graph on; None takes those that :meth:`annotate` was given.

        Raises:
            DraftGraphError: no source, and the graph was never annotated.
            drafting.values.DepthError: chains that were cut shallower than the graph reaches.
        """
        source = self.graph.get("trie") if source is None else source
        if source is None:
            raise DraftGraphError(
                "the graph knows no traces; call annotate(trie) first, or pass traces, an AnchorTable or a PrefixTrie"
            )
        if not isinstance(source, PrefixTrie | AnchorTable):
            source = AnchorTable.from_traces(source, max_depth=None)
        return path_value(self, source)

    @property
    def value(self) -> float:
        """:meth:`expected_accepted_length` on the annotating traces; errors as there."""
        return self.expected_accepted_length()

    @property
    def bound(self) -> float | None:
        """No graph of this many draft nodes has a larger value on the traces that ``drafting.search`` searched.

        None where nothing was proved, where nodes were added since, or where other traces annotated the graph since.
        """
        found = self._search()
        return None if found is None else found.bound

    @property
    def gap(self) -> float | None:
        """(bound - value) / bound: the most that may be missing; 0 is a proof. None where :attr:`bound` is."""
        found = self._search()
        return None if found is None else found.gap

    def _search(self) -> SearchResult | None:
        """What the search found out, for the nodes that the graph has now."""
        found: SearchResult | None = self.graph.get("search")
        return None if found is None or self.budget > found.budget else replace(found, value=self.value)

    def validate(self) -> None:
        """Check that this is a draft graph; the error names the first node or edge that is wrong.

        Raises:
            DraftGraphError: no root, a node that is not a canonical formula, an edge that one step cannot make,
                or a node without a path from the root.
        """
        if ROOT not in self:
            raise DraftGraphError("a draft graph needs the root, the empty formula (), as a node")
        for node in self:
            try:
                canonical = formula(node)
            except (FormulaError, TypeError, ValueError) as error:
                raise DraftGraphError(f"node {node!r} is not a draft formula: {error}") from error
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
        validity: Validity | None = None,
        provenance: Mapping[str, Any] | None = None,
        values: Mapping[str, Any] | None = None,
        latency: Mapping[str, Any] | None = None,
    ) -> GraphFile:
        """This graph as the content of a graph file, nodes in the order of :meth:`draft_nodes`.

        Of an annotated graph ``values["search"]`` also holds ``node_counts`` and ``node_reach``, root first, the bound
        and the gap where the search proved one, and, unless ``values`` has a "search" of its own, what replay counts on
        the annotating traces. Validity and provenance that are None are those that ``drafting.search`` gave the graph.

        Raises:
            DraftGraphError: no validity, and the graph comes from no search.
            DraftGraphError: the step size of the graph is not that of the policy it is to be valid for.
            verify.graph.file.GraphFileError: a rank out of range for the validity, or another breach.
        """
        validity = self.graph.get("validity") if validity is None else validity
        if validity is None:
            raise DraftGraphError(
                "a graph file says for whom the graph is valid; pass validity=Validity(...), or take the graph from "
                "drafting.search(traces), which knows it"
            )
        step_size = _step_size(validity.policy, self.step_size)
        if step_size != self.step_size:
            raise DraftGraphError(
                f"policy {validity.policy!r} has step size {step_size}, the graph was built with "
                f"{self.step_size}; build it with DraftGraph.from_formulas(nodes, step_size) of that policy"
            )
        nodes = self.draft_nodes()
        stated = {split: dict(fields) for split, fields in (values or {}).items()}
        if "trie" in self.graph:
            trie: PrefixTrie = self.graph["trie"]
            of_node, _ = trace_attributes(self, trie)
            proof = {name: number for name in ("bound", "gap") if (number := getattr(self, name)) is not None}
            per_node = {name: [of_node[node][key] for node in (ROOT, *nodes)] for name, key in _NODE_VALUES}
            worth = stated.get("search")
            if worth is None:  # literal chains belong to no decode that could be replayed
                worth = _replayed(self, trie) if trie.anchors.n_blocks else {"accepted_drafts": self.value}
            stated["search"] = worth | proof | per_node
        provenance = self.graph.get("provenance") if provenance is None else provenance
        return GraphFile.from_nodes(nodes, validity, provenance=provenance, values=stated, latency=latency)

    def save(self, path: str | Path) -> None:
        """Write the graph file of a graph that ``drafting.search`` found: whole or not at all.

        Raises:
            DraftGraphError, verify.graph.file.GraphFileError: as :meth:`to_graph_file`.
            OSError: the file cannot be written.
        """
        save_graph(self.to_graph_file(), path)

    @classmethod
    def from_graph_file(cls, file: GraphFile) -> DraftGraph:
        """The graph of a loaded file, with ``count`` and ``reach`` on its nodes where the file states them."""
        graph = cls.from_formulas(file.nodes, _step_size(file.validity.policy, None))
        for name, attribute in _NODE_VALUES:
            per_node = file.values.get("search", {}).get(name)
            if per_node is not None:
                nx.set_node_attributes(graph, dict(zip(file.nodes, per_node, strict=True)), attribute)
        return graph


def _replayed(graph: DraftGraph, trie: PrefixTrie) -> dict[str, Any]:
    return {**replay(graph, trie.anchors).row(), "per_prompt": per_prompt(graph.draft_nodes(), trie.anchors)}


def _step_size(policy: str, unknown: int | None) -> int | None:
    """The policy's step size; ``unknown`` for a rule that is not ours."""
    try:
        return step_sizes(policy)
    except PolicyError:
        return unknown


def _order(node: Formula) -> tuple[int, Formula]:
    return len(node), node
