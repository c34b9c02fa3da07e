"""Bounds hold for every graph of the budget, and are reached where the docstring says so."""

from itertools import combinations

import pytest

from drafting.anchors import AnchorTable
from drafting.bounds import count_bound, depth_bound, value_bound
from drafting.trie import PrefixTrie
from drafting.values import path_value
from tests.support.toy import toy_traces

A, AB, ABC = ((1, 1),), ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))


@pytest.mark.parametrize("rule", ["static:1", "threshold:0.2"])
@pytest.mark.parametrize("seed", range(3))
def test_no_graph_beats_its_bound(rule: str, seed: int) -> None:
    traces = toy_traces(seed, prompts=3, blocks=1, length=5, noise=0.1, rule=rule)
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, None))
    states = trie.formulas(range(1, trie.n_states))
    for budget in (0, 1, 2, 3):
        best = max(path_value(nodes, trie) for nodes in combinations(states, min(budget, len(states))))
        assert best <= count_bound(trie, budget) + 1e-12
        assert best <= depth_bound(trie, budget) + 1e-12
        assert value_bound(trie, budget) == min(count_bound(trie, budget), depth_bound(trie, budget))


def test_one_chain_reaches_both_bounds() -> None:
    trie = PrefixTrie.from_chains([[A, AB, ABC], [A, AB], [A]])
    assert [value_bound(trie, budget) for budget in range(5)] == [0.0, 1.0, 5 / 3, 2.0, 2.0]
    assert path_value([A, AB], trie) == 5 / 3


def test_no_anchors_no_value() -> None:
    assert value_bound(PrefixTrie.from_chains([]), 4) == 0.0
