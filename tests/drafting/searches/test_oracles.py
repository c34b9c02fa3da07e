"""All searches side by side: greedy <= exact <= the linear bound, facts about path_value, the instance's reductions."""

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.searches.closure import price_sweep
from drafting.searches.exact import exact
from drafting.searches.greedy import greedy
from drafting.searches.instance import Problem
from drafting.searches.published import published
from drafting.searches.trees import sequoia_tree, tree_greedy
from drafting.trie import PrefixTrie
from drafting.values import path_value
from tests.support.search_cases import check_connected, crossing_trie, value_bound, zipf_trie
from tests.support.toy import toy_traces


def toy_trie(rule: str) -> PrefixTrie:
    traces = toy_traces(7, prompts=12, blocks=2, length=10, noise=0.25, rule=rule)
    return PrefixTrie.from_anchors(AnchorTable.from_traces(traces, None))


@pytest.mark.parametrize(
    ("trie", "step_size"),
    [
        (zipf_trie(3000), 1),
        (crossing_trie(1, positions=7, chains=300), 1),
        (toy_trie("static:1"), 1),
        (toy_trie("static:2"), 2),
        (toy_trie("threshold:0.3"), None),
    ],
    ids=["zipf", "crossing", "static:1", "static:2", "threshold"],
)
def test_no_search_beats_exact_and_exact_stays_under_the_bound(trie: PrefixTrie, step_size: int | None) -> None:
    sweep = price_sweep(trie, 16)
    for budget in (3, 5, 10, 16):
        best = exact(trie, budget)
        assert best.proved
        assert best.value <= sweep.bound(budget) + 1e-12
        assert best.bound <= sweep.bound(budget) + 1e-12
        if sweep.certified(budget):
            assert best.value == path_value(sweep.order[:budget], trie)
        found = [
            greedy(trie, budget),
            tree_greedy(trie, budget),
            sequoia_tree(trie, budget),
            published(trie, budget, step_size=step_size),
            sweep.result(budget),
            best,
        ]
        assert best.bound <= value_bound(trie, budget) + 1e-12
        for result in found:
            check_connected(result.nodes, step_size)
            assert path_value(result.nodes, trie) <= best.value + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_path_value_is_monotone_and_supermodular(seed: int) -> None:
    trie = crossing_trie(seed, positions=4, chains=20)
    whole = Problem.from_trie(trie).whole
    rng = np.random.default_rng(seed)
    for _ in range(200):
        small = rng.random(whole.n_states) < 0.4
        large = small | (rng.random(whole.n_states) < 0.4)
        new = np.arange(whole.n_states) == rng.integers(whole.n_states)
        gain_small = whole.value(small | new) - whole.value(small)
        gain_large = whole.value(large | new) - whole.value(large)
        assert gain_large >= 0 and gain_small >= 0
        if not (large & new).any():
            assert gain_large >= gain_small


@pytest.mark.parametrize("seed", range(4))
def test_restriction_and_contraction_lose_nothing(seed: int) -> None:
    trie = crossing_trie(seed, positions=5, chains=40, largest_step=2)
    whole = Problem.from_trie(trie).whole
    rng = np.random.default_rng(seed)
    for _ in range(20):
        kept = rng.random(whole.n_states) < 0.7
        taken = rng.random(whole.n_states) < 0.3
        part = whole.restrict(kept)
        base, rest = whole.contract(taken)
        assert base == whole.value(taken)
        assert np.isin(np.arange(rest.n_states), rest.state).all()
        keys = rest.parent * rest.n_states + rest.state
        assert len(np.unique(keys)) == rest.n_prefixes
        for _ in range(10):
            origins = whole.origin[rng.random(whole.n_states) < 0.5]
            assert part.value(part.mask(origins)) == whole.value(whole.mask(origins) & kept)
            assert base + rest.value(rest.mask(origins)) == whole.value(whole.mask(origins) | taken)


def test_an_instance_agrees_with_path_value() -> None:
    trie = zipf_trie(400, depth=6)
    problem = Problem.from_trie(trie)
    nodes = greedy(trie, 20).nodes
    chosen = problem.whole.mask(problem.states(nodes))
    assert problem.path_value(problem.whole.value(chosen)) == path_value(nodes, trie)
    shallow = Problem.from_trie(trie, 3).whole
    assert shallow.depth == 3
    three = greedy(trie, 3).nodes
    assert problem.path_value(shallow.value(shallow.mask(problem.states(three)))) == path_value(three, trie)
