"""Specifications and samplings: one text for one policy, whatever rule and however tokens are drawn."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from verify.policies.contract import BlockView, PolicyError, UnknownPolicyError
from verify.policies.learned import FilterPath
from verify.policies.parameters import Choice, Number, Steps, Whole
from verify.policies.randomness import StepRandom
from verify.policies.registry import BUILT_IN
from verify.policies.sampling import Sampling, entropy, softmax, with_filters
from verify.policies.specification import TemperatureConflict, canonical_policy, make_policy, without_sampling


def texts_of(parameter):
    """Texts that a parameter takes."""
    small = st.integers(1, 40).map(str)
    if isinstance(parameter, Whole):
        return st.integers(parameter.low, 10**6 if parameter.high is None else parameter.high).map(str)
    if isinstance(parameter, Number):
        top = 1e6 if parameter.high is None else parameter.high
        return st.floats(parameter.low, top, exclude_min=parameter.low_open, exclude_max=parameter.high_open).map(repr)
    if isinstance(parameter, Choice):
        return st.sampled_from(parameter.options)
    if isinstance(parameter, FilterPath):
        return st.sampled_from(["bundled", "a/b.safetensors#0123456789abcdef"])
    assert isinstance(parameter, Steps)
    pair = st.tuples(small, small).map("/".join)
    return pair | small if parameter.lone else pair


@st.composite
def specifications(draw):
    rule = draw(st.sampled_from(list(BUILT_IN.values())))
    least = sum(one.required for one in rule.parameters)
    count = draw(st.integers(least, len(rule.parameters)))
    texts = [draw(texts_of(one)) for one in rule.parameters[:count]]
    try:
        rule.make(*rule.values(texts), sampling=Sampling())
    except PolicyError:  # parameters that each are taken, but not together
        assume(False)
    return ":".join([rule.name, *texts])


samplings = st.builds(
    Sampling,
    st.just(0.0) | st.floats(0, 100, allow_subnormal=False),
    st.none() | st.floats(0, 1, exclude_min=True),
    st.none() | st.integers(1, 10**6),
)


@settings(deadline=None)
@given(specifications(), samplings)
def test_the_specification_of_a_policy_makes_the_very_same_one(text, sampling):
    policy = make_policy(text + sampling.text)
    assert policy.sampling == sampling and policy.temperature == sampling.temperature
    assert make_policy(policy.spec) == policy and make_policy(policy.spec).spec == policy.spec
    assert make_policy(policy.spec, sampling.temperature) == policy
    assert canonical_policy(policy.spec, sampling.temperature) == policy.spec
    # As it was stored once: the rule's own text, and the temperature beside it.
    alone = Sampling(sampling.temperature)
    assert (
        canonical_policy(without_sampling(policy.spec), alone.temperature) == without_sampling(policy.spec) + alone.text
    )


@settings(deadline=None)
@given(specifications(), samplings, samplings)
def test_policies_that_differ_have_specifications_that_differ(text, one, other):
    assume(one != other)
    assert make_policy(text + one.text).spec != make_policy(text + other.text).spec


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("static:1@temperature=0.70", "static:1@temperature=0.7"),
        ("static:1@top_k=5,temperature=1", "static:1@temperature=1,top_k=5"),
        ("static:1@temperature=0", "static:1"),
        ("threshold:0.9@temperature=0.5,top_p=1.0", "threshold:0.9@temperature=0.5"),
        ("low_confidence:8/32@temperature=2", "static:4@temperature=2"),
        ("entropy:8@top_p=0.9", "dream:entropy:8@top_p=0.9"),
    ],
)
def test_one_sampling_has_one_text(spec, text):
    assert make_policy(spec).spec == text


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("static:1@", "the sampling has '', expected NAME=VALUE with one of temperature, top_p, top_k"),
        ("static:1@0.7", "the sampling has '0.7', expected NAME=VALUE"),
        ("static:1@heat=1", "the sampling has 'heat=1'"),
        ("static:1@temperature=1,temperature=1", "the sampling has temperature twice"),
        ("static:1@temperature=-1", "temperature is '-1', expected a number of at least 0"),
        ("static:1@temperature=inf", "temperature is 'inf', expected a number of at least 0"),
        ("static:1@top_p=0", "top_p is '0', expected a number above 0 and at most 1"),
        ("static:1@top_k=0", "top_k is '0', expected an integer of at least 1"),
        ("static:1@top_k=2.5", "top_k is '2.5', expected an integer of at least 1"),
        ("static:0@top_k=2", "k is '0', expected an integer of at least 1"),
    ],
)
def test_a_bad_sampling_is_named(spec, message):
    with pytest.raises(PolicyError) as caught:
        make_policy(spec)
    assert f"policy {spec!r}: {message}" in str(caught.value)
    assert str(caught.value).endswith("random]@temperature=T,top_p=P,top_k=K")
    assert "; the form is static:k[:confidence|margin|" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"top_p": 0}, "top_p"),
        ({"top_p": 2}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 1.0}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
    ],
)
def test_a_sampling_checks_itself(values, name):
    with pytest.raises(PolicyError, match=f"{name} is .*, expected"):
        Sampling(**values)


def test_a_temperature_beside_the_text():
    assert make_policy("static:1", 0.7) == make_policy("static:1@temperature=0.7")
    assert make_policy("static:1@top_p=0.9", 0.7) == make_policy("static:1@temperature=0.7,top_p=0.9")
    assert make_policy("static:1@temperature=0.7", 0.7).temperature == 0.7
    for beside in (0.0, 0.5):
        with pytest.raises(
            TemperatureConflict, match=rf"has temperature 0.7, but temperature {beside:g} is stated besi"
        ):
            make_policy("static:1@temperature=0.7", beside)
        with pytest.raises(TemperatureConflict):
            canonical_policy("static:1@temperature=0.7", beside)


@pytest.mark.parametrize(
    ("spec", "filters", "text"),
    [
        ("static:1", {}, "static:1"),
        ("static:1", {"top_p": 0.9}, "static:1@top_p=0.9"),
        ("static:1@temperature=0.7", {"top_p": 0.9, "top_k": 5}, "static:1@temperature=0.7,top_p=0.9,top_k=5"),
        ("static:1@top_k=5", {"top_k": 5}, "static:1@top_k=5"),
        ("static:1", {"top_p": 1.5}, "static:1@top_p=1.5"),
    ],
)
def test_filters_beside_the_text(spec, filters, text):
    assert with_filters(spec, **filters) == text


def test_filters_beside_the_text_that_are_refused():
    with pytest.raises(PolicyError, match=r"has top_p 0.9, but top_p 0.8 is stated beside it; leave one of them out"):
        with_filters("static:1@top_p=0.9", top_p=0.8)
    with pytest.raises(PolicyError, match=r"policy 'static:1@heat=1': the sampling has 'heat=1'"):
        with_filters("static:1@heat=1", top_k=3)
    with pytest.raises(PolicyError, match=r"top_p is '1.5', expected a number above 0 and at most 1"):
        make_policy(with_filters("static:1", top_p=1.5))


@pytest.mark.parametrize("text", ["sharp:0.9:0.01", "odd", "static:x", "made up"])
def test_a_text_that_cannot_be_read_is_stored_as_it_is(text):
    assert canonical_policy(text, 0.7) == text


def test_an_unknown_rule_is_told_from_a_bad_parameter():
    with pytest.raises(UnknownPolicyError):
        make_policy("sharp:0.9")
    with pytest.raises(PolicyError) as caught:
        make_policy("dynamic:1.5")
    assert not isinstance(caught.value, UnknownPolicyError)
    assert "tau is '1.5', expected a number above 0 and at most 1" in str(caught.value)


# ---------------------------------------------------------------- which tokens are left


LOGITS = np.log(np.array([[0.4, 0.1, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25]]))


@pytest.mark.parametrize(
    ("sampling", "left"),
    [
        (Sampling(), [[0, 1, 2, 3], [0, 1, 2, 3]]),
        (Sampling(top_k=2), [[0, 2], [0, 1, 2, 3]]),  # what ties with the last one stays
        (Sampling(top_k=9), [[0, 1, 2, 3], [0, 1, 2, 3]]),
        (Sampling(top_p=0.35), [[0], [0, 1]]),  # the best one always; ties by token id
        (Sampling(top_p=0.6), [[0, 2], [0, 1, 2]]),
        (Sampling(top_p=0.8), [[0, 2, 3], [0, 1, 2, 3]]),
        (Sampling(2.0, top_p=0.35), [[0, 2], [0, 1]]),  # at temperature 2 the best has 0.325
        (Sampling(top_p=0.8, top_k=1), [[0], [0, 1, 2, 3]]),
    ],
    ids=lambda value: value.text if isinstance(value, Sampling) else "",
)
def test_the_tokens_that_are_left(sampling, left):
    before = LOGITS.copy()
    scaled = sampling.scaled(LOGITS)
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in scaled] == left
    kept = np.isfinite(scaled)
    shift = LOGITS.max(axis=1, keepdims=True) if sampling.stochastic else 0.0
    np.testing.assert_array_equal(scaled[kept], ((LOGITS - shift) / (sampling.temperature or 1.0))[kept])
    np.testing.assert_array_equal(LOGITS, before)


@pytest.mark.parametrize("spec", ["static:1@temperature=3,top_k=2", "dream:margin:1@temperature=3,top_p=0.5"])
def test_tokens_that_are_left_out_are_never_drawn(spec):
    view = BlockView(np.array([3]), np.array([[0]]), np.array([[0.4]]), lambda: LOGITS[:1])
    policy = make_policy(spec)
    drawn = {int(policy.step(view, policy.initial_state(), StepRandom(s, 0, 0, 1))[0].tokens[0]) for s in range(60)}
    assert drawn == {0, 2}


def test_the_noise_of_a_position_does_not_depend_on_what_is_left_out():
    """Leaving out a token that would not have been drawn changes nothing."""
    view = BlockView(np.array([3]), np.array([[0]]), np.array([[0.4]]), lambda: LOGITS[:1])
    for seed in range(40):
        rng = StepRandom(seed, 0, 0, 1)
        whole = make_policy("static:1@temperature=1").step(view, None, rng)[0].tokens[0]
        few = make_policy("static:1@temperature=1,top_k=3").step(view, None, rng)[0].tokens[0]
        assert few == whole or whole == 1


def test_entropies():
    np.testing.assert_allclose(entropy(softmax(LOGITS)), [1.2798542258336676, np.log(4)])
    assert entropy(np.array([[1.0, 0.0]])).tolist() == [0.0]


def test_filters_change_the_distribution_that_dream_orders_by():
    """Two near-equal tokens and a tail against one token with the same tail: without the tail the second is certain."""
    logits = np.log(np.array([[0.5, 0.4, 0.05, 0.05], [0.45, 0.2, 0.2, 0.15]]))
    view = BlockView(
        np.array([0, 1]), np.array([[0], [0]]), np.array([[0.5], [0.45]]), lambda: logits,
        lambda: entropy(softmax(logits)),
    )  # fmt: skip
    first = {
        spec: int(make_policy(spec).step(view, 0, StepRandom(0, 0, 0, 1))[0].positions[0])
        for spec in ("dream:entropy:2", "dream:entropy:2@top_p=0.3")
    }
    assert first["dream:entropy:2"] == 0
    assert (
        make_policy("dream:entropy:2@top_p=0.3").needs == "logits"
        and make_policy("static:2@top_p=0.3").needs == "ranks"
    )
    assert first["dream:entropy:2@top_p=0.3"] == 0  # one token is left at both: a tie, and the lower position first
