"""A spanning tree of a draft graph, for runtimes that know trees only, and what it accepts less than the graph.

In the graph a state counts as accepted in whichever order the decode came to it. In a tree every node keeps one parent,
so it is accepted in one order alone; the others are lost. The number of drafts, and so the price, stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from drafting.graph import DraftGraph
from drafting.replay import ReplayResult, filled_drafts, replay, result_of
from drafting.trie import PrefixTrie
from drafting.values import alive_nodes, require_depth
from verify.graph.file import GraphFile
from verify.graph.formulas import ROOT, Formula, format_formula


class SpanningTreeError(ValueError):
    """A graph that no tree of single tokens spans."""


@dataclass(frozen=True)
class AcceptanceLost:
    """What a spanning tree accepts less than its graph, in accepted drafts per anchor.

    Attributes:
        counted_on: ``traces`` (replayed), ``values.search`` (bounded by the node_reach of the graph file), or None
            where nothing is known; then all numbers are None.
        accepted_drafts_graph: of the graph, over all anchors.
        accepted_drafts_tree: of the tree: [low, high]; both ends are the same where it was replayed.
        forwards_plain, forwards_graph, forwards_tree: forward passes over the traces; None without traces.
    """

    counted_on: str | None = None
    accepted_drafts_graph: float | None = None
    accepted_drafts_tree: tuple[float, float] | None = None
    forwards_plain: int | None = None
    forwards_graph: int | None = None
    forwards_tree: int | None = None

    def sentence(self) -> str:
        """What is lost, and by what it is known, in one sentence."""
        if self.accepted_drafts_graph is None or self.accepted_drafts_tree is None:
            return (
                "What the tree loses is not known: the graph file states no node_reach; give --traces FOLDER to count "
                "it."
            )
        whole, (low, high) = self.accepted_drafts_graph, self.accepted_drafts_tree
        share = [100 * (whole - end) / whole if whole else 0.0 for end in (high, low)]
        if self.counted_on == "traces":
            return (
                f"The tree accepts {low:.3f} drafts per anchor, the graph {whole:.3f}: {share[0]:.1f} % are lost "
                f"(replayed on the traces: {self.forwards_tree} forward passes, {self.forwards_graph} with the graph, "
                f"{self.forwards_plain} without drafts)."
            )
        return (
            f"Of the {whole:.3f} drafts per anchor that the graph accepts the tree loses between {share[0]:.1f} and "
            f"{share[1]:.1f} % (bounded by the node_reach of the graph file; --traces FOLDER counts it)."
        )


def spanning_tree(graph: DraftGraph, trie: PrefixTrie | None = None) -> dict[Formula, Formula]:
    """One parent for every draft node, so chosen that the tree accepts much of what the graph does.

    With traces, nodes are taken by size and each keeps the parent over which most anchors arrive at it along the tree
    so far; done twice, counting the anchors themselves or all drafts accepted behind them, and the better tree is
    taken. This is greedy: no proof that no tree is better. Without traces the parent with the highest ``reach`` is
    kept, the first one where the graph has no such values.

    Args:
        graph: its edges must add one pair each.
        trie: whole chains of the traces.

    Returns:
        parent per draft node, nodes in the order of :meth:`DraftGraph.draft_nodes`.

    Raises:
        SpanningTreeError: an edge that adds several pairs, or a graph without drafts.

    Complexity: O(T + E) for T trie nodes and E edges.
    """
    if not graph.budget:
        raise SpanningTreeError("the graph has no drafts, so it has no paths; give a graph of at least one draft")
    for parent, child in graph.edges:
        if len(child) != len(parent) + 1:
            raise SpanningTreeError(
                f"edge {format_formula(parent)} -> {format_formula(child)} adds {len(child) - len(parent)} tokens, but "
                "a step of a path is one token; path lists are for rules of one token a step (static:1), and dot, "
                "graphml and csv hold every edge"
            )
    if trie is None:
        return _grow(graph, lambda parent, node: graph.nodes[parent].get("reach", 0.0))
    counts, behind = _alive_counts(graph, trie)
    trees = [_grow_along(graph, trie, weights) for weights in (counts, behind)]
    return max(trees, key=lambda tree: int(tree_accepted(tree, trie).sum()))


def _grow(graph: DraftGraph, weight: Callable[[Formula, Formula], float]) -> dict[Formula, Formula]:
    tree: dict[Formula, Formula] = {}
    for node in graph.draft_nodes():
        tree[node] = max(sorted(graph.predecessors(node)), key=lambda parent: weight(parent, node))
    return tree


def _grow_along(graph: DraftGraph, trie: PrefixTrie, weights: Mapping[int, float]) -> dict[Formula, Formula]:
    """The tree whose every node has the heaviest prefix, given the prefixes of the smaller nodes."""
    states = dict(zip(graph, trie.state_ids(list(graph)).tolist(), strict=True))
    follows = {(int(trie.parent[t]), int(trie.state[t])): t for t in weights}
    place: dict[Formula, int] = {ROOT: 0}  # the trie node where the tree has the formula; -1: no anchor comes so

    def found(parent: Formula, node: Formula) -> int:
        return follows.get((place[parent], states[node]), -1) if place[parent] >= 0 else -1

    tree: dict[Formula, Formula] = {}
    for node in graph.draft_nodes():
        above = sorted(graph.predecessors(node))
        tree[node] = max(above, key=lambda parent: weights.get(found(parent, node), 0.0))
        place[node] = found(tree[node], node)
    return tree


def _alive_counts(graph: DraftGraph, trie: PrefixTrie) -> tuple[dict[int, float], dict[int, float]]:
    """Of every prefix that the graph accepts: its anchors, and the drafts accepted at it and behind it."""
    require_depth(graph, trie)
    alive = np.flatnonzero(alive_nodes(graph, trie))[1:].tolist()
    counts = {t: float(trie.count[t]) for t in alive}
    behind = dict(counts)
    for t in reversed(alive):  # a parent comes before its children
        if (above := int(trie.parent[t])) in behind:
            behind[above] += behind[t]
    return counts, behind


def tree_accepted(tree: Mapping[Formula, Formula], trie: PrefixTrie) -> np.ndarray:
    """Accepted drafts at every anchor when each node is accepted behind its parent in ``tree`` only: int64 [A]."""
    parent_of = np.full(trie.n_states, -1, dtype=np.int64)
    nodes = list(tree)
    for state, above in zip(trie.state_ids(nodes).tolist(), trie.state_ids(list(tree.values())).tolist(), strict=True):
        if state >= 0:
            parent_of[state] = above
    kept = parent_of[trie.state] == trie.state[trie.parent]
    kept[0] = True
    accepted = trie.carry_down(kept, np.logical_and).astype(np.int64)
    accepted[0] = 0
    return trie.carry_down(accepted, np.add)[trie.leaf]


def replay_tree(tree: Mapping[Formula, Formula], trie: PrefixTrie) -> ReplayResult:
    """:func:`drafting.replay.replay` of a tree instead of a graph, over the decodes of ``trie``."""
    return result_of(tree_accepted(tree, trie), filled_drafts(list(tree), trie.anchors.masked), trie.anchors)


def acceptance_lost(file: GraphFile, tree: Mapping[Formula, Formula], trie: PrefixTrie | None = None) -> AcceptanceLost:
    """What ``tree`` accepts less than the graph of ``file``: replayed on traces, or bounded by its node_reach.

    The bounds: a node of the tree is accepted at most as often as its parent in the tree and as the node in the graph;
    and what the graph accepts over another parent is at most the reach of that parent.
    """
    if trie is not None:
        whole, part = replay(file.nodes[1:], trie.anchors), replay_tree(tree, trie)
        mean = part.accepted_drafts
        return AcceptanceLost(
            "traces", whole.accepted_drafts, (mean, mean), whole.plain_forwards, whole.forwards, part.forwards
        )
    stated = file.values.get("search", {}).get("node_reach")
    if stated is None:
        return AcceptanceLost()
    reach = dict(zip(file.nodes, stated, strict=True))
    parents: dict[Formula, list[Formula]] = {node: [] for node in file.nodes}
    for above, child in file.edges:
        parents[file.nodes[child]].append(file.nodes[above])
    low, high = {ROOT: reach[ROOT]}, {ROOT: reach[ROOT]}
    for node in sorted(tree, key=len):
        kept = tree[node]
        others = sum(reach[above] for above in parents[node] if above != kept)
        high[node] = min(reach[node], high[kept])
        low[node] = max(0.0, reach[node] - others - (reach[kept] - low[kept]))
    ends = [sum(bound[node] for node in tree) for bound in (low, high)]
    return AcceptanceLost("values.search", sum(reach[node] for node in tree), (ends[0], ends[1]))


def tree_paths(tree: Mapping[Formula, Formula], ranks: int) -> list[list[int]]:
    """The path of every node from the root, one number a step, sorted by length and then by numbers.

    The step that adds the pair (i, j) has the number ``(i - 1) * ranks + (j - 1)``: its place in the list of all
    candidates of the anchor, position rank by position rank, ``ranks`` vocabulary ranks each.

    Source of the form: Medusa (github.com/FasterDecoding/Medusa, commit 11af0aa, medusa/model/medusa_choices.py, read
    by ``generate_medusa_buffers`` in utils.py, commit 10a2697) and EAGLE (github.com/SafeAILab/EAGLE, commit 08dc06c,
    eagle/model/choices.py, read by ``generate_tree_buffers`` in utils_c.py).
    """
    paths: dict[Formula, list[int]] = {ROOT: []}
    for node in sorted(tree, key=len):
        ((i, j),) = set(node) - set(tree[node])
        paths[node] = [*paths[tree[node]], (i - 1) * ranks + (j - 1)]
    return sorted((path for node, path in paths.items() if node != ROOT), key=lambda path: (len(path), path))
