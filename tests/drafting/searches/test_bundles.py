"""Greedy with path bundles: the counter-example, gains, the score per node, connectedness."""

import numpy as np
import pytest

from drafting.searches.bundles import bundled_greedy, instance_order
from drafting.searches.greedy import greedy
from drafting.searches.instance import Problem, node_gains
from drafting.trie import PrefixTrie
from drafting.values import path_value
from tests.support.search_cases import (
    AB,
    A,
    B,
    C,
    check_connected,
    copies_of_the_counter_example,
    crossing_trie,
    greedy_counter_example,
    weight_of,
    zipf_trie,
)


def test_two_nodes_that_pay_together_are_seen_where_greedy_fails() -> None:
    trie = greedy_counter_example()
    found = bundled_greedy(trie, 3)
    # After a (10), b and ab bring 6 + 4 + 5 = 15 with two nodes, 7.5 each, more than c with 7.
    assert found.order == (A, B, AB)
    assert weight_of(found.order, trie) == 25 > weight_of(greedy(trie, 3).order, trie)


def test_a_bundle_that_does_not_fit_is_not_taken() -> None:
    trie = greedy_counter_example()
    assert bundled_greedy(trie, 2).order == (A, C)


def test_a_bundle_is_scored_by_all_its_paths() -> None:
    # ab alone brings 4 (reached in one step), c 4.5; a and then ab bring 3 + 3 on their path, and the 4 besides.
    trie = PrefixTrie.from_chains([[A, AB], [AB], [C]], [3, 4, 4.5])
    assert bundled_greedy(trie, 2).order == (A, AB)
    assert set(greedy(trie, 2).order) == {C, AB}


@pytest.mark.parametrize("seed", range(4))
def test_gains_add_up_and_every_beginning_is_connected(seed: int) -> None:
    trie = crossing_trie(seed, positions=5, chains=30, largest_step=2)
    found = bundled_greedy(trie, 10)
    check_connected(found.order, None)
    for budget in range(11):
        assert sum(found.gains[:budget]) == pytest.approx(path_value(found.order[:budget], trie))


def test_on_a_tree_it_is_greedy() -> None:
    chains = [[A], [A, AB], [A, AB, ((1, 1), (2, 1), (3, 1))], [C], [((5, 1),)]]
    trie = PrefixTrie.from_chains(chains, [5, 4, 8, 9, 2])
    assert bundled_greedy(trie, 5).order == greedy(trie, 5).order


def test_few_candidates_and_none() -> None:
    trie = greedy_counter_example()
    found = bundled_greedy(trie, 9)
    assert set(found.order) == {A, B, C, AB} and not found.complete
    empty = bundled_greedy(PrefixTrie.from_chains([[]]), 2)
    assert empty.order == () and not empty.complete
    assert bundled_greedy(trie, 0).complete
    with pytest.raises(ValueError, match="at least 0"):
        bundled_greedy(trie, -1)


def test_candidates_are_those_that_most_could_be_behind() -> None:
    trie = zipf_trie(1000, depth=5)
    few = bundled_greedy(trie, 8, candidates=30)
    assert few.order == bundled_greedy(trie, 8).order


def test_fractional_weights_decide_by_their_size() -> None:
    trie = PrefixTrie.from_chains([[A], [B], [C]], [0.3, 0.1 + 0.2 + 1e-3, 0.25])
    assert bundled_greedy(trie, 3).order == (B, A, C)


@pytest.mark.parametrize("copies", [2, 60])
def test_the_order_of_an_instance_is_connected_for_small_and_large(copies: int) -> None:
    whole = Problem.from_trie(copies_of_the_counter_example(copies))
    order = instance_order(whole.whole)
    assert sorted(order) == whole.whole.origin.tolist()
    gains = node_gains(whole.whole, order)
    assert gains.sum() == whole.whole.weight.sum() == 18 * copies
    assert (np.cumsum(gains) > 0).all()
    check_connected(whole.formulas(order)[:50], 1)
