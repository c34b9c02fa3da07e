"""Greedy: marginal gains, the counter-example of docs/method.md, optimality on trees, ties, speed."""

import time
from itertools import combinations

import numpy as np
import pytest

from benchmarks.trie_scaling import zipf_pairs
from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from drafting.values import path_value
from tests.support.toy import toy_traces
from verify.graph.formulas import Formula

A, B, C, AB = ((1, 1),), ((2, 1),), ((3, 1),), ((1, 1), (2, 1))


def brute_force(trie: PrefixTrie, budget: int) -> tuple[float, tuple[Formula, ...]]:
    states = trie.formulas(range(1, trie.n_states))
    graphs = combinations(states, min(budget, len(states)))
    return max((path_value(nodes, trie) * trie.total, tuple(sorted(nodes))) for nodes in graphs)


def naive_greedy(trie: PrefixTrie, budget: int) -> list[Formula]:
    states = trie.formulas(range(1, trie.n_states))
    order: list[Formula] = []
    for _ in range(min(budget, len(states))):
        left = [state for state in states if state not in order]
        gain = {state: round(path_value([*order, state], trie) * trie.total, 9) for state in left}
        order.append(min(left, key=lambda state: (-gain[state], len(state), state)))
    return order


def greedy_counter_example() -> PrefixTrie:
    """Prefix counts a:10, b:6, c:7, a->ab:4, b->ab:5."""
    return PrefixTrie.from_chains([[A, AB], [A], [B, AB], [B], [C]], [4, 6, 5, 1, 7])


def test_the_counter_example_to_greedy() -> None:
    trie = greedy_counter_example()
    found = greedy(trie, 3)
    assert found.nodes == (A, C, B)
    assert path_value(found.nodes, trie) * trie.total == pytest.approx(23)
    best, nodes = brute_force(trie, 3)
    assert best == pytest.approx(25)
    assert set(nodes) == {A, B, AB}


@pytest.mark.parametrize("rule", ["static:1", "static:2", "threshold:0.3"])
@pytest.mark.parametrize("seed", range(4))
def test_each_node_is_the_best_next_one(rule: str, seed: int) -> None:
    traces = toy_traces(seed, prompts=3, blocks=1, length=7, noise=0.3, rule=rule)
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, None))
    found = greedy(trie, 12)
    assert list(found.nodes) == naive_greedy(trie, 12)
    values = [path_value(found.nodes[:d], trie) for d in range(len(found.nodes) + 1)]
    assert np.cumsum(found.gains) == pytest.approx(values[1:])
    DraftGraph.from_formulas(found.nodes, {"static:1": 1, "static:2": 2}.get(rule))


@pytest.mark.parametrize("seed", range(6))
def test_greedy_is_optimal_on_trees(seed: int) -> None:
    """With the order of positions fixed, every state is reached in one way: chains over tokens."""
    rng = np.random.default_rng(seed)
    chains = []
    for _ in range(25):
        tokens = rng.geometric(0.6, size=int(rng.integers(0, 4))).clip(max=2)
        pairs = [(depth + 1, int(token)) for depth, token in enumerate(tokens)]
        chains.append([tuple(pairs[: d + 1]) for d in range(len(pairs))])
    trie = PrefixTrie.from_chains(chains, rng.integers(1, 9, len(chains)).tolist())
    assert trie.n_nodes == trie.n_states
    for budget in range(6):
        best, _ = brute_force(trie, budget)
        assert path_value(greedy(trie, budget).nodes, trie) * trie.total == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_never_beats_brute_force_on_dags(seed: int) -> None:
    traces = toy_traces(seed, prompts=2, blocks=1, length=5, noise=0.3, rule="static:1")
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, None))
    for budget in (1, 2, 3):
        best, _ = brute_force(trie, budget)
        assert path_value(greedy(trie, budget).nodes, trie) * trie.total <= best + 1e-9


def test_the_order_of_anchors_does_not_matter() -> None:
    table = AnchorTable.from_traces(toy_traces(5, prompts=8, rule="threshold:0.2"), None)
    chains = list(table.chains())
    shuffled = [chains[n] for n in np.random.default_rng(0).permutation(len(chains))]
    assert greedy(PrefixTrie.from_chains(chains), 20) == greedy(PrefixTrie.from_chains(shuffled), 20)


def test_budgets_are_prefixes() -> None:
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(toy_traces(6, prompts=8), None))
    assert greedy(trie, 5).nodes == greedy(trie, 15).first(5).nodes


def test_a_budget_beyond_the_candidates_says_so() -> None:
    trie = greedy_counter_example()
    found = greedy(trie, 9)
    assert len(found.nodes) == 4
    assert not found.complete
    assert path_value(found.nodes, trie) * trie.total == pytest.approx(32)
    assert greedy(trie, 4).complete


def test_asking_for_more_than_was_built_says_so() -> None:
    with pytest.raises(ValueError, match="greedy was searched for 2 draft nodes, got a budget of 3; search again"):
        greedy(greedy_counter_example(), 2).first(3)


def test_nothing_recorded() -> None:
    found = greedy(PrefixTrie.from_chains([]), 3)
    assert (found.nodes, found.complete) == ((), False)


@pytest.mark.parametrize("budget", [-1, 1.5, True])
def test_a_budget_is_a_count(budget: object) -> None:
    with pytest.raises(ValueError, match="a budget is a number of draft nodes"):
        greedy(greedy_counter_example(), budget)  # type: ignore[arg-type]


def test_sixty_four_nodes_from_thirty_thousand_anchors_in_two_seconds() -> None:
    trie = PrefixTrie.from_anchors(AnchorTable.from_pairs(*zipf_pairs(30_000)))
    start = time.process_time()
    found = greedy(trie, 64)
    assert time.process_time() - start < 2.0
    assert len(found.nodes) == 64
    assert sum(found.gains) == pytest.approx(path_value(found.nodes, trie))
