"""The trie against counting prefixes in a dictionary."""

from collections import Counter

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.trie import PrefixTrie
from drafting.values import path_value
from tests.support.toy import toy_traces
from verify.graph.formulas import ROOT, Formula

A, B, C = ((1, 1),), ((2, 1),), ((3, 1),)
AB, BC = ((1, 1), (2, 1)), ((2, 1), (3, 1))


def counted(chains: list[list[Formula]], weights: list[float]) -> dict[tuple[Formula, ...], float]:
    counts: Counter[tuple[Formula, ...]] = Counter()
    for chain, weight in zip(chains, weights, strict=True):
        for depth in range(len(chain) + 1):
            counts[tuple(chain[:depth])] += weight
    return dict(counts)


def read_back(trie: PrefixTrie) -> dict[tuple[Formula, ...], float]:
    paths: list[tuple[Formula, ...]] = []
    states = trie.formulas(trie.state)
    for node in range(trie.n_nodes):
        parent = int(trie.parent[node])
        paths.append(() if parent < 0 else (*paths[parent], states[node]))
    assert len(set(paths)) == len(paths)
    return dict(zip(paths, trie.count.tolist(), strict=True))


def test_a_literal_trie() -> None:
    trie = PrefixTrie.from_chains([[A, AB], [A], [B, AB], [A, AB], []])
    assert read_back(trie) == {(): 5, (A,): 3, (A, AB): 2, (B,): 1, (B, AB): 1}
    assert trie.state_count[trie.state_ids([ROOT, A, B, AB, C])[:4]].tolist() == [5, 3, 1, 3]
    assert trie.state_ids([C]).tolist() == [-1]
    assert (trie.n_states, trie.max_depth, trie.total) == (4, 2, 5.0)
    assert trie.leaf.tolist() == [
        int(node) for node in (trie.leaf[0], trie.parent[trie.leaf[0]], trie.leaf[2], trie.leaf[0], 0)
    ]


@pytest.mark.parametrize("rule", ["static:1", "static:2", "threshold:0.3"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_a_dictionary(rule: str, weighted: bool, seed: int) -> None:
    table = AnchorTable.from_traces(toy_traces(seed, prompts=12, rule=rule), None)
    chains = list(table.chains())
    weights = np.random.default_rng(seed).integers(0, 4, len(chains)) if weighted else np.ones(len(chains))
    trie = PrefixTrie.from_anchors(table, weights.astype(float) if weighted else None)
    assert read_back(trie) == counted(chains, weights.tolist())


def test_the_layout_that_is_promised() -> None:
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(toy_traces(5, prompts=10)))
    assert (np.diff(trie.parent) >= 0).all()
    assert (trie.parent[1:] < np.arange(1, trie.n_nodes)).all()
    assert np.array_equal(trie.depth[1:], trie.depth[trie.parent[1:]] + 1)
    for node in range(trie.n_nodes):
        children = np.arange(trie.child_ptr[node], trie.child_ptr[node + 1])
        assert np.array_equal(children, np.flatnonzero(trie.parent == node))
    ptr, nodes = trie.nodes_by_state
    for state in range(trie.n_states):
        assert np.array_equal(np.sort(nodes[ptr[state] : ptr[state + 1]]), np.flatnonzero(trie.state == state))
    assert trie.state_size.tolist() == [len(value) for value in trie.formulas(range(trie.n_states))]
    assert trie.formulas([0]) == [ROOT]


def test_a_state_is_one_whatever_the_order_it_was_reached_in() -> None:
    trie = PrefixTrie.from_chains([[A, AB], [B, AB]])
    assert trie.n_nodes == 5
    assert trie.n_states == 4


def test_depth_limit() -> None:
    table = AnchorTable.from_traces(toy_traces(6), None)
    cut = PrefixTrie.from_anchors(table, max_depth=2)
    assert read_back(cut) == counted([chain[:2] for chain in table.chains()], [1] * table.n_anchors)
    assert cut.depth_limit == 2


@pytest.mark.parametrize("min_count", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_pruning_keeps_the_value_of_every_graph_of_kept_states(min_count: int, seed: int) -> None:
    table = AnchorTable.from_traces(toy_traces(seed, prompts=20, noise=0.2, rule="threshold:0.8"), None)
    trie = PrefixTrie.from_anchors(table)
    small = trie.prune(min_count)
    assert 1 < small.n_states < trie.n_states
    assert small.state_count.min() >= min_count
    assert small.total == trie.total
    kept = small.formulas(range(1, small.n_states))
    rng = np.random.default_rng(seed)
    for _ in range(20):
        nodes = {kept[int(n)] for n in rng.integers(len(kept), size=6)}
        assert path_value(nodes, small) == path_value(nodes, trie) == pytest.approx(path_value(nodes, table))
    # The layout survives, and every anchor ends at its deepest prefix that is left.
    full, left = read_back(trie), read_back(small)
    assert all(full[path] == count for path, count in left.items())
    paths = list(left)
    for chain, leaf in zip(table.chains(), small.leaf, strict=True):
        depth = max(d for d in range(len(chain) + 1) if tuple(chain[:d]) in left)
        assert paths[leaf] == tuple(chain[:depth])


def test_pruning_goes_on_until_nothing_falls_below() -> None:
    # C is reached twice, but once behind B, which is rare: then C is rare as well.
    trie = PrefixTrie.from_chains([[A], [A], [B, BC], [C, BC]])
    assert trie.prune(2).formulas(range(2)) == [ROOT, A]


def test_everything_pruned_leaves_the_root() -> None:
    trie = PrefixTrie.from_chains([[A]]).prune(2)
    assert (trie.n_nodes, trie.n_states, trie.max_depth) == (1, 1, 0)
    assert trie.leaf.tolist() == [0]


def test_no_anchors() -> None:
    trie = PrefixTrie.from_chains([])
    assert (trie.n_nodes, trie.n_states, trie.total) == (1, 1, 0.0)
    assert path_value({A}, trie) == 0.0


def test_ties_go_to_the_smaller_then_the_least_formula() -> None:
    formulas = [((2, 1),), ((1, 2),), ((1, 1), (3, 1)), ((1, 1), (2, 2)), ((1, 10),)]
    trie = PrefixTrie.from_chains([[value] for value in formulas])

    def first(names: list[Formula]) -> Formula:
        return trie.formulas([trie.canonical_first(trie.state_ids(names))])[0]

    assert first(formulas) == ((1, 2),)
    assert first(formulas[2:4]) == ((1, 1), (2, 2))
    assert first([((2, 1),), ((1, 10),)]) == ((1, 10),)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "one per anchor"), ([1.0, -1.0], "not negative"), ([1.0, float("nan")], "finite")],
)
def test_bad_weights_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrefixTrie.from_chains([[A], [B]], weights)


def test_a_depth_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_depth must be at least 1"):
        PrefixTrie.from_anchors(AnchorTable.from_chains([[A]]), max_depth=0)
