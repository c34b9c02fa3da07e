"""Plain decoding equals the published loops, token for token, on tiny float32 checkpoints of each family."""

import pytest

from calibrate.models.checkpoint import load_checkpoint
from tests.support import published_loops as published
from tests.support.families import MASK, save
from verify.decoding import DecodeConfig, decode
from verify.policies.specification import make_policy

PROMPTS = {6: (5, 9, 13, 17, 21, 25), 8: (7, 11, 15, 19, 23, 27, 31, 35), 9: (6, 10, 14, 18, 22, 26, 30, 34, 38)}
LENGTH = 24


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("loops")
    return {f: load_checkpoint(save(f, root / f, seed=3)).denoiser for f in ("llada", "dream", "sdar", "llada2")}


def ours(denoiser, prompt, policy, cache, block, length=LENGTH, **options):
    config = DecodeConfig(block_length=block, generation_length=length, cache=cache, **options)
    return decode(denoiser, prompt, make_policy(policy), config)


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=len)
@pytest.mark.parametrize("steps", [8, 4, 3, 5, 1])
def test_llada(models, prompt, steps):
    """Three blocks of 8 in 3 * steps steps; 3 and 5 leave a remainder."""
    expected, calls = published.llada(models["llada"].model, MASK, prompt, 3 * steps, LENGTH, 8)
    result = ours(models["llada"], prompt, f"low_confidence:{steps}/8", "none", 8)
    assert [*prompt, *result.tokens] == expected
    assert result.forwards == calls == 3 * steps


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.9])
def test_fast_dllm_by_threshold(models, threshold, cache):
    for prompt in PROMPTS.values():
        expected, calls = published.fast_dllm(models["llada"].model, MASK, prompt, LENGTH, 8, cache, threshold)
        result = ours(models["llada"], prompt, f"confidence_threshold:{threshold}", cache, 8)
        assert [*prompt, *result.tokens] == expected
        assert result.forwards == calls
        assert calls < LENGTH or threshold == 0.9  # more than one token a step, or nothing is compared


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("steps", [8, 3])
def test_fast_dllm_by_steps(models, steps, cache):
    for prompt in PROMPTS.values():
        expected, calls = published.fast_dllm(models["llada"].model, MASK, prompt, LENGTH, 8, cache, steps=steps)
        result = ours(models["llada"], prompt, f"low_confidence:{steps}/8", cache, 8)
        assert [*prompt, *result.tokens] == expected
        assert result.forwards == calls


@pytest.mark.parametrize(("length", "steps"), [(6, 4), (8, 4), (9, 4), (6, 2), (8, 2), (6, 3), (8, 3), (9, 3)])
def test_sdar_static(models, length, steps):
    """Blocks of 4, the first one with the prompt's tail; the other combinations meet the overrun of the source."""
    prompt = PROMPTS[length]
    expected, calls = published.sdar(models["sdar"].model, MASK, prompt, 16, 4, steps, "low_confidence_static")
    result = ours(models["sdar"], prompt, f"low_confidence_static:{steps}/4", "block_causal", 4, 16)
    assert [*prompt, *result.tokens] == expected
    assert result.forwards < calls  # a finished block is stored along with the next block's first forward


@pytest.mark.parametrize("length", PROMPTS)
@pytest.mark.parametrize("threshold", [0.15, 0.3, 0.9])
def test_sdar_dynamic(models, length, threshold):
    prompt = PROMPTS[length]
    expected, _ = published.sdar(models["sdar"].model, MASK, prompt, 16, 4, 4, "low_confidence_dynamic", threshold)
    for name in (f"low_confidence_dynamic:{threshold}", f"low_confidence_dynamic:{threshold}:4/4"):
        result = ours(models["sdar"], prompt, name, "block_causal", 4, 16)
        assert [*prompt, *result.tokens] == expected


@pytest.mark.parametrize("length", PROMPTS)
@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("threshold", [0.15, 0.9])
def test_sdar_dynamic_with_larger_quotas(models, length, steps, threshold):
    """Capped, as the source would write over decided tokens."""
    prompt = PROMPTS[length]
    expected, _ = published.sdar(
        models["sdar"].model, MASK, prompt, 16, 4, steps, "low_confidence_dynamic", threshold, cap=True
    )
    result = ours(models["sdar"], prompt, f"low_confidence_dynamic:{threshold}:{steps}/4", "block_causal", 4, 16)
    assert [*prompt, *result.tokens] == expected


@pytest.mark.parametrize("length", PROMPTS)
def test_sdar_stops_after_the_block_with_a_stop_token(models, length):
    prompt = PROMPTS[length]
    whole = ours(models["sdar"], prompt, "static:1", "block_causal", 4, 16).tokens
    stops = {whole[0], whole[6]}
    expected, _ = published.sdar(
        models["sdar"].model, MASK, prompt, 16, 4, 4, "low_confidence_static", stop_ids=stops
    )  # fmt: skip
    result = ours(models["sdar"], prompt, "static:1", "block_causal", 4, 16, end_token_ids=tuple(stops))
    assert [*prompt, *result.tokens] == expected
    assert result.end == 0 and len(result.tokens) < len(whole)


@pytest.mark.parametrize("length", PROMPTS)
@pytest.mark.parametrize(("steps", "threshold"), [(8, 0.2), (8, 0.95), (4, 0.2), (3, 0.3)])
def test_llada2(models, length, steps, threshold):
    """The answer up to its end token: that loop may stop within a block, ours ends the block and says where it is."""
    prompt = PROMPTS[length]
    name = f"low_confidence_dynamic:{threshold}:{steps}/8"
    whole = ours(models["llada2"], prompt, name, "block_causal", 8).tokens
    for eos in (MASK - 1, whole[0], whole[len(whole) // 2]):
        expected, _ = published.llada2(models["llada2"].model, MASK, prompt, LENGTH, 8, steps, threshold, eos)
        result = ours(models["llada2"], prompt, name, "block_causal", 8, end_token_ids=(eos,))
        assert result.tokens[: result.end + 1][:LENGTH] == expected


@pytest.mark.parametrize("alg", ["maskgit_plus", "topk_margin", "entropy"])
@pytest.mark.parametrize("steps", [16, 8, 5, 40, 1])
def test_dream(models, steps, alg):
    """The whole answer is one block, and the first position of it speaks from the prompt's last row."""
    for prompt in PROMPTS.values():
        expected, calls = published.dream(models["dream"].model, MASK, prompt, 16, steps, alg)
        result = ours(models["dream"], prompt, f"{alg}:{steps}", "none", 16, 16)
        assert [*prompt, *result.tokens] == expected
        assert result.forwards == calls <= min(steps, 16)  # steps that commit nothing are not paid for


def test_the_three_orders_of_dream_differ(models):
    orders = ("maskgit_plus", "topk_margin", "entropy")
    cases = [(prompt, steps) for prompt in PROMPTS.values() for steps in (16, 8, 5)]
    found = {str([ours(models["dream"], p, f"{alg}:{s}", "none", 16, 16).tokens for p, s in cases]) for alg in orders}
    assert len(found) == 3


def test_the_loops_are_not_all_one(models):
    """Two rules that gave the same tokens would prove nothing of either."""
    names = ("low_confidence:8/8", "low_confidence:3/8", "low_confidence:1/8", "confidence_threshold:0.2")
    caches = ("none", "prefix", "dual")
    found = {tuple(ours(models["llada"], PROMPTS[8], n, c, 8).tokens) for n in names for c in caches}
    assert len(found) > 6
