"""Intervals over prompts: against scipy, coverage on simulated prompts, pairedness, errors, speed."""

import time

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from drafting.anchors import AnchorTable
from drafting.replay import ReplayError, ReplayResult, replay, walk
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from drafting.values import path_value
from studies.statistics.intervals import (
    IntervalError,
    PromptBootstrap,
    few_prompts_note,
    interval_columns,
    interval_fields,
)
from studies.statistics.intervals import _expanded_tails as expanded_tails
from tests.support.toy import toy_traces
from verify.graph.formulas import Formula

POPULATION = 400_000


def prompts(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plain forwards, forwards of graph a, forwards of graph b: prompts differ in length and in how easy they are."""
    ease = rng.gamma(4, 0.25, size)
    plain = rng.integers(10, 90, size).astype(float)
    first = np.ceil(plain / (1 + ease))
    second = np.ceil(first * (1.05 + 0.1 * rng.normal(size=size)).clip(0.5, 2))
    return plain, first, second


def table_and_graphs() -> tuple[AnchorTable, tuple[Formula, ...], tuple[Formula, ...]]:
    table = AnchorTable.from_traces(toy_traces(3, prompts=30, blocks=2, length=10, noise=0.2), None)
    order = greedy(PrefixTrie.from_anchors(table), 8).nodes
    return table, order[:8], order[:3]


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_scipy_gives_the_same_interval(method: str) -> None:
    plain, first, _ = prompts(np.random.default_rng(1), 40)
    own = PromptBootstrap(40, method=method, resamples=40_000).ratio(plain, first)  # type: ignore[arg-type]
    low, high = expanded_tails(0.95, 40)
    assert high == pytest.approx(1 - low)
    assert high > norm.cdf(norm.ppf(0.975))
    other = bootstrap(
        (plain, first),
        lambda x, y, axis: x.sum(axis) / y.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=40_000,
        method={"bca": "BCa"}.get(method, method),
        confidence_level=high - low,
        random_state=5,
    ).confidence_interval
    width = other.high - other.low
    assert own.estimate == pytest.approx(plain.sum() / first.sum())
    assert own.low == pytest.approx(other.low, abs=0.02 * width)
    assert own.high == pytest.approx(other.high, abs=0.02 * width)


@pytest.mark.parametrize("size", [16, 48])
def test_a_95_percent_interval_covers_the_truth_about_as_often(size: int) -> None:
    plain, first, second = prompts(np.random.default_rng(99), POPULATION)
    truth = plain.sum() / first.sum()
    true_difference = truth - plain.sum() / second.sum()
    hits = np.zeros(2)
    for seed in range(200):
        p, a, b = prompts(np.random.default_rng(seed), size)
        draws = PromptBootstrap(size, resamples=1000)
        hits += [draws.ratio(p, a).contains(truth), draws.ratio_difference((p, a), (p, b)).contains(true_difference)]
    assert (hits >= 180).all(), hits
    assert (hits <= 198).all(), hits


def test_a_difference_is_paired() -> None:
    """The interval of the difference is far narrower than two independent intervals would make it."""
    plain, first, second = prompts(np.random.default_rng(4), 60)
    draws = PromptBootstrap(60)
    a, b = draws.ratio(plain, first), draws.ratio(plain, second)
    difference = draws.ratio_difference((plain, first), (plain, second))
    independent = np.hypot(a.high - a.low, b.high - b.low)
    assert difference.high - difference.low < 0.4 * independent
    assert not difference.contains(0.0)
    assert a.low < b.high, "the graphs' own intervals overlap, and still the pairs tell them apart"


def test_a_graph_against_itself_is_zero_and_a_better_one_is_found() -> None:
    table, large, small = table_and_graphs()
    first, second = replay(large, table), replay(small, table)
    draws = PromptBootstrap(first.prompts)
    same = draws.compare(first, first)
    assert same.nfe_reduction_difference.pair() == [0.0, 0.0]
    assert same.nfe_reduction_ratio.pair() == [1.0, 1.0]
    assert not same.distinguishable
    assert "cannot be told apart: the interval contains zero" in same.sentence()
    found = draws.compare(first, second)
    assert found.distinguishable
    assert found.sentence("large", "small").startswith("large needs fewer forwards than small: the interval leaves")
    turned = draws.compare(second, first)
    assert turned.sentence("small", "large").startswith("small needs more forwards than large")
    assert turned.nfe_reduction_difference.estimate == pytest.approx(-found.nfe_reduction_difference.estimate)
    assert found.nfe_reduction_ratio.estimate == pytest.approx(first.nfe_reduction / second.nfe_reduction)


def test_fewer_than_twelve_prompts_conclude_nothing() -> None:
    table, large, small = table_and_graphs()
    for prompts in (2, 11, 12):
        part = table.select(table.prompt_indices()[:prompts])
        found = PromptBootstrap(prompts).compare(replay(large, part), replay(small, part))
        difference = found.nfe_reduction_difference
        assert difference.low > 0, "the interval alone would tell them apart"
        assert found.distinguishable is difference.conclusive is (prompts >= 12)
        told = f"large and small: too few prompts ({prompts}) to conclude (nfe reduction +"
        assert found.sentence("large", "small").startswith(told) is (prompts < 12)
        assert (f"({prompts} prompts, too few to conclude)" in str(difference)) is (prompts < 12)
        assert (f"Intervals from {prompts} prompts are too narrow" in few_prompts_note(prompts)) is (prompts < 12)


def test_counts_per_prompt_are_those_of_the_prompt_alone() -> None:
    table, large, _ = table_and_graphs()
    whole = replay(large, table)
    assert whole.accepted_drafts == pytest.approx(path_value(large, table))
    assert whole.anchors_per_prompt.sum() == table.n_anchors
    one = table.prompt_indices()[4]
    alone = replay(large, table.select([one]))
    at = np.flatnonzero(whole.prompt_indices == one)[0]
    assert (whole.plain_per_prompt[at], whole.forwards_per_prompt[at]) == (alone.plain_forwards, alone.forwards)
    accepted, _ = walk(large, table.select([one]))
    assert (whole.accepted_per_prompt[at], whole.anchors_per_prompt[at]) == (accepted.sum(), len(accepted))
    assert alone.accepted_histogram.tolist() == np.bincount(accepted).tolist()
    assert whole.tokens_per_prompt[at] == alone.tokens_per_forward * alone.forwards


def test_parts_join_and_average() -> None:
    table, large, small = table_and_graphs()
    whole = replay(large, table)
    prompt_indices = table.prompt_indices()
    parts = [replay(large, table.select(prompt_indices[n::3])) for n in range(3)]
    joined = ReplayResult.concatenate(parts)
    assert np.array_equal(joined.prompt_indices, whole.prompt_indices)
    assert np.array_equal(joined.forwards_per_prompt, whole.forwards_per_prompt)
    assert joined.row() == whole.row()
    with pytest.raises(ReplayError, match="a prompt stands in two parts"):
        ReplayResult.concatenate([whole, parts[0]])
    other = replay(small, table)
    middle = ReplayResult.mean([whole, other])
    assert middle.forwards == pytest.approx((whole.forwards + other.forwards) / 2)
    assert middle.visited_histogram.sum() == pytest.approx(middle.forwards - table.n_blocks)
    with pytest.raises(ReplayError, match="at least one graph"):
        ReplayResult.mean([])


def test_only_the_same_decodes_are_compared() -> None:
    table, large, small = table_and_graphs()
    draws = PromptBootstrap(30)
    with pytest.raises(ReplayError, match="same prompts for both graphs, got 30 and 20 prompts, 20 of them in both"):
        draws.compare(replay(large, table), replay(small, table.select(table.prompt_indices()[:20])))
    others = AnchorTable.from_traces(toy_traces(8, prompts=30, blocks=2, length=10, noise=0.2), None)
    with pytest.raises(ReplayError, match="same plain decodes"):
        draws.compare(replay(large, table), replay(small, others))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_prompts_have_no_interval(count: int) -> None:
    with pytest.raises(IntervalError, match=f"at least two prompts, got {count}; record more prompts"):
        PromptBootstrap(count)
    table, large, _ = table_and_graphs()
    row = interval_columns(replay(large, table.select(table.prompt_indices()[:count])))
    assert set(row.values()) == {None}
    assert interval_fields(replay(large, table.select(table.prompt_indices()[:count]))) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 10}, "resamples must be at least 100, got 10"),
        ({"level": 95.0}, "level must lie between 0 and 1"),
        ({"method": "bayes"}, "method must be one of bca, percentile, got 'bayes'"),
    ],
)
def test_options_out_of_range_are_named(options: dict, message: str) -> None:
    with pytest.raises(IntervalError, match=message):
        PromptBootstrap(5, **options)


def test_numbers_must_be_one_per_prompt_and_finite() -> None:
    with pytest.raises(IntervalError, match=r"one number per prompt \(5\), got 4"):
        PromptBootstrap(5).ratio(np.ones(4), np.ones(4))
    with pytest.raises(IntervalError, match="must be finite"):
        PromptBootstrap(2).ratio(np.array([1.0, np.nan]), np.ones(2))


def test_no_anchor_at_all_is_a_length_of_zero() -> None:
    found = PromptBootstrap(3).ratio(np.zeros(3), np.zeros(3))
    assert (found.estimate, found.low, found.high) == (0.0, 0.0, 0.0)


def test_one_seed_gives_one_interval_however_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, first, _ = prompts(np.random.default_rng(2), 30)
    kept = PromptBootstrap(30, seed=7).ratio(plain, first)
    assert PromptBootstrap(30, seed=7).ratio(plain, first) == kept
    assert PromptBootstrap(30, seed=8).ratio(plain, first) != kept
    monkeypatch.setattr("studies.statistics.intervals._CACHED_CELLS", 5_000)  # now drawn in parts
    parts = PromptBootstrap(30, seed=7).ratio(plain, first)
    assert parts.pair() == pytest.approx(kept.pair())


def test_columns_of_a_row_hold_the_estimate() -> None:
    table, large, _ = table_and_graphs()
    counts = replay(large, table)
    row = interval_columns(counts, seed=1)
    assert row["nfe_reduction_low"] < counts.nfe_reduction < row["nfe_reduction_high"]  # type: ignore[operator]
    assert row["accepted_drafts_low"] < counts.accepted_drafts < row["accepted_drafts_high"]  # type: ignore[operator]
    assert interval_fields(counts, seed=1) == {
        f"{name}_interval": [row[f"{name}_low"], row[f"{name}_high"]] for name in ("nfe_reduction", "accepted_drafts")
    }


def test_ten_thousand_resamples_take_less_than_a_second() -> None:
    plain, first, second = prompts(np.random.default_rng(5), 192)
    start = time.perf_counter()
    PromptBootstrap(192, seed=123).ratio_difference((plain, first), (plain, second))
    assert time.perf_counter() - start < 1.0
