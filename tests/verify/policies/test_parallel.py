"""Rules that commit as many as one distribution allows: their borders, and an oracle each that shares no code."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support.views import committed, view_of
from verify.policies.contract import PolicyError
from verify.policies.specification import make_policy


def taken(spec, confidences, positions=None, **numbers):
    """Which positions a step commits, ascending; every one with its own best token."""
    found = committed(make_policy(spec), view_of(confidences, positions=positions, **numbers))
    assert all(token == 100 + position for position, token in found.items())
    return list(found)


@pytest.mark.parametrize(
    ("spec", "text", "needs", "ranks"),
    [
        ("factor:1.0", "factor:1", "ranks", 1),
        ("factor_code:0.7", "factor_code:0.7", "ranks", 1),
        ("entropy_threshold:0.5", "entropy_threshold", "entropy", 1),
        ("entropy_threshold:0.5:at_most", "entropy_threshold", "entropy", 1),
        ("entropy_threshold:0.5:below", "entropy_threshold:0.5:below", "entropy", 1),
        ("eb_sampler:0.10:entropy", "eb_sampler:0.1", "entropy", 1),
        ("eb_sampler:0:margin", "eb_sampler:0:margin", "entropy", 2),
        ("eb_sampler:0.1:confidence", "eb_sampler:0.1:confidence", "entropy", 1),
        ("local_leap:0.9:0.75:4", "local_leap", "ranks", 1),
        ("local_leap:0.8:0.6", "local_leap:0.8:0.6", "ranks", 1),
        ("hierarchy:0.4:1", "hierarchy", "ranks", 1),
        ("hierarchy:0.6:0.9", "hierarchy:0.6:0.9", "ranks", 1),
    ],
)
def test_one_policy_has_one_text(spec, text, needs, ranks):
    policy = make_policy(spec)
    assert policy.spec == text and make_policy(text) == policy
    assert (policy.needs, policy.ranks, policy.step_size) == (needs, ranks, None)
    assert policy.monotone and not policy.may_do_nothing and policy.initial_state() is None
    drawn = make_policy(text, 0.7)
    assert (drawn.needs, drawn.ranks, drawn.spec) == ("logits", 1, f"{text}@temperature=0.7")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("factor", "it has 0 parameters, expected 1; the form is factor:f"),
        ("factor:0", "f is '0', expected a number above 0"),
        ("factor:inf", "f is 'inf', expected a number above 0"),
        ("factor_code:-1", "f is '-1', expected a number above 0; the form is factor_code:f"),
        ("entropy_threshold:-0.1", "nats is '-0.1', expected a number of at least 0"),
        ("entropy_threshold:0.5:under", "edge is 'under', expected one of at_most, below"),
        ("eb_sampler", "it has 0 parameters, expected 1 or 2"),
        ("eb_sampler:-0.1", "gamma is '-0.1', expected a number of at least 0"),
        ("eb_sampler:0.1:random", "order is 'random', expected one of entropy, confidence, margin"),
        ("local_leap:1.1", "threshold is '1.1', expected a number above 0 and at most 1"),
        ("local_leap:0.9:0", "relaxed is '0', expected a number above 0 and at most 1"),
        ("local_leap:0.9:0.7:-1", "radius is '-1', expected an integer of at least 0"),
        ("local_leap:0.7", "relaxed is 0.75, expected at most threshold, which is 0.7; lower relaxed or raise"),
        ("hierarchy:-0.1", "low is '-0.1', expected a number of at least 0 and at most 1"),
        ("hierarchy:0.5:1.5", "high is '1.5', expected a number of at least 0 and at most 1"),
        ("hierarchy:0.9:0.6", "low is 0.9, expected at most high, which is 0.6; lower low or raise high"),
    ],
)
def test_a_bad_parameter_is_named(spec, message):
    with pytest.raises(PolicyError) as caught:
        make_policy(spec)
    assert f"policy {spec!r}: {message}" in str(caught.value)


# ---------------------------------------------------------------- factor


def test_factor_takes_the_largest_prefix_below_its_bound():
    """f = 1: two need c > 2/3, three c > 3/4, four c > 4/5."""
    assert taken("factor:1", [0.9, 0.7, 0.8, 0.76]) == [0, 2, 3]
    assert taken("factor:1", [0.9, 0.81, 0.82, 0.83]) == [0, 1, 2, 3]
    assert taken("factor:2", [0.9, 0.7, 0.8, 0.76]) == [0, 1, 2, 3]
    assert taken("factor:0.5", [0.9, 0.7, 0.8, 0.76]) == [0]


def test_the_bound_of_factor_is_open_and_that_of_its_code_closed():
    """f = 3/4 and the second c = 3/4: (2 + 1) * (1 - 3/4) is f itself."""
    assert taken("factor:0.75", [1.0, 0.75, 0.5, 0.5]) == [0]
    assert taken("factor_code:0.75", [1.0, 0.75, 0.5, 0.5]) == [0, 1]
    above = float(np.nextafter(0.75, 1))
    assert taken("factor:0.75", [1.0, above, 0.5, 0.5]) == [0, 1]
    assert taken("factor_code:0.75", [1.0, float(np.nextafter(0.75, 0)), 0.5, 0.5]) == [0]


def test_the_code_commits_the_last_mask_when_it_alone_fails():
    for low in (0.01, 0.5):
        assert taken("factor:1", [low]) == taken("factor_code:1", [low]) == [0]  # one mask left
        assert taken("factor:1", [0.5, low]) == [0]
        assert taken("factor_code:1", [0.5, low]) == [0, 1]  # two: together, whatever the second says
        assert taken("factor:1", [0.9, 0.8, low]) == [0, 1]
        assert taken("factor_code:1", [0.9, 0.8, low]) == [0, 1, 2]
        assert taken("factor_code:1", [0.9, 0.6, low]) == [0]  # the second of three fails: no last one


def test_ties_of_factor_go_by_position():
    assert taken("factor:1", [0.7, 0.7, 0.7, 0.7]) == [0, 1]
    assert taken("factor_code:1", [0.7, 0.7, 0.7, 0.7]) == [0, 1]
    assert taken("factor:1", [0.7, 0.7, 0.7], positions=[9, 11, 30]) == [9, 11]


SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 2 / 3, 0.75, 0.8, 5 / 6, 0.9, 0.99, 1.0])
BLOCKS = st.lists(SHARES | st.floats(0, 1), min_size=1, max_size=10)


@settings(deadline=None, max_examples=60)
@given(BLOCKS, st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.5, 3.0, 20.0]))
def test_factor_against_its_definition(confidences, f):
    order = sorted(range(len(confidences)), key=lambda p: (-confidences[p], p))
    passing = [n for n in range(1, len(order) + 1) if (n + 1) * (1 - confidences[order[n - 1]]) < f]
    assert taken(f"factor:{f}", confidences) == sorted(order[: max([1, *passing])])


@settings(deadline=None, max_examples=60)
@given(BLOCKS, st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.5, 3.0, 20.0]))
def test_the_code_of_factor_against_a_scan(confidences, f):
    order = sorted(range(len(confidences)), key=lambda p: (-confidences[p], p))
    stopped = 0
    for index, position in enumerate(order):
        stopped = index
        if index and confidences[position] < 1 - f / (index + 2):
            break
    expected = len(order) if stopped == len(order) - 1 else max(1, stopped)
    assert taken(f"factor_code:{f}", confidences) == sorted(order[:expected])


# ---------------------------------------------------------------- entropies


def test_an_entropy_on_the_bound():
    entropies = [1.0, 0.5, float(np.nextafter(0.5, 1)), 0.25]
    assert taken("entropy_threshold", [0.9] * 4, entropies=entropies) == [1, 3]
    assert taken("entropy_threshold:0.5:below", [0.9] * 4, entropies=entropies) == [3]


def test_the_sharpest_is_always_taken():
    """Not the most confident one; at equal entropies the lower position."""
    assert taken("entropy_threshold:0.1", [0.6, 0.5, 0.4], entropies=[1.5, 0.7, 0.7]) == [1]
    assert taken("entropy_threshold:0.1:below", [0.6], entropies=[3.0]) == [0]
    assert taken("entropy_threshold:0", [0.6, 1.0, 1.0], entropies=[0.7, 0.0, 0.0]) == [1, 2]
    assert taken("entropy_threshold:0:below", [0.6, 1.0, 1.0], entropies=[0.7, 0.0, 0.0]) == [1]


def test_eb_sampler_does_not_count_the_highest_entropy():
    """By entropy: the last one is free, so two masks go together when the sharper one is within gamma."""
    entropies = [0.25, 4.0, 0.5]
    assert taken("eb_sampler:0.25", [0.9, 0.2, 0.8], entropies=entropies) == [0, 2]
    assert taken("eb_sampler:0.75", [0.9, 0.2, 0.8], entropies=entropies) == [0, 1, 2]
    assert taken("eb_sampler:0.74", [0.9, 0.2, 0.8], entropies=entropies) == [0, 2]
    assert taken("eb_sampler:0.24", [0.9, 0.2, 0.8], entropies=entropies) == [0]
    assert taken("eb_sampler:0.1", [0.9, 0.2], entropies=[0.1, 7.0]) == [0, 1]
    assert taken("eb_sampler:0", [0.1], entropies=[7.0]) == [0]


def test_a_gamma_of_zero_takes_one_behind_the_certain_ones():
    assert taken("eb_sampler:0", [0.5, 1.0, 1.0, 0.4], entropies=[1.0, 0.0, 0.0, 2.0]) == [0, 1, 2]
    assert taken("eb_sampler:0", [0.5, 0.4], entropies=[1.0, 1.0]) == [0]


def test_a_sum_on_the_bound_is_not_moved_by_rounding():
    """0.1 + 2.3 - 2.3 is below 0.1 in float64, and 0.1 + 1.1 - 1.1 above it."""
    for low, high in ((0.1, 2.3), (0.1, 1.1)):
        assert low + high - high != low
        assert taken(f"eb_sampler:{low!r}", [0.9, 0.2], entropies=[low, high]) == [0, 1]
        less = float(np.nextafter(low, 0))
        assert taken(f"eb_sampler:{less!r}", [0.9, 0.2], entropies=[low, high]) == [0]


def test_the_orders_of_eb_sampler():
    """By confidence 0, 1, 2; by margin 1, 0, 2; by entropy 2, 0, 1. The bound is on entropies in all of them."""
    numbers = dict(second=[0.4, 0.1, 0.35], entropies=[1.0, 2.0, 0.5])
    found = {
        order: [taken(f"eb_sampler:{gamma}:{order}", [0.5, 0.45, 0.4], **numbers) for gamma in (0.25, 1.25, 1.5)]
        for order in ("entropy", "confidence", "margin")
    }
    assert found == {
        "entropy": [[2], [0, 2], [0, 1, 2]],
        "confidence": [[0], [0, 1], [0, 1, 2]],
        "margin": [[1], [0, 1], [0, 1, 2]],
    }
    with pytest.raises(PolicyError, match="keep at least two vocabulary ranks"):
        taken("eb_sampler:1:margin", [0.5, 0.4], entropies=[1.0, 1.0])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(SHARES, st.integers(0, 64)), min_size=1, max_size=10), st.integers(0, 200), st.booleans())
def test_eb_sampler_against_its_definition(pairs, gamma, by_confidence):
    """Entropies and gamma in 32nds of a nat, so that every sum is exact."""
    confidences, entropies = [c for c, _ in pairs], [h / 32 for _, h in pairs]
    proxy = [-c for c in confidences] if by_confidence else entropies
    order = sorted(range(len(pairs)), key=lambda p: (proxy[p], p))
    prefixes = [order[:n] for n in range(1, len(order) + 1)]
    passing = [u for u in prefixes if math.fsum(entropies[p] for p in u) - max(entropies[p] for p in u) <= gamma / 32]
    spec = f"eb_sampler:{gamma / 32}:{'confidence' if by_confidence else 'entropy'}"
    assert taken(spec, confidences, entropies=entropies) == sorted(passing[-1])


# ---------------------------------------------------------------- neighbourhood


def test_local_leap_relaxes_near_an_anchor():
    """The anchor at 10: 6 and 14 are four away, 5 and 15 five."""
    positions, confidences = [5, 6, 10, 14, 15], [0.8, 0.8, 0.95, 0.8, 0.8]
    assert taken("local_leap", confidences, positions) == [6, 10, 14]
    assert taken("local_leap:0.9:0.75:5", confidences, positions) == positions
    assert taken("local_leap:0.9:0.75:0", confidences, positions) == [10]


def test_the_bounds_of_local_leap_are_taken():
    below = [float(np.nextafter(tau, 0)) for tau in (0.75, 0.9)]
    assert taken("local_leap", [0.75, below[0], 0.9, 0.95]) == [0, 2, 3]
    assert taken("local_leap", [0.95, 0.9], [0, 20]) == [0, 20]
    assert taken("local_leap", [0.95, below[1]], [0, 20]) == [0]
    assert taken("local_leap", [below[1], 0.8, 0.8]) == [0]  # no anchor: the best alone, though the others are near


def test_a_relaxed_position_is_no_anchor():
    """A chain of neighbours ends after one link; so does the best one's, where it is below the threshold."""
    assert taken("local_leap", [0.95, 0.8, 0.8], [0, 4, 8]) == [0, 4]
    assert taken("local_leap", [0.3, 0.3]) == [0]
    assert taken("local_leap", [0.2]) == [0]


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.integers(0, 20), SHARES, min_size=1, max_size=12), SHARES, SHARES, st.integers(0, 6))
def test_local_leap_against_its_definition(block, threshold, relaxed, radius):
    assume(0 < relaxed <= threshold)
    anchors = [p for p in block if block[p] >= threshold]
    expected = {max(sorted(block), key=lambda p: block[p])}
    for p in block:
        near = any(abs(p - a) <= radius for a in anchors)
        if block[p] >= (relaxed if near else threshold):
            expected.add(p)
    positions = sorted(block)
    spec = f"local_leap:{threshold!r}:{relaxed!r}:{radius}"
    assert taken(spec, [block[p] for p in positions], positions) == sorted(expected)


def test_hierarchy_takes_the_best_of_every_run():
    """Runs 0-2, 5 and 8-9."""
    positions, confidences = [0, 1, 2, 5, 8, 9], [0.5, 0.7, 0.6, 0.41, 0.2, 0.3]
    assert taken("hierarchy", confidences, positions) == [1, 5]
    assert taken("hierarchy:0", confidences, positions) == [1, 5, 9]
    assert taken("hierarchy:0.4:0.5", confidences, positions) == [1, 2, 5]
    assert taken("hierarchy:0.8:0.9", confidences, positions) == [1]  # the best of all, below every bound


def test_the_bounds_of_hierarchy_are_left_out():
    assert taken("hierarchy:0.5:0.75", [0.8, 0.75, 0.5], [0, 1, 4]) == [0]
    above = [float(np.nextafter(c, 1)) for c in (0.75, 0.5)]
    assert taken("hierarchy:0.5:0.75", [0.8, *above], [0, 1, 4]) == [0, 1, 4]
    assert taken("hierarchy:0.5", [1.0, 1.0, 0.5], [0, 2, 4]) == [0, 2]


def test_ties_of_a_run_are_all_taken_and_of_the_best_the_first():
    assert taken("hierarchy", [0.6, 0.6, 0.5]) == [0, 1]
    assert taken("hierarchy", [0.3, 0.3, 0.2]) == [0]  # none above low: the best of all, by position


def test_hierarchy_with_few_masks():
    assert taken("hierarchy", [0.1], [7]) == [7]
    assert taken("hierarchy", [0.6, 0.5]) == [0]
    assert taken("hierarchy", [0.6, 0.5], [3, 5]) == [3, 5]
    assert taken("hierarchy:0.4:0.45", [0.6, 0.5]) == [0, 1]


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.integers(0, 20), SHARES, min_size=1, max_size=14), SHARES, SHARES)
def test_hierarchy_against_its_definition(block, low, high):
    assume(low <= high)
    positions = sorted(block)
    expected = {max(positions, key=lambda p: block[p])} | {p for p in block if block[p] > high}
    run = []
    for p in [*positions, 99]:
        if run and p != run[-1] + 1:
            best = max(block[q] for q in run)
            expected |= {q for q in run if block[q] == best and best > low}
            run = []
        run.append(p)
    assert taken(f"hierarchy:{low!r}:{high!r}", [block[p] for p in positions], positions) == sorted(expected)
