"""Cross-validation: folds disjoint by prompt, values by graphs that have not seen the prompt, errors."""

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.greedy import greedy
from drafting.searches.methods import MethodError
from drafting.trie import PrefixTrie
from studies.statistics.crossval import SplitError, cross_validate, prompt_folds, search_graphs
from tests.support.toy import toy_traces

LENGTH = 10


def table(prompts: int = 12, seed: int = 3) -> AnchorTable:
    return AnchorTable.from_traces(toy_traces(seed, prompts=prompts, blocks=2, length=LENGTH, noise=0.2), None)


@pytest.mark.parametrize(("prompts", "folds"), [(12, 5), (7, 7), (30, 4)])
def test_folds_are_disjoint_and_hold_every_prompt(prompts: int, folds: int) -> None:
    # Prompt ids come once per anchor and with gaps, as an anchor table holds them.
    parts = prompt_folds(np.repeat(np.arange(prompts) * 3, 4), folds, seed=1)
    assert len(parts) == folds
    joined = np.concatenate(parts)
    assert sorted(joined.tolist()) == (np.arange(prompts) * 3).tolist()
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_the_seed_decides_the_folds() -> None:
    first, again, other = (prompt_folds(range(20), 4, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_every_prompt_is_valued_by_a_graph_that_has_not_seen_it() -> None:
    anchors = table()
    found = cross_validate("greedy", anchors, [3, 0, 6], block_length=LENGTH, step_size=1, folds=4, seed=2)
    assert [value.budget for value in found.budgets] == [0, 3, 6]
    whole = {0: 0, 3: 0, 6: 0}
    inside = dict.fromkeys(whole, 0)
    for held in found.folds:
        search = anchors.select(np.setdiff1d(anchors.prompt_indices(), held))
        order = greedy(PrefixTrie.from_anchors(search, max_depth=6), 6).nodes
        for budget in whole:
            whole[budget] += replay(order[:budget], anchors.select(held)).forwards
            inside[budget] += replay(order[:budget], search).forwards
    for value in found.budgets:
        assert np.array_equal(value.out_of_fold.prompt_indices, anchors.prompt_indices())
        assert value.out_of_fold.forwards == whole[value.budget]
        assert sum(part.forwards for part in value.in_sample) == inside[value.budget]
    assert found.budgets[0].out_of_fold.nfe_reduction == 1.0
    assert found.budgets[0].nodes == (0, 0, 0, 0)


def test_in_sample_flatters_a_search_and_not_the_chain() -> None:
    anchors = table(prompts=10, seed=5)
    searched, fixed = (
        cross_validate(method, anchors, [16], block_length=LENGTH, step_size=1, folds=5).budgets[0]
        for method in ("greedy", "chain")
    )
    assert searched.in_sample_nfe_reduction > searched.out_of_fold.nfe_reduction + 0.02
    # The chain is the same graph in every fold, and every prompt is in-sample four times.
    assert fixed.in_sample_nfe_reduction == pytest.approx(fixed.out_of_fold.nfe_reduction)
    assert fixed.in_sample_accepted_drafts == pytest.approx(fixed.out_of_fold.accepted_drafts)


def test_rows_say_value_and_interval() -> None:
    found = cross_validate("greedy", table(), [2, 5], block_length=LENGTH, step_size=1, folds=3)
    rows = found.rows()
    assert [row["budget"] for row in rows] == [2, 5]
    for row in rows:
        assert row["nfe_reduction"] == pytest.approx(row["forwards_plain"] / row["forwards_predicted"])
        assert row["nfe_reduction_low"] < row["nfe_reduction"] < row["nfe_reduction_high"]
        assert row["accepted_drafts_low"] < row["accepted_drafts"] < row["accepted_drafts_high"]
        assert (row["method"], row["folds"], row["prompts"], row["nodes"]) == ("greedy", 3, 12, row["budget"])


def test_methods_compare_in_pairs() -> None:
    greedy_found, chain_found = (
        cross_validate(method, table(30), [8], block_length=LENGTH, step_size=1, folds=3)
        for method in ("greedy", "chain")
    )
    own = greedy_found.budgets[0].out_of_fold.nfe_reduction - chain_found.budgets[0].out_of_fold.nfe_reduction
    found = greedy_found.difference(chain_found, 8)
    assert found.estimate == pytest.approx(own)
    assert found.low < own < found.high
    with pytest.raises(SplitError, match=r"greedy was cross-validated for budgets \[8\], not 4"):
        greedy_found.difference(chain_found, 4)


def test_too_few_prompts_and_no_budget_are_one_clear_error() -> None:
    with pytest.raises(SplitError, match="5 folds need at least 5 prompts, got 4; record more prompts"):
        cross_validate("greedy", table(4), [3], block_length=LENGTH, step_size=1)
    with pytest.raises(SplitError, match="at least 2 folds, got 1"):
        prompt_folds(range(5), 1)
    with pytest.raises(SplitError, match="no budget to search for"):
        cross_validate("greedy", table(), [], block_length=LENGTH, step_size=1)
    with pytest.raises(ValueError, match="a budget is a number of draft nodes"):
        search_graphs("greedy", table(), [-1], LENGTH, 1)
    with pytest.raises(MethodError, match="unknown method 'oracle'"):
        cross_validate("oracle", table(), [3], block_length=LENGTH, step_size=1)


def test_a_budget_beyond_the_candidates_says_how_many_there_were() -> None:
    found = cross_validate("chain", table(), [50], block_length=LENGTH, step_size=1, folds=3)
    assert found.rows()[0]["nodes"] == LENGTH - 2
