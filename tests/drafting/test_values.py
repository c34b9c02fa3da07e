"""path_value and connected_weight against their definitions; supermodularity; depth limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafting.anchors import AnchorTable
from drafting.trie import PrefixTrie
from drafting.values import (
    DepthError,
    accepted_per_anchor,
    connected_weight,
    longest_chain,
    path_value,
)
from tests.support.toy import naive_accepted, naive_blocks, random_nodes, toy_traces
from verify.graph.formulas import ROOT, Formula

A, B, C = ((1, 1),), ((2, 1),), ((3, 1),)
AB, AC, BC = ((1, 1), (2, 1)), ((1, 1), (3, 1)), ((2, 1), (3, 1))
ABC = ((1, 1), (2, 1), (3, 1))


@pytest.mark.parametrize("rule", ["static:1", "static:2", "threshold:0.3"])
@pytest.mark.parametrize("seed", range(4))
def test_accepted_lengths_from_table_and_trie_are_the_naive_ones(rule: str, seed: int) -> None:
    traces = toy_traces(seed, prompts=6, rule=rule, surprises=0.05)
    blocks = naive_blocks(traces)
    table = AnchorTable.from_traces(traces, None)
    trie = PrefixTrie.from_anchors(table)
    rng = np.random.default_rng(seed)
    for size in (0, 1, 5, 30):
        nodes = random_nodes(blocks, rng, size)
        naive = [naive_accepted(nodes, chain) for block in blocks for chain in block["chains"]]
        assert accepted_per_anchor(nodes, table).tolist() == naive
        assert accepted_per_anchor(nodes | {ROOT}, trie).tolist() == naive
        assert path_value(nodes, table) == pytest.approx(np.mean(naive))
        assert path_value(nodes, trie) == pytest.approx(np.mean(naive))


def test_no_nodes_no_value() -> None:
    table = AnchorTable.from_chains([[A, AB], []])
    assert path_value([], table) == path_value([ROOT], table) == 0.0
    assert accepted_per_anchor([], table).tolist() == [0, 0]
    assert path_value([A], AnchorTable.from_chains([])) == 0.0


def test_a_state_behind_a_gap_counts_nothing() -> None:
    trie = PrefixTrie.from_chains([[A, AB, ABC], [B, AB]], [3, 1])
    assert path_value([AB, ABC], trie) == 0.0
    assert path_value([A, ABC], trie) == 3 / 4
    assert path_value([A, AB, ABC], trie) == 9 / 4
    assert path_value([A, AB, ABC, B], trie) == 11 / 4


POOL = [A, B, C, AB, AC, BC, ABC]
CHAINS = st.lists(
    st.permutations(range(3)).map(lambda order: [POOL_OF[frozenset(order[: d + 1])] for d in range(3)]),
    min_size=1,
    max_size=12,
)
POOL_OF = {frozenset(i - 1 for i, _ in state): state for state in POOL}


@settings(deadline=None)
@given(CHAINS, st.sets(st.sampled_from(POOL)), st.sets(st.sampled_from(POOL)), st.sampled_from(POOL))
def test_path_value_is_monotone_and_supermodular(
    chains: list[list[Formula]], small: set[Formula], more: set[Formula], node: Formula
) -> None:
    trie = PrefixTrie.from_chains(chains)
    large = small | more

    def value(nodes: set[Formula]) -> float:
        return round(path_value(nodes, trie) * len(chains))

    assert value(small) <= value(large)
    if node not in large:
        assert value(small | {node}) - value(small) <= value(large | {node}) - value(large)


def test_connected_weight_by_hand() -> None:
    # a:3 (2 + 1), b:1, ab:3, and abc behind ab once
    trie = PrefixTrie.from_chains([[A, AB], [A, AB], [B, AB, ABC], [A]])
    nodes = [A, AB, ABC]
    assert connected_weight(nodes, trie, "degree0") == 3 + 3 + 1
    assert connected_weight(nodes, trie, "degree1", step_size=1) == 3 + (3 + 3 + 1) + (1 + 3)
    assert connected_weight(nodes, trie, "degree1", step_size=1, parents="chosen") == 3 + (3 + 3) + (1 + 3)
    assert connected_weight(nodes, trie, "total", step_size=1) == 3 + (3 + 3 + 1) + (1 + 3 + 3 + 1)
    assert connected_weight(nodes, trie, "total", step_size=1, parents="chosen") == 3 + 6 + (1 + 3 + 3)
    assert connected_weight([ROOT, C], trie, "degree1", step_size=1) == 0


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [([], 0), ([ROOT], 0), ([A, B, C], 1), ([A, AB, ABC], 3), ([A, BC, ABC], 2), ([A, C, ABC, AC], 3)],
)
def test_longest_chain(nodes: list[Formula], expected: int) -> None:
    assert longest_chain(nodes) == expected


def test_a_graph_deeper_than_the_table_is_refused() -> None:
    traces = toy_traces(1, prompts=3, length=8)
    cut, whole = AnchorTable.from_traces(traces, 2), AnchorTable.from_traces(traces, None)
    for source in (cut, PrefixTrie.from_anchors(cut), PrefixTrie.from_anchors(whole, max_depth=2)):
        with pytest.raises(DepthError, match="accepts up to 3 states in a row, but chains were cut at depth 2"):
            path_value([A, AB, ABC], source)
        with pytest.raises(DepthError):
            accepted_per_anchor([A, AB, ABC], source)
        assert path_value([A, AB, BC, C], source) == path_value([A, AB, BC, C], whole)
    # Where nothing was cut, there is nothing to refuse.
    assert path_value([A, AB, ABC], AnchorTable.from_traces(traces, 6)) == path_value([A, AB, ABC], whole)
