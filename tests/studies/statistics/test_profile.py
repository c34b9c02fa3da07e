"""Profiles: dealt labels make the distribution, so false alarms are as stated, whatever the numbers are."""

import numpy as np
import pytest

from studies.statistics.profile import looks, profile_alarm, whitened


def profiles(rng: np.random.Generator, count: int, shares: np.ndarray, anchors: int = 20) -> np.ndarray:
    """Shares of anchors at which nodes are accepted, in requests that differ."""
    tilt = rng.normal(scale=0.3, size=(count, 1))
    odds = np.log(shares / (1 - shares)) + tilt
    return rng.binomial(anchors, 1 / (1 + np.exp(-odds))) / anchors


SHARES = np.array([0.6, 0.2, 0.1, 0.4, 0.05])


def test_looks_double() -> None:
    assert list(looks(70)) == [(1, 8), (2, 16), (3, 32), (4, 64)] and list(looks(7)) == []


@pytest.mark.parametrize("rate", [0.2, 0.02])
def test_false_alarms_are_at_most_as_frequent_as_stated(rate: float) -> None:
    found = 0
    for run in range(150):
        rng = np.random.default_rng(run)
        found += profile_alarm(profiles(rng, 24, SHARES), profiles(rng, 40, SHARES), rate, run) is not None
    assert found <= 150 * rate + 3 * np.sqrt(150 * rate)


def test_another_profile_with_the_same_sum_is_seen() -> None:
    other = SHARES + np.array([-0.2, 0.2, 0.1, -0.1, 0.0])
    for run in range(5):
        rng = np.random.default_rng(run)
        reference, served = profiles(rng, 48, SHARES), profiles(rng, 64, other)
        alarm = profile_alarm(reference, served, 0.005, run)
        assert alarm in (7, 15, 31)
        assert profile_alarm(reference, served[: alarm + 1], 0.005, run) == alarm
        assert profile_alarm(reference, served[:alarm], 0.005, run) is None


def test_a_late_drift_is_seen_in_the_newer_half() -> None:
    """Among all requests it hides: the same requests in another order raise no alarm."""
    other = SHARES + np.array([-0.07, 0.07, 0.035, 0.0, 0.0])
    rng = np.random.default_rng(3)
    reference, before, after = profiles(rng, 96, SHARES), profiles(rng, 64, SHARES), profiles(rng, 64, other)
    assert profile_alarm(reference, np.concatenate([before, after]), 0.005) == 127
    mixed = rng.permutation(np.concatenate([before, after]))
    assert profile_alarm(reference, mixed, 0.005) is None


def test_columns_without_a_spread_and_more_columns_than_prompts() -> None:
    rng = np.random.default_rng(0)
    same = np.ones((20, 3))
    assert profile_alarm(same, same, 0.01) is None
    wide = rng.normal(size=(10, 40))
    assert np.isfinite(whitened(wide)).all() and whitened(wide).shape == (10, 40)
    assert profile_alarm(wide, np.concatenate([wide[:4], wide[5:9]]), 0.01) is None
    assert profile_alarm(wide, wide[:8] + 9, 0.01) == 7


def test_distances_count_in_units_of_the_spread() -> None:
    rng = np.random.default_rng(1)
    found = whitened(rng.normal(size=(4000, 3)) * [1, 10, 0.1])
    # The ridge is a tenth of the mean variance, which the widest column makes nearly alone.
    assert found.std(axis=0).max() == pytest.approx(np.sqrt(100 / (100 + 3.367)), rel=0.02)
