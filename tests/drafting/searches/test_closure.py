"""Price sweep: exactness of the cut in 64 bits, reductions, breakpoints, nestedness, depth limits."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.searches.closure import maximum_closure, price_sweep
from drafting.searches.instance import Problem
from drafting.searches.minimum_cut import minimum_cut
from drafting.trie import PrefixTrie
from drafting.values import DepthError, path_value
from tests.support.search_cases import (
    AB,
    A,
    B,
    C,
    check_connected,
    crossing_trie,
    greedy_counter_example,
    networkx_closure,
    optima,
    weight_of,
    zipf_trie,
)


def random_network(rng: np.random.Generator, size: int, largest: int) -> list[tuple[int, int, int]]:
    """Edges of a random network without unbounded paths; no two edges join the same two vertices."""
    pairs = {(min(a, b), max(a, b)) for a, b in rng.integers(0, size, (4 * size, 2)) if a != b}
    edges = [(a, b) if rng.random() < 0.5 else (b, a) for a, b in sorted(pairs)]
    return [
        (a, b, -1 if a > 0 and b < size - 1 and rng.random() < 0.2 else int(rng.integers(0, largest))) for a, b in edges
    ]


@pytest.mark.parametrize("largest", [10, 1 << 20, 1 << 40, 1 << 57])
@pytest.mark.parametrize("seed", range(3))
def test_minimum_cut_is_exact_beyond_32_bits(seed: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    size = 14
    edges = [e for e in random_network(rng, size, largest) if e[1] != 0 and e[0] != size - 1]
    network = nx.DiGraph()
    network.add_nodes_from(range(size))
    for a, b, capacity in edges:
        network.add_edge(a, b, **({} if capacity < 0 else {"capacity": capacity}))
    tail, head, capacity = (np.array(column, dtype=np.int64) for column in zip(*edges, strict=True))
    cut = minimum_cut(size, tail, head, capacity, 0, size - 1)
    assert cut.value == nx.maximum_flow_value(network, 0, size - 1)
    for side in (cut.smallest, cut.largest):
        assert side[0] and not side[-1]
        crossing = side[tail] & ~side[head]
        assert (capacity[crossing] >= 0).all()
        assert int(capacity[crossing].sum()) == cut.value
    assert not (cut.smallest & ~cut.largest).any()


def test_every_digit_of_a_capacity_counts() -> None:
    """Parallel paths whose capacities are all ones in binary: each later digit still has much to add."""
    paths, capacity = 15, (1 << 57) - 1
    middle = np.arange(1, paths + 1)
    tail, head = np.concatenate([np.zeros(paths, dtype=int), middle]), np.concatenate([middle, middle * 0 + paths + 1])
    cut = minimum_cut(paths + 2, tail, head, np.full(2 * paths, capacity), 0, paths + 1)
    assert cut.value == paths * capacity


def test_minimum_cut_refuses_what_it_cannot_hold() -> None:
    one = np.array([0])
    with pytest.raises(ValueError, match=r"limit is 2\^61"):
        minimum_cut(2, one, one + 1, np.array([1 << 61]), 0, 1)
    with pytest.raises(ValueError, match="must be bounded"):
        minimum_cut(2, one, one + 1, np.array([-1]), 0, 1)


@pytest.mark.parametrize("seed", range(8))
def test_closure_equals_the_minimum_cut_of_networkx(seed: int) -> None:
    trie = crossing_trie(seed, positions=5, chains=30)
    whole = Problem.from_trie(trie).whole
    for price in (1, 3, 10, 25, 60, 150):
        best = maximum_closure(whole, price, 1)
        expected = networkx_closure(trie, price)
        chosen = best.smallest
        for group in [np.zeros(0, dtype=np.int64), *best.groups]:
            chosen = np.union1d(chosen, group)
            assert whole.value(whole.mask(chosen)) - price * len(chosen) == expected
        assert np.array_equal(chosen, best.largest)
        half = maximum_closure(whole, 2 * price, 2)
        assert np.array_equal(half.largest, best.largest) and np.array_equal(half.smallest, best.smallest)


@pytest.mark.parametrize("seed", range(6))
def test_sweep_against_brute_force(seed: int) -> None:
    trie = crossing_trie(seed)
    sweep = price_sweep(trie)
    best = optima(trie)
    hull = [d for d in range(len(best)) if all(above_line(best, low, d, high) for low, high in around(d, len(best)))]
    assert set(hull) <= set(sweep.budgets)
    for budget, weight in enumerate(best):
        bound = sweep.bound(budget) * trie.total
        assert bound >= weight - 1e-9
        if sweep.certified(budget):
            assert weight_of(sweep.order[:budget], trie) == weight == pytest.approx(bound)
    assert sweep.certified(trie.n_states + 5)
    check_connected(sweep.order, None)


def around(d: int, n: int) -> list[tuple[int, int]]:
    return [(low, high) for low in range(d) for high in range(d + 1, n)]


def above_line(best: list[float], low: int, d: int, high: int) -> bool:
    """Whether the point at ``d`` lies strictly above the line between two others."""
    return best[d] * (high - low) > best[low] * (high - d) + best[high] * (d - low)


def test_the_counter_example_to_greedy() -> None:
    trie = greedy_counter_example()
    sweep = price_sweep(trie)
    # Weights of the best graphs: 10, 17, 25, 32. Three nodes lie above the line from two to four, so all are vertices.
    assert sweep.budgets == (0, 1, 3, 4)
    assert np.array(sweep.values) * trie.total == pytest.approx([0, 10, 25, 32])
    assert set(sweep.order[:3]) == {A, B, AB}
    assert sweep.order[3] == C
    assert sweep.bound(2) * trie.total == pytest.approx(17.5)
    assert not sweep.certified(2)
    assert np.array(sweep.prices) * trie.total == pytest.approx([10, 7.5, 7])


def test_a_result_of_the_sweep_says_what_is_proved() -> None:
    trie = greedy_counter_example()
    sweep = price_sweep(trie)
    between, vertex = sweep.result(2), sweep.result(3)
    assert between.nodes == sweep.order[:2] and between.value == path_value(between.nodes, trie)
    assert not between.proved and between.bound == sweep.bound(2) and between.gap == pytest.approx(1.5 / 17.5)
    assert vertex.proved and vertex.gap == 0 and vertex.value == vertex.bound and "breakpoint" in vertex.chosen
    assert sweep.result(9).nodes == sweep.order and not sweep.result(9).complete


@pytest.mark.parametrize("budget", [1, 6, 20])
def test_a_sweep_to_a_budget_is_the_start_of_the_whole_sweep(budget: int) -> None:
    trie = zipf_trie(600, depth=5)
    whole, part = price_sweep(trie), price_sweep(trie, budget)
    assert part.budgets == whole.budgets[: len(part.budgets)]
    assert part.values == whole.values[: len(part.values)]
    assert part.budgets[-1] >= budget
    assert len(part.order) >= budget and part.result(budget).complete
    assert part.order[: part.budgets[1]] == whole.order[: part.budgets[1]]
    with pytest.raises(ValueError, match="sweep with a larger one"):
        part.bound(part.budgets[-1] + 1)


def test_breakpoints_are_nested_concave_and_add_up() -> None:
    trie = zipf_trie(2000, depth=6)
    sweep = price_sweep(trie)
    assert all(low > high - 1e-12 for low, high in pairwise(sweep.prices))
    assert sweep.budgets[-1] == len(sweep.order) == sweep.candidates == trie.n_states - 1
    for budget, value in list(zip(sweep.budgets, sweep.values, strict=True))[:60]:
        assert value == path_value(sweep.order[:budget], trie)
        assert sum(sweep.gains[:budget]) == pytest.approx(value)
    check_connected(sweep.order[:40], 1)


def test_every_certified_graph_solves_the_cut_at_its_price() -> None:
    trie = zipf_trie(1500, depth=6)
    whole = Problem.from_trie(trie).whole
    sweep = price_sweep(trie, 40)
    for k in range(1, len(sweep.budgets)):
        sizes = sweep.budgets[k] - sweep.budgets[k - 1]
        cost = round((sweep.values[k] - sweep.values[k - 1]) * trie.total)
        best = maximum_closure(whole, cost, sizes)
        assert len(best.smallest) <= sweep.budgets[k - 1] < sweep.budgets[k] <= len(best.largest)


def test_fractional_weights() -> None:
    rng = np.random.default_rng(0)
    trie = zipf_trie(300, depth=5)
    trie = PrefixTrie.from_anchors(trie.anchors, rng.random(trie.anchors.n_anchors))
    sweep = price_sweep(trie, 12)
    for budget, value in zip(sweep.budgets, sweep.values, strict=True):
        assert value == pytest.approx(path_value(sweep.order[:budget], trie), rel=1e-9)


def test_weights_that_are_too_large_are_refused() -> None:
    with pytest.raises(ValueError, match="scale the weights down"):
        price_sweep(PrefixTrie.from_chains([[A]], [2.0**60]))


def test_a_prompt_without_weight_adds_no_candidate() -> None:
    trie = PrefixTrie.from_anchors(greedy_counter_example().anchors, np.array([4.0, 6.0, 5.0, 1.0, 0.0]))
    sweep = price_sweep(trie)
    assert C not in sweep.order and sweep.candidates == 3


@pytest.mark.parametrize("trie", [PrefixTrie.from_chains([]), PrefixTrie.from_chains([[], []])])
def test_nothing_to_draft(trie: PrefixTrie) -> None:
    sweep = price_sweep(trie, 4)
    assert sweep.order == () and not sweep.result(4).complete and sweep.candidates == 0
    assert sweep.bound(4) == 0.0 and sweep.certified(4)


def test_budget_zero_and_negative() -> None:
    sweep = price_sweep(greedy_counter_example(), 0)
    assert sweep.order == () and sweep.budgets == (0,) and sweep.result(0).complete
    with pytest.raises(ValueError, match="at least 0"):
        price_sweep(greedy_counter_example(), -1)


def test_no_claim_past_the_depth_at_which_chains_were_cut() -> None:
    anchors = zipf_trie(200, depth=6).anchors
    trie = PrefixTrie.from_anchors(anchors, max_depth=4)
    with pytest.raises(DepthError, match=r"cut at depth 4.*budget of at most 4"):
        price_sweep(trie, 5)
    with pytest.raises(DepthError, match="any number of"):
        price_sweep(trie)
    cut, full = price_sweep(trie, 4), price_sweep(PrefixTrie.from_anchors(anchors), 4)
    for budget in range(5):
        assert cut.bound(budget) >= full.bound(budget) - 1e-12 or cut.certified(budget)
    assert not cut.certified(10**6)
    with pytest.raises(ValueError, match=r"cut at depth 4|sweep with a larger one"):
        cut.bound(5)


def test_the_order_of_anchors_does_not_matter() -> None:
    trie = zipf_trie(500, depth=5)
    chains = list(trie.anchors.chains())
    shuffled = [chains[k] for k in np.random.default_rng(1).permutation(len(chains))]
    assert price_sweep(PrefixTrie.from_anchors(AnchorTable.from_chains(shuffled))).order == price_sweep(trie).order
