"""The registry: what it says of our rules, and rules of packages, good and broken."""

import warnings
from functools import partial

import pytest

from tests.support.plugins import install, rule
from verify.policies import registry
from verify.policies.confidence import StaticTopK
from verify.policies.contract import NEEDS, UnknownPolicyError
from verify.policies.parameters import Number, Parameter, Steps, Whole
from verify.policies.registry import BUILT_IN, PolicyPluginWarning, find_rule, registered_rules
from verify.policies.specification import canonical_policy, make_policy


@pytest.fixture(autouse=True)
def forgetful():
    registry._added.cache_clear()
    yield
    registry._added.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    return partial(install, monkeypatch)


def test_every_rule_of_ours_is_described():
    assert list(BUILT_IN)[:5] == ["static", "threshold", "quota", "dynamic", "dream"]
    for name, found in BUILT_IN.items():
        assert found.name == name and found.summary.endswith((".", ")")) and found.source and not found.distribution
        for text in found.examples:
            policy = make_policy(text)
            assert text.startswith(name)
            assert (policy.spec == text) == (not found.stands_for)
            assert policy.spec.partition(":")[0] in (found.stands_for or name).split(", ")
            assert policy.needs in NEEDS and policy.ranks >= 1 and policy.monotone
        assert all(isinstance(one, Parameter) and one.range for one in found.parameters)


def test_forms():
    orders = "confidence|margin|entropy|left_to_right|random"
    assert [found.form for found in BUILT_IN.values()] == [
        f"static:k[:{orders}]", "threshold:tau", f"quota:S[/L][:{orders}]", "dynamic:tau[:k or :S/L]",
        "dream:confidence|margin|entropy|origin:S[:eps]", "factor:f", "factor_code:f",
        "entropy_threshold[:nats[:at_most|below]]", "eb_sampler:gamma[:entropy|confidence|margin]",
        "local_leap[:threshold[:relaxed[:radius]]]", "hierarchy[:low[:high]]",
        "credit:tau[:alpha[:beta[:gamma]]]", "klass:tau[:eps[:n]]",
        "learn2pd:FILE[:tau[:end]]",
        "low_confidence:S/L", "low_confidence_static:S/L", "low_confidence_dynamic:tau[:S/L]",
        "confidence_threshold:tau", "random:S/L", "sequential:S/L", "maskgit_plus:S[:eps]",
        "topk_margin:S[:eps]", "entropy:S[:eps]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(name="two words"), "the rule's name is 'two words', expected a letter"),
        (dict(name="a:b"), "the rule's name is 'a:b'"),
        (dict(parameters=(Whole("a", default=1), Whole("b"))), "must be given stands behind one with a default"),
        (dict(examples=()), "has no example"),
    ],
)
def test_a_rule_checks_itself(changes, message):
    with pytest.raises(ValueError, match=message):
        rule(**{"name": "mine", **changes})


def test_ranges():
    assert Whole("k", 0, 9).range == "an integer of at least 0 and at most 9"
    assert Number("x", 0, None).range == "a number above 0"
    assert Number("x", -1, 1, low_open=False, high_open=True).range == "a number of at least -1 and below 1"
    assert Steps("S/L", lone="k").range == "an integer k of at least 1, or S/L (S steps per block of L positions)"
    for text in ("10", "-1", "2.0", ""):
        with pytest.raises(ValueError, match=f"k is '{text}', expected an integer of at least 0 and at most 9"):
            Whole("k", 0, 9).read(text)
    assert Number("x", -1, 1, low_open=False, high_open=True).read("-1") == -1.0
    for text in ("1", "nan", "-1.1"):
        with pytest.raises(ValueError, match="expected a number of at least -1 and below 1"):
            Number("x", -1, 1, low_open=False, high_open=True).read(text)


def test_rules_of_packages(installed):
    installed(one=rule("mine"), two=(rule("second"), rule("third", exact=False)))
    assert list(registered_rules())[-3:] == ["mine", "second", "third"]
    assert [registered_rules()[name].distribution for name in ("static", "mine", "third")] == [
        "", "draftgraph-one", "draftgraph-two",
    ]  # fmt: skip
    assert make_policy("mine") == StaticTopK(1) and make_policy("mine:3", 0.5) == make_policy("static:3", 0.5)
    with pytest.raises(UnknownPolicyError, match=r"entropy:S\[:eps\], mine\[:k\], second\[:k\], third\[:k\]$"):
        make_policy("fourth")


def test_our_own_rules_ask_no_package(installed):
    installed(broken=ImportError("no module named torchy"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_rule("static") is BUILT_IN["static"]
        assert make_policy("entropy:8").spec == "dream:entropy:8"
        assert canonical_policy("mine:3", 0.5) == "mine:3"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (ImportError("no module named torchy"), "ImportError: no module named torchy"),
        (SystemError("worse"), "SystemError: worse"),
        ("static", r"plugin_broken:RULES is str, expected a verify.policies.rule.Rule, or several"),
        ([rule("mine"), 3], r"is int, expected"),
        (rule("static"), "its rule 'static' has a name that is taken by draftgraph; rename it"),
        (rule("good"), "its rule 'good' has a name that is taken by draftgraph-abc; rename it"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_once_and_left_out(installed, value, message):
    installed(abc=rule("good"), broken=value)
    with pytest.warns(
        PolicyPluginWarning, match=rf"policies of package draftgraph-broken \(plugin_.*\).*{message}"
    ) as w:
        found = registered_rules()
    assert len(w) == 1 and list(found) == [*BUILT_IN, "good"] and found["static"] is BUILT_IN["static"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registered_rules()
        with pytest.raises(
            UnknownPolicyError, match=rf"good\[:k\]; the policies of package draftgraph-broken .*{message}"
        ):
            make_policy("mine")
