"""The entry with Fast-dLLM's arguments, against its dual-cache loop written from its description."""

import pytest
import torch

from calibrate.models.checkpoint import load_checkpoint
from drafting.runtime_replay import runtime_count
from tests.support import published_loops as published
from tests.support.calibrated import calibrated
from tests.support.families import MASK, save
from verify.decoding import DecodeConfig
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.runtimes.fast_dllm import generate_with_dual_cache
from verify.runtimes.profiles import FAST_DLLM, find_profile
from verify.runtimes.transformers_model import TransformersDenoiser
from verify.verifier import ValidityMismatchError

PROMPTS = ((5, 9, 13, 17, 21, 25), (7, 11, 15), (6, 10, 14, 18, 22, 26, 30, 34, 38))
LENGTH, BLOCK = 24, 8
FIRST, LATER = FAST_DLLM, find_profile("fast-dllm-f6b35ec")
#: 0.02 completes blocks in their first forward, which is where the two versions count differently.
RULES = [{"threshold": tau} for tau in (0.02, 0.2, 0.35, 0.9)] + [{"steps": 24}, {"steps": 9}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_checkpoint(save("llada", tmp_path_factory.mktemp("llada"), seed=3)).denoiser.model


def ours(model, prompt, *, steps=24, **options):
    """(tokens, nfe) of the entry."""
    x, nfe = generate_with_dual_cache(
        model, torch.tensor([prompt]), steps=steps, gen_length=LENGTH, block_length=BLOCK, mask_id=MASK, **options
    )
    return x[0].tolist(), nfe


def theirs(model, prompt, *, steps=None, threshold=None, looks_first=False):
    each = None if steps is None else steps * BLOCK // LENGTH
    return published.fast_dllm(model, MASK, prompt, LENGTH, BLOCK, "dual", threshold, each, looks_first)


def spec_of(rule):
    return f"threshold:{rule['threshold']}" if "threshold" in rule else f"low_confidence:{rule['steps'] // 3}/8"


def calibrated_for(model, rule):
    config = DecodeConfig(BLOCK, LENGTH, "dual", top_j=4)
    return calibrated(TransformersDenoiser(model, MASK), PROMPTS, spec_of(rule), config)


@pytest.mark.parametrize("rule", RULES, ids=spec_of)
@pytest.mark.parametrize("looks_first", [False, True])
def test_plain_it_is_that_loop(model, rule, looks_first):
    """Tokens and count, those of either version."""
    least = (LATER if looks_first else FIRST).least_per_block
    for prompt in PROMPTS:
        assert ours(model, prompt, least_forwards=least, **rule) == theirs(
            model, prompt, looks_first=looks_first, **rule
        )


def test_the_two_versions_differ_where_a_first_forward_completes_a_block(model):
    (_, first), (_, later) = (theirs(model, PROMPTS[0], threshold=0.02, looks_first=looks) for looks in (False, True))
    assert (first, later) == (6, 3)


@pytest.mark.parametrize("rule", RULES, ids=spec_of)
def test_with_drafts_it_counts_what_replay_predicts(model, rule):
    """The same tokens; the forwards that the profile of each version makes of the plain trace."""
    graph, traces, _ = calibrated_for(model, rule)
    for profile in (FIRST, LATER):
        counted = [ours(model, p, drafts=graph, least_forwards=profile.least_per_block, **rule) for p in PROMPTS]
        plain = [theirs(model, p, looks_first=profile is LATER, **rule) for p in PROMPTS]
        assert [tokens for tokens, _ in counted] == [tokens for tokens, _ in plain]
        predicted = runtime_count(graph.nodes[1:], traces, profile)
        assert predicted.plain_per_prompt.tolist() == [calls for _, calls in plain]
        assert predicted.forwards_per_prompt.tolist() == [nfe for _, nfe in counted]
        saved = predicted.plain_forwards - predicted.forwards
        assert saved > 0 or "threshold" in rule  # a bold rule may leave nothing to save


def test_informed_drafts(model):
    for prompt in PROMPTS:
        tokens, nfe = ours(model, prompt, drafts=InformedDrafter(4), threshold=0.9)
        plain = theirs(model, prompt, threshold=0.9)
        assert tokens == plain[0] and 6 <= nfe < plain[1]


def test_by_factor(model):
    """The rule of its later version; drafts change no token."""
    plain = ours(model, PROMPTS[0], factor=1.0)
    chain = [tuple((i, 1) for i in range(1, size + 1)) for size in range(1, 8)]
    fast = ours(model, PROMPTS[0], factor=1.0, drafts=chain)
    assert fast[0] == plain[0] and fast[1] <= plain[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.5}, "temperature is 0.5 and remasking 'low_confidence'; only 0 and"),
        ({"remasking": "random"}, "remasking 'random'; only 0 and 'low_confidence'"),
        ({"gen_length": 20}, "gen_length is 20, expected a multiple of block_length, which is 8"),
        ({"steps": 25}, "steps is 25, expected a multiple of the 3 blocks"),
        (
            {"drafts": InformedDrafter(4, InformedSettings(copies=True))},
            "the drafts lead over the end of a block, which that loop",
        ),
    ],
)
def test_refused(model, options, message):
    stated = {"steps": 24, "gen_length": LENGTH, "block_length": BLOCK, "mask_id": MASK, **options}
    with pytest.raises(ValueError, match=message):
        generate_with_dual_cache(model, torch.tensor([PROMPTS[0]]), **stated)


def test_more_than_one_prompt_is_refused(model):
    with pytest.raises(ValueError, match=r"prompt has shape \(2, 3\), expected \[1, P\]; call once for every prompt"):
        generate_with_dual_cache(model, torch.ones(2, 3, dtype=torch.int64), mask_id=MASK)


def test_a_graph_of_another_rule_is_refused(model):
    with pytest.raises(ValidityMismatchError, match=r"policy: the drafts were made for 'threshold:0\.35', the"):
        ours(model, PROMPTS[0], drafts=calibrated_for(model, {"threshold": 0.35})[0], threshold=0.9)
