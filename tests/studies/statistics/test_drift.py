"""The sequential test: exact without a drift, quick with one, and the same however often it is looked at."""

import numpy as np
import pytest
from scipy.stats import kstest

from studies.statistics.drift import EXPONENTS, DriftError, conformal_ranks, watch


def test_a_rank_is_the_share_of_numbers_below() -> None:
    ranks = conformal_ranks(np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.5, 9.0, 2.0]))
    # Among 4, 5, 6 and 7 numbers; with a tie for the last, 2.0 stands on rank 3 or 4.
    low = np.array([0, 3 - 0, 5, 2]) / np.array([4, 5, 6, 7])
    high = np.array([1, 4 - 0, 6, 4]) / np.array([4, 5, 6, 7])
    assert (low <= ranks).all() and (ranks <= high).all()


def test_the_first_ranks_of_a_longer_watch_are_those_of_a_shorter_one() -> None:
    rng = np.random.default_rng(0)
    reference, served = rng.integers(0, 5, 20), rng.integers(0, 5, 30)
    assert np.array_equal(conformal_ranks(reference, served)[:12], conformal_ranks(reference, served[:12]))
    assert np.array_equal(watch(reference, served).capital[:12], watch(reference, served[:12]).capital)


def test_ranks_are_uniform_and_independent_without_a_drift() -> None:
    """Also with ties, and with far fewer reference prompts than requests."""
    first, second = [], []
    for run in range(400):
        rng = np.random.default_rng(run)
        ranks = conformal_ranks(rng.integers(0, 4, 5), rng.integers(0, 4, 8), seed=run)
        first.append(ranks[0])
        second.append(ranks[7])
    assert kstest(first, "uniform").pvalue > 0.01 and kstest(second, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


def test_the_capital_is_the_one_of_the_bets_by_hand() -> None:
    reference, served = np.arange(9.0), np.array([-1.0, 20.0, -2.0])
    ranks = conformal_ranks(reference, served)
    capital = []
    for n in range(1, 4):
        total = 0.0
        for p in (ranks, 1 - ranks):
            for k in EXPONENTS:
                for start in range(1, n + 1):  # what was staked at a request, times all factors since then
                    total += np.prod(k * p[start - 1 : n] ** (k - 1)) / (start * (start + 1))
        capital.append(total / 8 + 1 / (n + 1))
    assert watch(reference, served).capital == pytest.approx(capital)


def test_every_bet_is_fair() -> None:
    """The mean of a bet's factor over uniform ranks is 1, so without a drift no capital grows in the mean."""
    p = (np.arange(2_000_000) + 0.5) / 2_000_000
    for k in EXPONENTS:
        assert (k * p ** (k - 1)).mean() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("rate", [0.1, 0.01])
def test_false_alarms_are_at_most_as_frequent_as_stated(rate: float) -> None:
    alarms = 0
    for run in range(400):
        rng = np.random.default_rng(run)
        alarms += watch(rng.normal(size=24), rng.normal(size=80), false_alarms=rate, seed=run).alarm is not None
    assert alarms <= 400 * rate + 3 * np.sqrt(400 * rate)


@pytest.mark.parametrize(("shift", "direction"), [(-2.5, "lower"), (2.5, "higher")])
def test_a_drift_is_seen_wherever_it_begins(shift: float, direction: str) -> None:
    for before in (0, 60):
        seen = []
        for run in range(10):
            rng = np.random.default_rng([run, before])
            served = np.concatenate([rng.normal(size=before), rng.normal(size=40) + shift])
            found = watch(rng.normal(size=48), served, seed=run)
            assert found.alarm is not None and found.alarm >= before and found.direction == direction
            assert found.since is not None
            seen.append((found.alarm - before, abs(found.since - before)))
        late, off = np.median(seen, axis=0)
        assert late < 20 and off <= 3


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(DriftError, match="needs prompts to compare with"):
        watch(np.array([]), np.array([1.0]))
    with pytest.raises(DriftError, match="must lie between 0 and 1"):
        watch(np.array([1.0]), np.array([1.0]), false_alarms=1.0)
    with pytest.raises(DriftError, match="finite"):
        watch(np.array([1.0]), np.array([np.nan]))
    assert watch(np.array([1.0]), np.array([])).capital.shape == (0,)
