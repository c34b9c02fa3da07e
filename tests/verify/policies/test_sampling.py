"""Which tokens are left, and how they are drawn: against an implementation written apart, in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from verify.policies.base import drawn
from verify.policies.contract import BlockView
from verify.policies.dream import Dream
from verify.policies.randomness import StepRandom
from verify.policies.sampling import Sampling, entropy, softmax

NONE = -math.inf


def naive_law(logits, temperature, top_p, top_k):
    """Token -> probability of the tokens that are left, and how near a sum came to ``top_p``.

    Divide by the temperature; walk down the tokens, the likelier first, then the lower id, until those taken weigh more
    than ``top_p``; of these keep the ``top_k`` best, and what is as good as the last of them.
    """
    scaled = {t: x / temperature if temperature else x for t, x in enumerate(logits) if x > NONE}
    best = max(scaled.values())
    weight = {t: math.exp(x - best) for t, x in scaled.items()}
    left, nearest = sorted(scaled, key=lambda t: (-scaled[t], t)), math.inf
    if top_p is not None:
        taken, reached = [], 0.0
        for t in left:
            nearest = min(nearest, abs(reached - top_p))
            if reached > top_p:
                break
            taken.append(t)
            reached += weight[t] / sum(weight.values())
        left = taken
    if top_k is not None and len(left) > top_k:
        left = [t for t in left if scaled[t] >= scaled[left[top_k - 1]]]
    total = sum(weight[t] for t in left)
    return {t: weight[t] / total for t in left}, nearest


rows = st.lists(st.sampled_from([NONE, -1000.0, -2.0, -1.0, 0.0, 0.5, 0.5000001, 3.0]), min_size=1, max_size=9).filter(
    lambda row: max(row) > NONE
)
temperatures = st.sampled_from([0.0, 0.05, 0.7, 1.0, 2.5])
shares = st.none() | st.floats(1e-6, 1 - 1e-6)
counts = st.none() | st.integers(1, 12)


@settings(deadline=None)
@given(rows, temperatures, shares, counts)
def test_the_tokens_that_are_left_and_their_probabilities(logits, temperature, top_p, top_k):
    expected, nearest = naive_law(logits, temperature, top_p, top_k)
    assume(nearest > 1e-9)  # sums that hit top_p have a test of their own
    scaled = Sampling(temperature, top_p, top_k).scaled(np.array([logits]))
    assert set(np.flatnonzero(np.isfinite(scaled[0])).tolist()) == set(expected)
    found = softmax(scaled)[0]
    np.testing.assert_allclose(found[list(expected)], list(expected.values()), rtol=1e-9, atol=1e-300)
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize("equal", [1, 2, 4, 8, 16])
def test_a_sum_that_hits_top_p_exactly_lets_one_more_token_in(equal):
    """Strictly greater, as the source has it; sums of equal powers of two are exact, so nothing is rounded here."""
    logits = np.full((1, equal + 4), -1000.0)  # these weigh nothing at all
    best = np.random.default_rng(equal).permutation(equal + 4)[:equal]
    logits[0, best] = 2.5
    for few in range(1, equal):
        share = few / equal
        for top_p, count in ((share, few + 1), (np.nextafter(share, 0), few), (np.nextafter(share, 1), few + 1)):
            for sampling in (Sampling(0.0, top_p), Sampling(1.0, top_p), Sampling(0.5, top_p)):
                left = np.flatnonzero(np.isfinite(sampling.scaled(logits)[0]))
                assert left.tolist() == sorted(best.tolist())[:count], (few, sampling)


@pytest.mark.parametrize(
    ("logits", "sampling", "left"),
    [
        ([0, 3, 1, 1, 1], Sampling(1.0, top_k=1), [1]),
        ([0, 3, 1, 1, 1], Sampling(1.0, top_k=2), [1, 2, 3, 4]),  # ties with the second best
        ([0, 3, 1, 1, 1], Sampling(1.0, top_k=5), [0, 1, 2, 3, 4]),
        ([0, 0, 0, 0], Sampling(1.0, 0.25, 1), [0, 1]),  # top_p first: two by token id; they tie, so both stay
        ([NONE, 0, 0, NONE], Sampling(1.0, top_k=3), [1, 2]),
        ([NONE, 0, 0, NONE], Sampling(1.0, 0.999), [1, 2]),
        ([2, NONE], Sampling(1.0, 1e-9, 1), [0]),
    ],
)
def test_borders(logits, sampling, left):
    assert np.flatnonzero(np.isfinite(sampling.scaled(np.array([logits], dtype=float))[0])).tolist() == left


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-300])
def test_the_lowest_temperatures_take_the_best_token(temperature):
    logits = np.array([[40.0, 39.0, -np.inf], [-3.0, -2.0, -np.inf]])
    scaled = Sampling(temperature).scaled(logits)
    assert softmax(scaled).tolist() == [[1, 0, 0], [0, 1, 0]]
    view = BlockView(np.array([1, 0]), np.zeros((2, 1)), np.ones((2, 1)), lambda: logits)
    assert drawn(view, scaled, StepRandom(0, 0, 0, 1)).tolist() == [0, 1]


def chi_square(counts, law):
    expected = law * counts.sum()
    return float(((counts - expected)[law > 0] ** 2 / expected[law > 0]).sum())


@pytest.mark.parametrize(
    "sampling", [Sampling(0.7), Sampling(1.0, 0.8), Sampling(2.0, top_k=3), Sampling(1.5, 0.95, 4)]
)
def test_tokens_are_drawn_by_the_law_that_is_left(sampling):
    """4,000 draws, 0.01 % level; the law of twice the temperature is refused at the same level."""
    logits = np.array([[0.4, 1.5, NONE, 0.0, 1.0, -1.0]])
    view = BlockView(np.array([3]), np.zeros((1, 1)), np.ones((1, 1)), lambda: logits)
    counts = np.zeros(6)
    for step in range(4000):
        counts[drawn(view, sampling.scaled(logits), StepRandom(11, 0, 0, step))[0]] += 1
    law, other = (
        np.array([naive_law(logits[0], temperature, sampling.top_p, sampling.top_k)[0].get(t, 0.0) for t in range(6)])
        for temperature in (sampling.temperature, sampling.temperature * 2)
    )
    assert not counts[law == 0].any()
    assert chi_square(counts, law) < 23.5  # 4 degrees of freedom at most
    assert chi_square(counts, other) > 23.5 or counts[other == 0].any()


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.25, 2.0]), min_size=5, max_size=5), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.7, 1.3]),
    shares,
    counts,
    st.sampled_from(["confidence", "margin", "entropy"]),
)
def test_dream_orders_by_what_is_left_at_temperature_0_too(logits, temperature, top_p, top_k, order):
    laws = [naive_law(row, temperature, top_p, top_k) for row in logits]
    assume(min(nearest for _, nearest in laws) > 1e-9)
    full = softmax(np.array(logits))
    best = full.argmax(axis=1)  # the first of equals
    view = BlockView(
        np.arange(len(logits)), best[:, None], full.max(axis=1)[:, None] * [[1.0, 0.0]], lambda: np.array(logits),
        lambda: entropy(full),
    )  # fmt: skip
    policy = Dream(order, 4, sampling=Sampling(temperature, top_p, top_k))
    assume(policy.needs == "logits")
    found = policy.candidates(view, StepRandom(5, 0, 0, 1))
    ranked = list(zip(-found.confidences, found.positions.tolist(), strict=True))
    assert ranked == sorted(ranked)  # equal ones by position
    for position, token, score in zip(found.positions, found.tokens, found.confidences, strict=True):
        law, _ = laws[position]
        if temperature == 0:
            assert token == best[position]
        expected = {
            "confidence": law[token],
            "margin": (sorted(law.values())[-1] - sorted([0.0, *law.values()])[-2]),
            "entropy": sum(p * math.log(p) for p in law.values()),
        }
        assert score == pytest.approx(expected[order], abs=1e-12)
