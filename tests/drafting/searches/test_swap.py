"""1-swap repair: never worse, a local optimum, any graph as the start."""

import pytest

from drafting.searches.greedy import greedy
from drafting.searches.swap import swap_repair
from drafting.trie import PrefixTrie
from drafting.values import path_value
from tests.support.search_cases import (
    AB,
    A,
    B,
    C,
    check_connected,
    crossing_trie,
    greedy_counter_example,
    optima,
    weight_of,
    zipf_trie,
)

NEVER_SEEN = ((9, 1),)


def test_one_swap_mends_the_counter_example() -> None:
    trie = greedy_counter_example()
    start = greedy(trie, 3).order
    assert set(start) == {A, B, C}
    mended = swap_repair(trie, 3, start=start)
    assert set(mended.order) == {A, B, AB}
    assert weight_of(mended.order, trie) == 25


@pytest.mark.parametrize("seed", range(6))
def test_no_single_swap_is_left_and_nothing_got_worse(seed: int) -> None:
    trie = crossing_trie(seed, positions=5, chains=25, largest_step=1 + seed % 2)
    states = trie.formulas(range(1, trie.n_states))
    best = optima(trie) if trie.n_states <= 15 else None
    for budget in (2, 4, 6):
        start = greedy(trie, budget).order
        found = swap_repair(trie, budget, start=start)
        assert len(found.order) == budget
        value = weight_of(found.order, trie)
        assert value >= weight_of(start, trie)
        assert best is None or value <= best[budget]
        for out in found.order:
            kept = [node for node in found.order if node != out]
            assert all(weight_of((*kept, new), trie) <= value for new in states)
        check_connected(found.order, None)
        assert sum(found.gains) == pytest.approx(path_value(found.order, trie))


def test_nodes_that_accept_nothing_are_replaced() -> None:
    trie = greedy_counter_example()
    found = swap_repair(trie, 3, start=[NEVER_SEEN, AB])
    assert set(found.order) == {A, B, AB} and found.complete


def test_the_default_start_and_too_few_candidates() -> None:
    trie = greedy_counter_example()
    assert weight_of(swap_repair(trie, 3).order, trie) == 25
    everything = swap_repair(trie, 7)
    assert set(everything.order) == {A, B, C, AB} and not everything.complete
    assert swap_repair(PrefixTrie.from_chains([]), 2).order == ()
    assert swap_repair(trie, 0).order == ()


def test_bad_arguments() -> None:
    trie = greedy_counter_example()
    with pytest.raises(ValueError, match=r"2 nodes to start from are more than the budget of 1"):
        swap_repair(trie, 1, start=[A, B])
    with pytest.raises(ValueError, match="at least 0"):
        swap_repair(trie, -1)


def test_no_swaps_allowed_leaves_the_start() -> None:
    trie = greedy_counter_example()
    assert set(swap_repair(trie, 3, start=[A, B, C], max_swaps=0).order) == {A, B, C}


def test_it_mends_a_bad_start_of_many_nodes() -> None:
    trie = zipf_trie(2000, depth=6)
    worst = tuple(trie.formulas(range(1, 25)))
    good = greedy(trie, 24)
    assert weight_of(worst, trie) < weight_of(good.order, trie)
    mended = weight_of(swap_repair(trie, 24, start=worst).order, trie)
    assert mended >= 0.98 * weight_of(good.order, trie)
