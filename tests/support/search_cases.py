"""Small tries for the tests of searches, and the oracles they are held against."""

import networkx as nx
import numpy as np

from benchmarks.trie_scaling import zipf_pairs
from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.trie import PrefixTrie
from drafting.values import path_value
from verify.graph.formulas import Formula, formula

A, B, C, AB = ((1, 1),), ((2, 1),), ((3, 1),), ((1, 1), (2, 1))


def greedy_counter_example() -> PrefixTrie:
    """Prefix counts a:10, b:6, c:7, a->ab:4, b->ab:5 (docs/method.md): greedy takes 23 of 25 with three nodes."""
    return PrefixTrie.from_chains([[A, AB], [A], [B, AB], [B], [C]], [4, 6, 5, 1, 7])


def copies_of_the_counter_example(number: int) -> PrefixTrie:
    """Disjoint copies, on positions of their own, so that many graphs tie and states pay in pairs only."""
    chains, weights = [], []
    for copy in range(number):
        a, b = ((2 * copy + 1, 1),), ((2 * copy + 2, 1),)
        chains += [[a, formula(a + b)], [b, formula(a + b)]]
        weights += [4, 5]
    return PrefixTrie.from_chains(chains, weights)


def crossing_trie(seed: int, positions: int = 4, chains: int = 14, largest_step: int = 1) -> PrefixTrie:
    """Random orders over few positions with random weights: the same states are reached in many orders."""
    rng = np.random.default_rng(seed)
    literal = []
    for _ in range(chains):
        order = rng.permutation(positions)[: rng.integers(1, positions)].tolist()
        chain: list[Formula] = []
        while order:
            step = int(rng.integers(1, largest_step + 1))
            chain.append(formula([*(chain[-1] if chain else ()), *((p + 1, 1) for p in order[:step])]))
            order = order[step:]
        literal.append(chain)
    return PrefixTrie.from_chains(literal, rng.integers(1, 30, chains).tolist())


def zipf_trie(anchors: int, depth: int = 8, seed: int = 0) -> PrefixTrie:
    """Synthetic anchors as in the benchmark."""
    return PrefixTrie.from_anchors(AnchorTable.from_pairs(*zipf_pairs(anchors, depth, seed)))


def weight_of(nodes: tuple[Formula, ...], trie: PrefixTrie) -> float:
    """path_value as a count."""
    return round(path_value(nodes, trie) * trie.total, 6)


def optima(trie: PrefixTrie) -> list[float]:
    """Largest weight of any graph of D states, for every D: tries all subsets, so for up to 16 states."""
    assert trie.n_states <= 17
    subsets = np.arange(1 << (trie.n_states - 1))
    size = np.array([int(subset).bit_count() for subset in subsets])
    need, weight = [0], np.zeros(len(subsets))
    for node in range(1, trie.n_nodes):
        need.append(need[trie.parent[node]] | 1 << (int(trie.state[node]) - 1))
        weight[subsets & need[node] == need[node]] += trie.count[node]
    return [float(weight[size == budget].max()) for budget in range(trie.n_states)]


def value_bound(trie: PrefixTrie, budget: int) -> float:
    """No graph of ``budget`` drafts is worth more: a bound that needs no search.

    An accepted state is in the graph and in the chain, so F(V) <= sum over q in V of count(q) / total. And of a chain
    at most ``budget`` states are accepted.
    """
    counts = np.sort(trie.state_count[1:])[::-1][:budget]
    return float(min(counts.sum(), trie.count[1:][trie.depth[1:] <= budget].sum()) / trie.total)


def networkx_closure(trie: PrefixTrie, price: int) -> int:
    """Largest weight(V) - price * |V| by networkx's own minimum cut, on the textbook network of the trie."""
    network = nx.DiGraph()
    network.add_nodes_from(["source", "sink"])
    for node in range(1, trie.n_nodes):
        network.add_edge("source", ("prefix", node), capacity=int(trie.count[node]))
        network.add_edge(("prefix", node), ("state", int(trie.state[node])))  # without capacity: unbounded
        if trie.parent[node]:
            network.add_edge(("prefix", node), ("prefix", int(trie.parent[node])))
    for state in range(1, trie.n_states):
        network.add_edge(("state", state), "sink", capacity=price)
    return int(trie.count[1:].sum()) - int(nx.minimum_cut_value(network, "source", "sink"))


def check_connected(order: tuple[Formula, ...], step_size: int | None) -> None:
    """Every beginning of an order is a draft graph without repeats."""
    assert len(set(order)) == len(order)
    for budget in range(len(order) + 1):
        DraftGraph.from_formulas(order[:budget], step_size)
