"""Profiles of other runtimes: their arithmetic, and what they refuse."""

import dataclasses

import numpy as np
import pytest

from verify.policies.registry import BUILT_IN
from verify.runtimes.profiles import FAST_DLLM, PROFILES, ProfileError, find_profile


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fast-dllm", [2, 2, 5]),  # two at least
        ("fast-dllm-f6b35ec", [1, 2, 5]),
        ("sglang", [2, 3, 6]),  # one that stores the finished block
        ("lmdeploy", [2, 3, 6]),
        ("jetengine", [2, 3, 6]),
    ],
)
def test_forwards_of_blocks(name, expected):
    found = find_profile(name).forwards(np.array([1, 2, 5], dtype=np.int32))
    assert found.tolist() == expected and found.dtype == np.int64


def test_a_block_that_a_draft_completed_is_stored_already():
    blocks, adopted = np.array([1, 2, 5]), np.array([False, True, True])
    assert find_profile("sglang").forwards(blocks, adopted).tolist() == [2, 2, 5]
    assert find_profile("lmdeploy").forwards(blocks, adopted).tolist() == [2, 3, 6]


def test_every_profile_names_rules_and_caches_that_there_are():
    assert list(PROFILES) == [profile.name for profile in PROFILES.values()]
    for profile in PROFILES.values():
        assert {rule.partition(":")[0] for rule in profile.rules} <= set(BUILT_IN) and profile.caches
        # A threshold of ``>=`` is our rule ``threshold``, one of ``>`` is ``dynamic``; never both.
        assert ("threshold" in profile.rules) == (profile.comparator == ">=")
        assert ("dynamic" in profile.rules) == (profile.comparator == ">")


def test_what_a_runtime_decodes_is_taken():
    find_profile("fast-dllm").check("threshold:0.9", "dual")
    find_profile("sglang").check("dynamic:0.95", "block_causal")
    find_profile("sglang").check("static:1", "block_causal")


@pytest.mark.parametrize(
    ("name", "policy", "cache", "message"),
    [
        ("sglang", "static:2", "block_causal", "sglang does not decode by static:2"),
        (
            "sglang",
            "threshold:0.9",
            "block_causal",
            "sglang does not decode by threshold:0.9: its rule is dynamic",
        ),
        (
            "fast-dllm",
            "factor_code:1",
            "dual",
            "does not decode by factor_code:1: its rule is threshold or static",
        ),
        (
            "fast-dllm",
            "threshold:0.9",
            "none",
            "decodes with cache dual or prefix, the recording is of cache none",
        ),
        ("fast-dllm", "static:1@temperature=0.5", "dual", "fast-dllm draws tokens with noise of its own"),
    ],
)
def test_another_decode_is_refused(name, policy, cache, message):
    with pytest.raises(ProfileError, match=message):
        find_profile(name).check(policy, cache)


def test_an_unknown_runtime_is_answered_with_the_known_ones():
    with pytest.raises(ProfileError, match=r"unknown runtime 'vllm', expected one of fast-dllm, .*sglang"):
        find_profile("vllm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comparator": "<"}, "comparator '<' and score dtype 'float64', expected one of >, >="),
        ({"score_dtype": "half"}, "score dtype 'half', expected"),
        ({"added_per_block": -1}, "-1 forwards added per block and at least 2"),
        ({"least_per_block": 0}, "0 forwards added per block and at least 0"),
    ],
)
def test_a_profile_that_cannot_be(change, message):
    with pytest.raises(ProfileError, match=message):
        dataclasses.replace(FAST_DLLM, **change)
