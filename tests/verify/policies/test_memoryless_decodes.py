"""The rules without history in the loop: drafts change nothing, and a replay of plain traces counts every forward."""

import numpy as np
import pytest

from calibrate.recording.builder import TraceBuilder
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from tests.support.models import random_formulas, tiny_denoiser
from verify.decoding import DecodeConfig, decode
from verify.drafters.informed import InformedDrafter
from verify.policies.specification import make_policy

PROMPT = (5, 9, 13, 17, 21)

#: Bounds at which a tiny random model, which is unsure, commits one position in some steps and more in others.
SPECS = [
    "static:2:margin", "static:1:entropy", "static:2:left_to_right", "static:2:random", "quota:3:entropy",
    "quota:3/7:random", "factor:2.5", "factor_code:2.5", "entropy_threshold:2.8", "entropy_threshold:2.8:below",
    "eb_sampler:4", "eb_sampler:4:confidence", "eb_sampler:4:margin", "local_leap:0.25:0.15:2", "hierarchy:0.2:0.3",
]  # fmt: skip
EXACT = [("dual", "packed"), ("block_causal", "packed"), ("none", "expanded")]


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


@pytest.mark.parametrize("spec", SPECS)
def test_speculation_is_lossless_and_replayed_exactly(denoiser, spec):
    policy = make_policy(spec)
    saved, sizes = 0, set()
    for cache, backend in EXACT:
        config = DecodeConfig(block_length=8, generation_length=16, top_j=4, cache=cache, backend=backend)
        builder = TraceBuilder()
        plain = decode(denoiser, PROMPT, policy, config, observer=builder)
        assert plain.forwards == plain.steps
        traces = builder.build()
        sizes |= set(np.diff(traces.commit_ptr).tolist())
        anchors = AnchorTable.from_traces(traces, max_depth=None)
        found = list(greedy(PrefixTrie.from_anchors(anchors), 8).nodes)
        for formulas in (found, random_formulas(1, 30, policy.step_size, ranks=6)):
            result = decode(denoiser, PROMPT, policy, config, formulas)
            assert (result.tokens, result.steps) == (plain.tokens, plain.steps)
            assert result.forwards == replay(formulas, anchors).forwards
            saved += plain.forwards - result.forwards
        informed = decode(denoiser, PROMPT, policy, config, InformedDrafter(6))
        assert (informed.tokens, informed.steps) == (plain.tokens, plain.steps)
        saved += plain.forwards - informed.forwards
    assert saved > 0
    assert min(sizes) >= 1
    if policy.step_size is None:
        assert len(sizes) > 1
    else:
        assert max(sizes) == policy.step_size  # fewer where fewer are left


@pytest.mark.parametrize("spec", ["static:2:random", "factor_code:2.5", "eb_sampler:4:margin", "hierarchy:0.2:0.3"])
def test_sampled_speculation_is_lossless(denoiser, spec):
    config = DecodeConfig(block_length=8, generation_length=16, top_j=4, seed=1)
    policy = make_policy(spec, 0.7)
    plain = decode(denoiser, PROMPT, policy, config, prompt_index=4)
    for drafts in (random_formulas(1, 40, policy.step_size), InformedDrafter(6)):
        result = decode(denoiser, PROMPT, policy, config, drafts, prompt_index=4)
        assert (result.tokens, result.steps) == (plain.tokens, plain.steps)
    assert decode(denoiser, PROMPT, policy, config, prompt_index=5).tokens != plain.tokens


def test_a_random_order_hangs_on_the_seed(denoiser):
    """Tokens are argmax, but the order in which they are committed decides what they are."""
    found = {
        tuple(decode(denoiser, PROMPT, make_policy("random:8/8"), DecodeConfig(8, 16, seed=seed)).tokens)
        for seed in range(4)
    }
    assert len(found) == 4
