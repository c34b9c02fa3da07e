"""What the traces say about each node and edge of a draft graph: count, reach, marginal value, acceptance."""

from __future__ import annotations

from collections import defaultdict

import networkx as nx
import numpy as np

from drafting.trie import PrefixTrie
from drafting.values import alive_nodes, require_depth
from verify.graph.formulas import ROOT, Formula

Edge = tuple[Formula, Formula]
Attributes = dict[str, float]


def trace_attributes(graph: nx.DiGraph, trie: PrefixTrie) -> tuple[dict[Formula, Attributes], dict[Edge, Attributes]]:
    """Attributes of every node and every edge; :meth:`drafting.graph.DraftGraph.annotate` says what they mean.

    Complexity: O(T + P * depth), for T trie nodes, of which P are paths inside the graph.

    Raises:
        drafting.values.DepthError: see :func:`drafting.values.require_depth`.
    """
    require_depth(graph, trie)
    nodes = list(graph)
    ids = trie.state_ids(nodes).tolist()
    formulas = {state: node for node, state in zip(nodes, ids, strict=True) if state >= 0}
    total = max(trie.total, 1e-300)
    count = {node: trie.state_count[state].item() if state >= 0 else 0 for node, state in zip(nodes, ids, strict=True)}
    count[ROOT] = trie.count[0].item()

    accepted: dict[Formula, float] = defaultdict(float)  # anchors at which the graph accepts the node
    through: dict[Formula | Edge, float] = defaultdict(float)  # drafts accepted at or behind the node or edge
    offered: dict[Formula, float] = defaultdict(float)  # anchors at which a parent of the node is accepted
    taken: dict[Edge, float] = defaultdict(float)  # anchors at which the graph accepts both, one after the other
    paths: dict[int, tuple[Formula, ...]] = {}
    offers: dict[int, frozenset[Formula]] = {}
    for t in np.flatnonzero(alive_nodes(nodes, trie)).tolist():  # a parent comes before its children
        before, node, weight = int(trie.parent[t]), formulas[int(trie.state[t])], trie.count[t].item()
        path = paths[t] = (*paths.get(before, ()), node)
        follow = frozenset(graph.successors(node))
        for child in follow - offers.get(before, frozenset()):
            offered[child] += weight
        offers[t] = follow | offers.get(before, frozenset())
        accepted[node] += weight
        if t:
            taken[path[-2], node] += weight
            for n, passed in enumerate(path):
                through[passed] += weight
                if n:
                    through[path[n - 1], passed] += weight

    of_node = {
        node: {
            "count": count[node],
            "reach": accepted[node] / total if node != ROOT else 1.0,
            "marginal_value": through[node] / total if node != ROOT else 0.0,
            "acceptance": _share(accepted[node], offered[node]) if node != ROOT else 1.0,
        }
        for node in nodes
    }
    observed = _transitions(graph, trie, formulas)
    of_edge = {
        edge: {
            "count": observed.get(edge, 0),
            "reach": taken[edge] / total,
            "marginal_value": through[edge] / total,
            "acceptance": _share(taken[edge], accepted[edge[0]]),
        }
        for edge in graph.edges
    }
    return of_node, of_edge


def _transitions(graph: nx.DiGraph, trie: PrefixTrie, formulas: dict[int, Formula]) -> dict[Edge, float]:
    """Anchors whose chain goes from one node of the graph to another in one step, whatever came before."""
    inside = np.zeros(trie.n_states, dtype=bool)
    inside[list(formulas)] = True
    before, after = trie.state[trie.parent[1:]].astype(np.int64), trie.state[1:].astype(np.int64)
    both = inside[before] & inside[after]
    keys, place = np.unique(before[both] * trie.n_states + after[both], return_inverse=True)
    sums = np.bincount(place, weights=trie.count[1:][both], minlength=len(keys)).astype(trie.count.dtype)
    pairs = (divmod(key, trie.n_states) for key in keys.tolist())
    return {(formulas[a], formulas[b]): n for (a, b), n in zip(pairs, sums.tolist(), strict=True)}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
