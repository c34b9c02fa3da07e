"""CreditDecoding: against a dense oracle, and its borders."""

import math

import numpy as np
import pytest

from tests.support.histories import drifting, drive, view_of
from verify.policies.contract import BlockView, PolicyError
from verify.policies.credit import CreditDecoding
from verify.policies.randomness import StepRandom
from verify.policies.sampling import Sampling
from verify.policies.specification import make_policy


def naive(distributions, tau, alpha, beta, gamma):
    """The rule by its formulas, one position and one token at a time, with a credit for every token."""
    length, vocabulary = distributions[0].shape
    credit = [[0.0] * vocabulary for _ in range(length)]
    masked, found = list(range(length)), []
    for logits in distributions:
        if not masked:
            break
        best = {}
        for i in masked:
            p = [math.exp(x) for x in logits[i]]
            p = [x / sum(p) for x in p]
            credit[i] = [beta * c for c in credit[i]]
            top = p.index(max(p))
            credit[i][top] += p[top] ** gamma
            q = [p[v] * (1 + credit[i][v]) ** alpha for v in range(vocabulary)]
            best[i] = (max(q) / sum(q), q.index(max(q)))
        least = min(tau, max(c for c, _ in best.values()) - 1e-5)
        found.append({i: v for i, (c, v) in best.items() if c >= least})
        masked = [i for i in masked if i not in found[-1]]
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "numbers", [(0.9, 0.7, 0.8, 0.2), (0.7, 2.0, 0.5, 0.0), (0.6, 0.7, 0.0, 1.0), (0.8, 0, 0.8, 0.2)]
)
def test_a_dense_oracle_agrees(seed, numbers):
    distributions = drifting(seed, steps=8, length=6, vocabulary=9)
    found = drive(CreditDecoding(*numbers), distributions)[0]
    assert found == naive(distributions, *numbers)
    assert sum(map(len, found)) > 1


def test_credit_outlasts_the_top():
    """A token with credit stays the arg-max of q after another has overtaken it, also from beyond the ranks kept."""
    before, after = np.full((2, 6), -9.0), np.full((2, 6), -9.0)
    before[:, 3], before[:, 4] = 2.0, 1.0
    after[:, [4, 5, 3]] = 2.02, 2.01, 2.0  # third now; two ranks are kept
    before[0, 1] = 9.0  # position 0 goes first
    policy = CreditDecoding(0.99, alpha=1.0, beta=0.9)
    assert drive(policy, [before, after])[0] == [{0: 1}, {1: 3}]
    assert drive(CreditDecoding(0.99, alpha=0.0), [before, after])[0] == [{0: 1}, {1: 4}]


def two(first, second, vocabulary=8):
    """Logits of two positions with these probabilities of token 2."""
    rows = [[-np.inf, *[math.log((1 - p) / (vocabulary - 2))] * (vocabulary - 1)] for p in (first, second)]
    rows[0][2], rows[1][2] = math.log(first), math.log(second)
    return np.array(rows)


def test_the_border_is_taken():
    """``gamma`` 0 and ``alpha`` 1: the first credit is 1, so the odds of the top token double."""
    logits = two(0.9, 0.6)  # 0.6 -> 1.2 / 1.6
    assert drive(CreditDecoding(0.7500001, 1.0, gamma=0.0), [logits])[0] == [{0: 2}]
    assert drive(CreditDecoding(0.7499999, 1.0, gamma=0.0), [logits])[0] == [{0: 2, 1: 2}]
    exact = BlockView(np.arange(2), np.array([[1], [1]]), np.array([[0.75], [0.5]]), lambda: np.zeros((2, 4)))
    at_border = 2 * 0.5 / (1 + 0.5)
    for tau, count in ((at_border, 2), (float(np.nextafter(at_border, 1)), 1)):
        policy = CreditDecoding(tau, 1.0, gamma=0.0)
        commits, _ = policy.step(exact, policy.initial_state(), StepRandom(0, 0, 0, 1))
        assert len(commits.positions) == count


def test_where_nothing_reaches_tau_the_best_goes_and_all_that_are_as_good():
    assert drive(CreditDecoding(1.0), [two(0.6, 0.5)])[0] == [{0: 2}]
    assert drive(CreditDecoding(1.0), [two(0.6, 0.6 - 1e-6)])[0] == [{0: 2, 1: 2}]
    assert drive(CreditDecoding(1.0), [two(0.6, 0.6 - 1e-4)])[0] == [{0: 2}]
    assert drive(CreditDecoding(1.0), [two(0.6, 0.6)])[0] == [{0: 2, 1: 2}]


def test_one_mask_left_is_committed():
    view = view_of(two(0.3, 0.2), [1])
    commits, state = make_policy("credit:1").step(view, make_policy("credit:1").initial_state(), StepRandom(0, 0, 0, 1))
    assert commits.positions.tolist() == [1] and commits.tokens.tolist() == [2]
    assert state.positions.tolist() == [1] and state.amounts.tolist() == pytest.approx([0.2**0.2])


def test_credit_decays_and_grows():
    """p = 1/2 at gamma 1: 1/2, then 0.8 / 2 + 1/2; a token that is overtaken only decays."""
    half = np.log(np.array([[1e-300, 0.5, 0.3, 0.2], [1e-300, 0.6, 0.2, 0.2]]))
    turned = half[:, [0, 2, 1, 3]]
    policy = CreditDecoding(1.0, gamma=1.0)
    _, states = drive(policy, [half, half])
    assert dict(zip(states[0].positions.tolist(), states[0].amounts.tolist(), strict=True)) == pytest.approx(
        {0: 0.5, 1: 0.6}
    )
    assert states[1].positions.tolist() == [0] and states[1].amounts.tolist() == pytest.approx([0.8 * 0.5 + 0.5])
    _, states = drive(policy, [half, turned])
    assert states[1].tokens.tolist() == [1, 2] and states[1].amounts.tolist() == pytest.approx([0.4, 0.5])


def test_a_block_begins_without_credit():
    distributions = drifting(1, steps=8, length=6, vocabulary=9)
    policy = make_policy("credit:0.9")
    fresh, states = drive(policy, distributions)
    assert drive(policy, distributions, block=1, state=states[-2])[0] == fresh


def test_a_state_of_other_positions_is_taken_for_what_fits():
    """What a chain of drafts may hand over where a step was guessed: nothing of positions that are gone."""
    distributions = drifting(2, steps=4, length=6, vocabulary=9)
    policy = make_policy("credit:0.9")
    _, states = drive(policy, distributions)
    _, after = policy.step(view_of(distributions[3], [2, 5]), states[0], StepRandom(0, 0, 0, 4))
    assert set(after.positions.tolist()) == {2, 5}
    _, after = policy.step(view_of(distributions[3], [0, 5]), policy.initial_state(), StepRandom(0, 0, 0, 4))
    assert after.positions.tolist() == [0, 5]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7), Sampling(1.0, top_p=0.9, top_k=3)])
def test_it_changes_nothing_that_it_is_given(sampling):
    distributions = drifting(3, steps=3, length=5, vocabulary=9)
    policy = CreditDecoding(0.9, sampling=sampling)
    _, states = drive(policy, distributions)
    view, state = view_of(distributions[2], [1, 3]), states[0]
    rows = view.logits()
    kept = [one.copy() for one in (view.positions, view.tokens, rows, state.positions, state.tokens, state.amounts)]
    first = policy.step(view, state, StepRandom(0, 0, 0, 3))
    for now, then in zip(
        (view.positions, view.tokens, view.logits(), state.positions, state.tokens, state.amounts), kept, strict=True
    ):
        np.testing.assert_array_equal(now, then)
    again = policy.step(view, state, StepRandom(0, 0, 0, 3))
    np.testing.assert_array_equal(first[0].positions, again[0].positions)
    np.testing.assert_array_equal(first[0].tokens, again[0].tokens)


def test_tokens_are_drawn_from_the_raised_distribution():
    """Near temperature 0 the arg-max of q is drawn, not that of p; its confidence is that under q."""
    before, after = np.full((2, 6), -9.0), np.full((2, 6), -9.0)
    before[:, 3], before[:, 4], before[0, 1] = 2.0, 1.0, 9.0
    after[:, [4, 5, 3]] = 2.02, 2.01, 2.0
    policy = CreditDecoding(0.99, 1.0, 0.9, sampling=Sampling(1e-4))
    assert drive(policy, [before, after])[0] == [{0: 1}, {1: 3}]
    free = CreditDecoding(0.99, 1.0, 0.9, sampling=Sampling(3.0))
    assert len({str(drive(free, [before, after], seed=seed)[0]) for seed in range(12)}) > 2


@pytest.mark.parametrize("spec", ["credit:0.9", "credit:0.95:0.65:0.7", "credit:1:0:0:0", "credit:0.9:0.7:0.8:1"])
def test_a_specification_makes_the_same_policy_again(spec):
    assert make_policy(spec).spec == spec and make_policy(spec).needs == "logits"
    assert make_policy("credit:0.9:0.7:0.8:0.2").spec == "credit:0.9"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("credit", "it has 0 parameters, expected 1 to 4; the form is credit:tau[:alpha[:beta[:gamma]]]"),
        ("credit:0", "tau is '0', expected a number above 0 and at most 1"),
        ("credit:0.9:-1", "alpha is '-1', expected a number of at least 0"),
        ("credit:0.9:1:1", "beta is '1', expected a number of at least 0 and below 1"),
        ("credit:0.9:1:0.5:-0.1", "gamma is '-0.1', expected a number of at least 0"),
    ],
)
def test_a_bad_parameter_is_named(spec, message):
    with pytest.raises(PolicyError) as caught:
        make_policy(spec)
    assert f"policy {spec!r}: {message}" in str(caught.value)
