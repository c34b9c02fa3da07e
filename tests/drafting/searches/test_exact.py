"""Exact search for one budget: proofs against brute force, every way to end, what a result says."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

import drafting.searches.exact
from drafting.searches.closure import envelope, price_sweep
from drafting.searches.exact import exact
from drafting.searches.instance import Problem
from drafting.searches.result import SearchResult
from drafting.trie import PrefixTrie
from drafting.values import DepthError, path_value
from tests.support.search_cases import (
    AB,
    A,
    B,
    C,
    check_connected,
    copies_of_the_counter_example,
    crossing_trie,
    greedy_counter_example,
    optima,
    weight_of,
    zipf_trie,
)
from verify.graph.formulas import formula


def test_the_counter_example_to_greedy() -> None:
    trie = greedy_counter_example()
    found = exact(trie, 3)
    assert set(found.nodes) == {A, B, AB}
    assert weight_of(found.nodes, trie) == 25
    assert found.proved and found.gap == 0 and found.bound == found.value


@pytest.mark.parametrize("largest_step", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_against_brute_force(seed: int, largest_step: int) -> None:
    trie = crossing_trie(seed + 100, chains=12, largest_step=largest_step)
    for budget, best in enumerate(optima(trie)):
        found = exact(trie, budget)
        assert found.proved
        assert weight_of(found.nodes, trie) == best
        assert found.value == found.bound == path_value(found.nodes, trie)
        check_connected(found.nodes, None)


def test_the_program_alone_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reductions and without a good graph in hand, HiGHS has to do all the work."""
    cases = []
    for seed in range(4):
        trie = crossing_trie(seed, positions=5, chains=30)
        sweep = price_sweep(trie)
        cases += [(trie, budget, exact(trie, budget)) for budget in range(2, 9) if not sweep.certified(budget)]
    assert len(cases) >= 4
    monkeypatch.setattr(drafting.searches.exact._Search, "reduce", lambda self: None)
    monkeypatch.setattr(drafting.searches.exact, "greedy_states", lambda trie, budget: ([], []))
    monkeypatch.setattr(drafting.searches.exact, "envelope", lambda *given: ([], *envelope(*given)[1:]))
    for trie, budget, expected in cases:
        found = exact(trie, budget)
        assert found.chosen.startswith("mixed-integer program over ")
        assert found.value == found.bound == expected.value


@pytest.mark.parametrize("short_by", [1, 2, 9])
def test_reductions_keep_every_better_graph(monkeypatch: pytest.MonkeyPatch, short_by: int) -> None:
    """With a graph in hand that is worse by a known weight, reductions must leave a better one to be found."""
    seen = 0
    for seed in range(200, 212):
        trie = crossing_trie(seed, positions=4, chains=12)
        sweep, best = price_sweep(trie), optima(trie)
        whole = Problem.from_trie(trie).whole
        for budget in [b for b in range(2, len(best)) if not sweep.certified(b)]:
            graphs = combinations(whole.origin.tolist(), budget)
            poor = next((g for g in graphs if whole.value(whole.mask(g)) == best[budget] - short_by), None)
            if poor is None:
                continue
            seen += 1
            with monkeypatch.context() as patch:
                patch.setattr(drafting.searches.exact, "greedy_states", lambda trie, budget: ([], []))
                patch.setattr(drafting.searches.exact, "greedy_order", lambda instance, number: [])
                patch.setattr(
                    drafting.searches.exact, "envelope", lambda *given, poor=poor: (list(poor), *envelope(*given)[1:])
                )
                found = exact(trie, budget)
            assert found.proved
            assert weight_of(found.nodes, trie) == best[budget] == round(found.bound * trie.total)
    assert seen >= 3


def test_four_weights_that_are_no_whole_numbers() -> None:
    """Reported as not proved when the program got weights of 2^50."""
    one, two, three = ((1, 1),), ((2, 1),), ((3, 1),)
    chains = [
        [one, formula(one + three), formula(one + two + three)],
        [three, formula(two + three), formula(one + two + three)],
        [one, formula(one + two)],
        [two, formula(two + three)],
    ]
    trie = PrefixTrie.from_chains(chains, [1.58, 1.93, 2.65, 1.32])
    found = exact(trie, 4)
    assert found.proved and weight_of(found.nodes, trie) == pytest.approx(optima(trie)[4])


@pytest.mark.parametrize(
    ("chains", "alone", "scale"),
    [(12, False, 1.0), (8, True, 1.0), (8, True, 1e-9)],
    ids=["reduced", "program alone", "tiny weights"],
)
def test_random_weights_with_two_decimals_against_brute_force(
    chains: int, alone: bool, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of these were reported as not proved when the program got weights of 2^50."""
    if alone:
        monkeypatch.setattr(drafting.searches.exact._Search, "reduce", lambda self: None)
        monkeypatch.setattr(drafting.searches.exact, "greedy_states", lambda trie, budget: ([], []))
        monkeypatch.setattr(drafting.searches.exact, "envelope", lambda *given: ([], *envelope(*given)[1:]))
    rng = np.random.default_rng(5)
    programs = 0
    for seed in range(60):
        trie = crossing_trie(seed + 700, chains=chains)
        trie = PrefixTrie.from_anchors(trie.anchors, scale * np.round(rng.uniform(0.5, 4.0, trie.anchors.n_anchors), 2))
        best = optima(trie)
        for budget in range(2, min(len(best), 8)):
            found = exact(trie, budget)
            programs += found.chosen.startswith("mixed-integer program")
            assert found.proved, found.chosen
            assert path_value(found.nodes, trie) * trie.total == pytest.approx(best[budget], rel=1e-10)
            assert found.bound * trie.total == pytest.approx(best[budget], rel=1e-10)
    assert programs >= 50


def test_integers_beat_the_relaxation_and_the_proof_says_so() -> None:
    trie = copies_of_the_counter_example(6)
    sweep = price_sweep(trie)
    for budget in (2, 4, 8):
        found = exact(trie, budget)
        # Three nodes of a copy bring 18, two at best 10, one 5: (4 + 5) + (4 + 5) = 18, b and ab 5 + 5, b 5.
        expected = 18 * (budget // 3) + {0: 0, 1: 5, 2: 10}[budget % 3]
        assert found.proved
        assert weight_of(found.nodes, trie) == expected == round(found.bound * trie.total)
        assert sweep.bound(budget) * trie.total == pytest.approx(6 * budget)


def test_a_time_limit_of_nothing_gives_a_graph_a_bound_and_a_gap() -> None:
    trie = copies_of_the_counter_example(6)
    found = exact(trie, 5, time_limit=0.0)
    assert not found.proved
    assert len(found.nodes) == 5
    assert found.value == path_value(found.nodes, trie)
    assert found.value < found.bound == pytest.approx(price_sweep(trie).bound(5))
    assert 0 < found.gap < 0.2
    assert found.gap == pytest.approx((found.bound - found.value) / found.bound)
    assert "time limit" in found.chosen
    check_connected(found.nodes, 1)


@pytest.mark.parametrize(("dual", "bound"), [(None, 30), (-29.7, 29), (-28.7, 28), (-1.0, 28), (-np.inf, 30)])
def test_a_program_that_is_stopped(monkeypatch: pytest.MonkeyPatch, dual: float | None, bound: int) -> None:
    """HiGHS reports its bound on the negated objective, or none; ours can only get better by it."""
    stopped = SimpleNamespace(x=None, status=1, mip_dual_bound=dual, message="Time limit reached.")
    monkeypatch.setattr(drafting.searches.exact, "milp", lambda *_, **__: stopped)
    monkeypatch.setattr(drafting.searches.exact._Search, "reduce", lambda self: None)
    trie = copies_of_the_counter_example(6)
    found = exact(trie, 5)
    assert found.proved == (bound == 28)
    assert round(found.bound * trie.total) == bound
    assert weight_of(found.nodes, trie) == 28
    assert "Time limit reached" in found.chosen


def test_a_gap_that_was_asked_for_is_enough() -> None:
    trie = copies_of_the_counter_example(6)
    found = exact(trie, 5, relative_gap=0.2)
    assert not found.proved and found.gap <= 0.2


def test_start_nodes_are_beaten_or_kept() -> None:
    trie = zipf_trie(500, depth=5)
    best = exact(trie, 7)
    assert exact(trie, 7, start=best.nodes).value == best.value
    with pytest.raises(ValueError, match="more than the budget of 2"):
        exact(trie, 2, start=best.nodes)


@pytest.mark.parametrize("budget", [4, 5, 50])
def test_a_budget_of_all_candidates_or_more_takes_them_all(budget: int) -> None:
    trie = greedy_counter_example()
    found = exact(trie, budget)
    assert set(found.nodes) == {A, B, C, AB}
    assert found.complete == (budget == 4)
    assert found.proved and weight_of(found.nodes, trie) == 32


@pytest.mark.parametrize("trie", [PrefixTrie.from_chains([]), PrefixTrie.from_chains([[], []])])
@pytest.mark.parametrize("budget", [0, 3])
def test_nothing_to_draft(trie: PrefixTrie, budget: int) -> None:
    found = exact(trie, budget)
    assert found.nodes == () and found.value == found.bound == found.gap == 0
    assert found.proved and found.complete == (budget == 0)


def test_budget_zero() -> None:
    found = exact(greedy_counter_example(), 0)
    assert found.nodes == () and found.proved and found.complete


def test_bad_arguments() -> None:
    trie = greedy_counter_example()
    with pytest.raises(ValueError, match="at least 0"):
        exact(trie, -1)
    with pytest.raises(ValueError, match="must not be negative"):
        exact(trie, 2, time_limit=-1)
    cut = PrefixTrie.from_anchors(zipf_trie(50, depth=6).anchors, max_depth=3)
    assert exact(cut, 3).proved
    with pytest.raises(DepthError, match="cut at depth 3"):
        exact(cut, 4)


def test_gap_of_a_worthless_bound() -> None:
    assert SearchResult("exact", 1, value=0.0, bound=0.0).gap == 0
    assert SearchResult("exact", 1, value=0.0, bound=2.0).gap == 1
