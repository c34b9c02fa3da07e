"""Replay predicts the forwards of the published decode rules too, and of a model whose logits are shifted."""

import pytest

from calibrate.models.checkpoint import load_checkpoint
from calibrate.recording.builder import TraceBuilder
from tests.studies.runs.test_replay_matches_runtime import PROMPTS, agree, graphs_for
from tests.support.families import save
from tests.support.models import random_formulas, tiny_denoiser
from verify.decoding import DecodeConfig, decode
from verify.policies.specification import make_policy


def graphs_and_traces(denoiser, policy, config):
    builder = TraceBuilder()
    for prompt_index, prompt in enumerate(PROMPTS):
        decode(denoiser, prompt, policy, config, prompt_index=prompt_index, observer=builder)
    traces = builder.build()
    return {**graphs_for(traces, policy, 8), "random": random_formulas(2, 12, policy.step_size, ranks=6)}, traces


@pytest.mark.parametrize("cache", ["dual", "block_causal"])
@pytest.mark.parametrize("spec", ["quota:3/7", "dynamic:0.2:2", "dream:margin:6", "entropy:5"])
def test_published_rules(spec, cache):
    policy, config = make_policy(spec), DecodeConfig(8, 16, cache, top_j=4)
    denoiser = tiny_denoiser()
    graphs, traces = graphs_and_traces(denoiser, policy, config)
    assert agree(denoiser, PROMPTS, policy, config, traces, graphs) > 0


@pytest.mark.parametrize(("cache", "backend"), [("dual", "packed"), ("prefix", "expanded"), ("none", "expanded")])
@pytest.mark.parametrize("spec", ["static:1", "maskgit_plus:5"])
def test_a_shifted_model(tmp_path, spec, cache, backend):
    denoiser = load_checkpoint(save("dream", tmp_path, seed=3)).denoiser
    policy, config = make_policy(spec), DecodeConfig(8, 16, cache, backend, top_j=4)
    graphs, traces = graphs_and_traces(denoiser, policy, config)
    assert agree(denoiser, PROMPTS, policy, config, traces, graphs) > 0
