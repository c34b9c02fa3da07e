"""Policies: their specifications, their borders, and noise that depends on nothing but its address."""

import re

import numpy as np
import pytest

from verify.policies.confidence import StaticTopK, Threshold
from verify.policies.contract import BlockView, PolicyError
from verify.policies.randomness import StepRandom
from verify.policies.sampling import Sampling
from verify.policies.specification import make_policy, step_sizes

RNG = StepRandom(0, 0, 0, 1)


def view_of(confidences, logits=None):
    """A view of masked positions 10, 11, ... with the given top-1 confidences, ranked as the loop ranks them."""
    confidences = np.array(confidences, dtype=np.float64)
    order = np.argsort(-confidences, kind="stable")
    tokens = np.stack([100 + order, 200 + order], axis=1).astype(np.int32)
    probabilities = np.stack([confidences[order], (1 - confidences[order]) / 2], axis=1)
    rows = None if logits is None else np.asarray(logits, dtype=np.float64)[order]
    return BlockView(10 + order, tokens, probabilities, lambda: rows)


def commits(policy, view, rng=RNG):
    result, _ = policy.step(view, policy.initial_state(), rng)
    return dict(zip(result.positions.tolist(), result.tokens.tolist(), strict=True))


@pytest.mark.parametrize(
    "spec", ["static:1", "static:7", "threshold:0.9", "threshold:1", "threshold:0.3333333333333333"]
)
def test_a_specification_makes_the_same_policy_again(spec):
    assert make_policy(spec).spec == spec
    assert make_policy(make_policy(spec).spec) == make_policy(spec)


def test_every_bit_of_a_threshold_is_in_its_specification():
    tau = float(np.nextafter(0.9, 1.0))
    assert make_policy(Threshold(tau).spec) == Threshold(tau) != Threshold(0.9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("static", "it has 0 parameters, expected 1 or 2; the form is static:k[:confidence|margin|"),
        ("static:", "it has 0 parameters, expected 1 or 2; the form is static:k[:confidence|margin|"),
        ("static:1:margin:2", "it has 3 parameters, expected 1 or 2; the form is static:k[:confidence|margin|"),
        *((f"static:{k}", f"k is '{k}', expected an integer of at least 1") for k in ("0", "-1", "1.5", "x")),
        ("threshold", "it has 0 parameters, expected 1; the form is threshold:tau"),
        *(
            (f"threshold:{tau}", f"tau is '{tau}', expected a number above 0 and at most 1")
            for tau in ("0", "-0.1", "1.01", "nan", "inf", "x")
        ),
    ],
)
def test_a_bad_parameter_is_named(spec, message):
    with pytest.raises(PolicyError) as caught:
        make_policy(spec)
    assert f"policy {spec!r}: {message}" in str(caught.value)
    assert "unknown policy" not in str(caught.value)
    with pytest.raises(PolicyError):
        step_sizes(spec)


@pytest.mark.parametrize(
    ("spec", "form"), [("Static:1", "static:k["), ("randomly:1", "random:S/L"), ("klas", "klass:tau")]
)
def test_a_name_that_is_nearly_right_is_told(spec, form):
    with pytest.raises(PolicyError, match=f"unknown policy '{spec}'; did you mean {re.escape(form)}"):
        make_policy(spec)


@pytest.mark.parametrize("spec", ["", "1", "origin:8"])
def test_an_unknown_name_lists_what_there_is(spec):
    with pytest.raises(PolicyError) as caught:
        make_policy(spec)
    assert str(caught.value).startswith(
        f"unknown policy {spec!r}; expected one of static:k[:confidence|margin|entropy|left_to_right|random], thres"
    )
    assert str(caught.value).endswith("maskgit_plus:S[:eps], topk_margin:S[:eps], entropy:S[:eps]")


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf"), "0"])
def test_temperatures_that_mean_nothing_are_refused(temperature):
    with pytest.raises(PolicyError, match=r"temperature is .*expected a finite number of at least 0"):
        make_policy("static:1", temperature)


def test_step_sizes():
    assert [step_sizes(spec) for spec in ("static:1", "static:4", "threshold:0.9")] == [1, 4, None]


def test_what_policies_declare():
    for policy in (make_policy("static:2"), make_policy("threshold:0.5")):
        assert (policy.monotone, policy.may_do_nothing) == (True, False)
        assert (policy.needs, policy.ranks, policy.temperature) == ("ranks", 1, 0.0)
        assert policy.initial_state() is None
    for policy in (make_policy("static:2", 0.7), make_policy("threshold:0.5", 0.7)):
        assert (policy.needs, policy.ranks, policy.temperature) == ("logits", 1, 0.7)


def test_static_commits_the_most_confident():
    assert commits(StaticTopK(2), view_of([0.1, 0.8, 0.3, 0.9])) == {13: 103, 11: 101}


def test_static_breaks_ties_by_position():
    assert commits(StaticTopK(2), view_of([0.1, 0.8, 0.8, 0.8])) == {11: 101, 12: 102}


def test_static_takes_all_when_fewer_are_left():
    assert commits(StaticTopK(5), view_of([0.1, 0.8])) == {10: 100, 11: 101}


def test_threshold_includes_tau_itself():
    tau = 0.9
    below = float(np.nextafter(tau, 0.0))
    assert commits(Threshold(tau), view_of([below, tau, 0.95, 0.2])) == {11: 101, 12: 102}


def test_threshold_always_commits_the_best():
    assert commits(Threshold(0.9), view_of([0.3, 0.5, 0.5])) == {11: 101}


def test_a_threshold_of_one_takes_only_the_certain():
    assert commits(Threshold(1.0), view_of([1.0, 1 - 1e-16, 1.0, 0.999])) == {10: 100, 12: 102}


def test_argmax_policies_never_fetch_the_logits():
    view = BlockView(np.array([3]), np.array([[7]]), np.array([[0.5]]), lambda: pytest.fail("logits were fetched"))
    assert commits(StaticTopK(1), view) == {3: 7}
    assert commits(Threshold(0.9), view) == {3: 7}


def test_noise_depends_on_its_address_alone():
    forward = {p: StepRandom(1, 2, 3, 4).gumbel(p, 5) for p in range(6)}
    backward = {p: StepRandom(1, 2, 3, 4).gumbel(p, 5) for p in reversed(range(6))}
    for p in range(6):
        np.testing.assert_array_equal(forward[p], backward[p])
    longer = StepRandom(1, 2, 3, 4).gumbel(0, 9)
    np.testing.assert_array_equal(longer[:5], forward[0])


def test_every_part_of_the_address_changes_the_noise():
    addresses = [(0, 0, 0, 1, 0), (1, 0, 0, 1, 0), (0, 1, 0, 1, 0), (0, 0, 1, 1, 0), (0, 0, 0, 2, 0), (0, 0, 0, 1, 1)]
    drawn = {tuple(StepRandom(*address[:4]).gumbel(address[4], 4)) for address in addresses}
    assert len(drawn) == len(addresses)
    # Swapping two parts is another address too, and large or negative seeds are taken.
    assert tuple(StepRandom(0, 0, 1, 2).gumbel(0, 4)) != tuple(StepRandom(0, 0, 2, 1).gumbel(0, 4))
    assert np.isfinite(StepRandom(-1, 2**40, 3, 4).gumbel(5, 4)).all()


def test_streams_of_neighbouring_positions_do_not_overlap():
    first, second = StepRandom(0, 0, 0, 1).gumbel(0, 5000), StepRandom(0, 0, 0, 1).gumbel(1, 5000)
    assert len(np.intersect1d(first, second)) == 0
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_sampled_from_the_tempered_softmax(temperature):
    logits = np.array([[1.0, -np.inf, 0.0, 2.0]])
    expected = np.exp(logits[0] / temperature)
    expected /= expected.sum()
    policy = StaticTopK(1, sampling=Sampling(temperature))
    draws = 3000
    counts = np.zeros(4)
    for step in range(draws):
        counts[commits(policy, view_of([0.5], logits), StepRandom(7, 0, 0, step))[10]] += 1
    assert counts[1] == 0  # the mask token
    sigma = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(counts / draws - expected) <= 4 * sigma).all()


def test_a_sampled_tokens_confidence_is_its_own_probability():
    """Position 10 prompt_indices an unlikely token here and there; its rank must then fall behind position 11."""
    logits = np.array([[3.0, -np.inf, 0.0], [1.0, -np.inf, 0.0]])
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidences = probability.max(axis=1)
    seen = set()
    for step in range(200):
        rng = StepRandom(0, 0, 0, step)
        both = commits(StaticTopK(2, sampling=Sampling(1.0)), view_of(confidences, logits), rng)
        first = next(iter(commits(StaticTopK(1, sampling=Sampling(1.0)), view_of(confidences, logits), rng)))
        own = {position: probability[position - 10, token] for position, token in both.items()}
        assert own[first] == max(own.values())
        seen.add(first)
    assert seen == {10, 11}


def test_a_draft_and_the_real_decode_meet_the_same_noise():
    """The same positions in another rank order and among others draw the same tokens."""
    logits = np.random.default_rng(0).normal(size=(4, 6))
    few = commits(StaticTopK(9, sampling=Sampling(0.7)), view_of([0.1, 0.2], logits[:2]))
    many = commits(StaticTopK(9, sampling=Sampling(0.7)), view_of([0.9, 0.4, 0.8, 0.3], logits))
    assert few == {position: many[position] for position in few}
