"""KLASS: against a naive oracle, and its borders."""

import math

import numpy as np
import pytest

from tests.support.histories import drifting, drive, view_of
from verify.policies.contract import PolicyError
from verify.policies.klass import Klass, divergence
from verify.policies.randomness import StepRandom
from verify.policies.sampling import Sampling
from verify.policies.specification import make_policy


def kl(new, old):
    return sum(p * (math.log(p + 1e-12) - math.log(q + 1e-12)) for p, q in zip(new, old, strict=True))


def naive(distributions, tau, eps, n):
    """The rule with a ring of the last divergences, which begins at infinity; one position at a time."""
    length = len(distributions[0])
    ring = [[math.inf] * n for _ in range(length)]
    before, masked, found = None, list(range(length)), []
    for logits in distributions:
        if not masked:
            break
        p = [[math.exp(x) for x in row] for row in logits]
        p = [[x / sum(row) for x in row] for row in p]
        for i in range(length):
            if before is not None:
                ring[i] = [*ring[i][1:], kl(p[i], before[i])]
        ready = [i for i in masked if max(p[i]) > tau and all(d < eps for d in ring[i])]
        ready = ready or [min(masked, key=lambda i: (-max(p[i]), i))]
        found.append({i: p[i].index(max(p[i])) for i in ready})
        masked = [i for i in masked if i not in found[-1]]
        before = p
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("tau", "eps", "n"), [(0.3, 0.2, 1), (0.3, 0.3, 2), (0.0, 0.5, 3), (0.6, 10.0, 1)])
def test_a_naive_oracle_agrees(seed, tau, eps, n):
    distributions = drifting(seed, steps=10, length=8, vocabulary=9, drift=0.4)
    assert drive(Klass(tau, eps, n), distributions)[0] == naive(distributions, tau, eps, n)


def test_the_oracle_is_not_trivial():
    sizes = [
        len(step) for seed in range(12) for step in drive(Klass(0.3, 0.3, 2), drifting(seed, 10, 8, 9, drift=0.4))[0]
    ]
    assert max(sizes) > 1 and min(sizes) == 1


def still(*tops, vocabulary=5):
    """Logits with these probabilities of token 3, the rest spread evenly; token 0 is the mask."""
    rows = np.full((len(tops), vocabulary), -np.inf)
    for row, top in zip(rows, tops, strict=True):
        row[1:] = math.log((1 - top) / (vocabulary - 2))
        row[3] = math.log(top)
    return rows


@pytest.mark.parametrize("n", [1, 2, 3])
def test_what_never_changes_goes_in_step_n_plus_1(n):
    """One position a step until then, and all the rest together."""
    steps = drive(Klass(0.5, 0.01, n), [still(*[0.9] * 6)] * 6)[0]
    assert [len(step) for step in steps] == [1] * n + [6 - n]


def test_the_history_begins_with_the_block():
    distributions = [still(*[0.9] * 6)] * 6
    policy = Klass(0.5, 0.01, 2)
    fresh, states = drive(policy, distributions)
    assert drive(policy, distributions, block=1, state=states[-1])[0] == fresh


def test_confidence_is_strictly_above_tau():
    logits = np.log(np.array([[1e-300, 0.75, 0.25], [1e-300, 0.75, 0.25], [1e-300, 0.5, 0.5], [1e-300, 0.5, 0.5]]))
    assert drive(Klass(0.5, 0.01, 1), [logits] * 3)[0] == [{0: 1}, {1: 1}, {2: 1}]
    assert drive(Klass(0.5 - 1e-9, 0.01, 1), [logits] * 3)[0] == [{0: 1}, {1: 1, 2: 1, 3: 1}]


def test_the_divergence_is_strictly_below_eps():
    one, other = still(0.95, 0.8), still(0.95, 0.7)
    moved = kl(*(np.exp(rows[1]).tolist() for rows in (other, one)))
    distributions = [np.concatenate([rows, rows[1:]]) for rows in (one, other, other)]  # three positions
    border = float(divergence(np.exp(other[1:]), np.exp(one[1:]))[0])
    assert border == pytest.approx(moved, rel=1e-12) and moved > 0.01
    assert drive(Klass(0.5, border * (1 + 1e-9), 1), distributions)[0] == [{0: 3}, {1: 3, 2: 3}]
    assert drive(Klass(0.5, border * (1 - 1e-9), 1), distributions)[0] == [{0: 3}, {1: 3}, {2: 3}]
    assert divergence(np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]])).tolist() == [0.0]
    # The same distribution has divergence 0, which is below any eps.
    assert drive(Klass(0.5, 1e-300, 1), [one] * 2)[0] == [{0: 3}, {1: 3}]


def test_one_unstable_step_among_the_last_n_is_enough():
    calm, jump = still(0.99, 0.9, 0.9, 0.9, 0.9), still(0.99, 0.6, 0.6, 0.6, 0.6)
    sizes = [len(s) for s in drive(Klass(0.5, 0.01, 2), [calm, calm, jump, jump, jump])[0]]
    assert sizes == [1, 1, 1, 1, 1]  # calm + jump, jump + calm, and in the last step only one is left
    sizes = [len(s) for s in drive(Klass(0.5, 0.01, 1), [calm, jump, jump])[0]]
    assert sizes == [1, 1, 3]


def test_without_anything_stable_the_most_confident_goes_ties_by_position():
    assert drive(Klass(0.5), [still(0.6, 0.9, 0.9)])[0] == [{1: 3}]
    assert drive(Klass(0.95), [still(0.9, 0.9)] * 4)[0] == [{0: 3}, {1: 3}]  # stable, but not confident


def test_one_mask_left_is_committed():
    view = view_of(still(0.3, 0.4), [1])
    commits, _ = make_policy("klass:0.9").step(view, (), StepRandom(0, 0, 0, 1))
    assert commits.positions.tolist() == [1] and commits.tokens.tolist() == [3]


def test_a_state_that_lacks_a_position_makes_nothing_stable():
    """What a chain of drafts may hand over when a step was guessed."""
    policy, logits = Klass(0.5, 0.01, 1), still(*[0.9] * 4)
    _, state = policy.step(view_of(logits, [0, 1]), (), StepRandom(0, 0, 0, 1))
    commits, _ = policy.step(view_of(logits, [0, 1, 2]), state, StepRandom(0, 0, 0, 2))
    assert len(commits.positions) == 1
    commits, _ = policy.step(view_of(logits, [0, 1]), state, StepRandom(0, 0, 0, 2))
    assert len(commits.positions) == 2


def test_the_state_is_the_last_n_steps_and_never_changed():
    distributions = drifting(5, 6, 8, 9)
    policy = Klass(0.9, 0.01, 2)
    _, states = drive(policy, distributions)
    assert [len(state) for state in states] == [1, 2, 2, 2, 2, 2]
    assert states[3][1] is states[2][0]  # shared, not copied
    kept = [past.logits.copy() for past in states[1]]
    policy.step(view_of(distributions[2], [0, 1, 2]), states[1], StepRandom(0, 0, 0, 3))
    for past, then in zip(states[1], kept, strict=True):
        np.testing.assert_array_equal(past.logits, then)


def test_drawn_tokens_have_their_own_confidence():
    policy = Klass(0.5, 0.01, 1, sampling=Sampling(1e-4))
    assert drive(policy, [still(*[0.9] * 4)] * 3)[0] == [{0: 3}, {1: 3, 2: 3, 3: 3}]
    hot = Klass(0.5, 0.01, 1, sampling=Sampling(20.0))
    assert any(
        token != 3
        for seed in range(8)
        for s in drive(hot, [still(*[0.9] * 4)] * 3, seed=seed)[0]
        for token in s.values()
    )


@pytest.mark.parametrize("spec", ["klass:0.9", "klass:0.6:0.015", "klass:0:0.01:3", "klass:0.9:1e-05:1"])
def test_a_specification_makes_the_same_policy_again(spec):
    assert make_policy(spec).spec == spec and make_policy(spec).needs == "logits"
    assert make_policy("klass:0.90:0.010:2").spec == "klass:0.9"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("klass", "it has 0 parameters, expected 1 to 3; the form is klass:tau[:eps[:n]]"),
        ("klass:1", "tau is '1', expected a number of at least 0 and below 1"),
        ("klass:0.9:0", "eps is '0', expected a number above 0"),
        ("klass:0.9:0.01:0", "n is '0', expected an integer of at least 1"),
        ("klass:0.9:0.01:1.5", "n is '1.5', expected an integer of at least 1"),
    ],
)
def test_a_bad_parameter_is_named(spec, message):
    with pytest.raises(PolicyError) as caught:
        make_policy(spec)
    assert f"policy {spec!r}: {message}" in str(caught.value)
