"""Tree baselines: products worked out by hand, Sequoia's recursion against enumeration, merging of equal states."""

from functools import cache

import numpy as np
import pytest

from drafting.searches.trees import _TreeProgramme, sequoia_tree, tree_greedy
from drafting.trie import PrefixTrie
from tests.support.search_cases import AB, A, B, C, check_connected, crossing_trie, zipf_trie


def test_products_of_rank_probabilities() -> None:
    # Depth 1: a 6/10, b 4/10. Depth 2 (of 10 chains): a after b 3/10, b after a 2/10, c after a 1/10.
    ac = ((1, 1), (3, 1))
    trie = PrefixTrie.from_chains([[A, AB], [A, ac], [A], [B, AB], [B]], [2, 1, 3, 3, 1])
    found = tree_greedy(trie, 4)
    # {a, b} is reached as b then a, 4/10 * 3/10, and as a then b, 6/10 * 2/10: a tie, counted once.
    assert found.nodes == (A, B, AB, ac)
    assert found.gains == pytest.approx((0.6, 0.4, 0.12, 0.06))
    assert found.complete


def test_states_that_never_occurred_are_offered() -> None:
    trie = PrefixTrie.from_chains([[A, AB], [C]], [3, 2])
    bc = ((2, 1), (3, 1))
    # Depth 2 adds b to 3 of 5 chains, whatever came first: c then b scores 2/5 * 3/5 though no chain has it.
    found = tree_greedy(trie, 4)
    assert found.nodes == (A, C, AB, bc)
    assert found.gains == pytest.approx((0.6, 0.4, 0.36, 0.24))
    assert not tree_greedy(trie, 5).complete


def test_a_path_does_not_name_a_position_twice() -> None:
    trie = PrefixTrie.from_chains([[A, AB], [((1, 2),), ((1, 2), (2, 1))], [B, AB]], [5, 3, 2])
    for node in tree_greedy(trie, 20).nodes:
        assert len({i for i, _ in node}) == len(node)


@pytest.mark.parametrize("build", [tree_greedy, sequoia_tree])
@pytest.mark.parametrize("largest_step", [1, 3])
def test_orders_are_connected(build, largest_step: int) -> None:
    trie = crossing_trie(3, positions=6, chains=40, largest_step=largest_step)
    found = build(trie, 12)
    assert len(found.nodes) == 12 and found.complete
    assert list(found.gains) == sorted(found.gains, reverse=True)
    check_connected(found.nodes, 1 if largest_step == 1 else None)


@pytest.mark.parametrize("build", [tree_greedy, sequoia_tree])
def test_nothing_to_draft_and_bad_budgets(build) -> None:
    for trie in (PrefixTrie.from_chains([]), PrefixTrie.from_chains([[], []])):
        found = build(trie, 3)
        assert found.nodes == () and not found.complete
    assert build(zipf_trie(50, depth=3), 0).complete
    with pytest.raises(ValueError, match="at least 0"):
        build(zipf_trie(50, depth=3), -1)


def best_tree(acceptance: tuple[float, ...], nodes: int) -> float:
    """Expected accepted drafts of the best tree of ``nodes`` nodes: tries every split, child by child."""

    @cache
    def children(k: int, left: int) -> float:
        if k == len(acceptance) or not left:
            return 0.0
        options = [children(k + 1, left)]
        options += [acceptance[k] * (1 + children(0, m - 1)) + children(k + 1, left - m) for m in range(1, left + 1)]
        return max(options)

    return children(0, nodes)


@pytest.mark.parametrize("acceptance", [(0.8,), (0.5, 0.3), (0.7, 0.15, 0.1), (0.3, 0.3, 0.3, 0.05)])
def test_the_programme_is_the_best_tree(acceptance: tuple[float, ...]) -> None:
    programme = _TreeProgramme(np.array(acceptance))
    programme.grow(14)
    for nodes in range(15):
        assert programme.best[nodes] == pytest.approx(best_tree(acceptance, nodes))
        sizes = programme.split(nodes)
        assert sum(sizes) == nodes and all(size > 0 for size in sizes)
        value = sum(a * (1 + programme.best[size - 1]) for a, size in zip(acceptance, sizes, strict=False))
        assert value == pytest.approx(programme.best[nodes])


def test_sequoia_lays_its_shape_over_the_commonest_children() -> None:
    # One child everywhere, always accepted: the best tree is the chain.
    abc = ((1, 1), (2, 1), (3, 1))
    chain = PrefixTrie.from_chains([[A, AB, abc]], [5])
    assert sequoia_tree(chain, 3).nodes == (A, AB, abc)
    assert not sequoia_tree(chain, 4).complete
    # Steps that end the chain: the root's children are better than going deeper.
    flat = PrefixTrie.from_chains([[A], [B], [C]], [5, 4, 3])
    assert sequoia_tree(flat, 3).nodes == (A, B, C)


def test_equal_states_count_once_and_the_tree_grows_until_the_budget_is_full() -> None:
    chains = [[A, AB], [B, AB], [A, ((1, 1), (3, 1))], [B, ((2, 1), (3, 1))]]
    trie = PrefixTrie.from_chains(chains, [6, 5, 2, 2])
    found = sequoia_tree(trie, 4)
    assert len(found.nodes) == 4 and found.complete
    assert {A, B, AB} < set(found.nodes)
