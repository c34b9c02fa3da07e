"""Blocks of different lengths: against a naive decoder, with drafts, in batches, and what is refused."""

from dataclasses import replace

import pytest

from calibrate.models.hugging_face import HuggingFaceDenoiser
from tests.support.adablock_oracle import naive_adablock_decode
from tests.support.models import END_ID, MASK_ID, CountingDenoiser, random_formulas, tiny_denoiser, tiny_llama
from tests.support.observing import Facts, books_balance, same_facts
from verify.decoding import DecodeConfig, decode, decode_batch, make_engine
from verify.drafters.contract import most_bridges
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.engines.contract import EngineError
from verify.engines.rows import RowEngine
from verify.layout import LayoutError
from verify.policies.specification import make_policy, step_sizes

DELIMITERS = tuple(range(3, 48, 4))
SCHEDULE = (0.15, DELIMITERS, 5, 8)
SPEC = f"adablock:0.15:{'+'.join(map(str, DELIMITERS))}:5"
CONFIG = DecodeConfig(block_length=8, generation_length=21, top_j=4, schedule=SPEC)
CACHES = ("none", "prefix", "dual")
EXACT = [("dual", "packed"), ("dual", "expanded"), ("none", "expanded"), ("prefix", "expanded")]
PROMPTS = [[5, 9, 13, 17, 21], [7, 9], list(range(3, 15)), [40, 41, 42]]
POLICIES = ("static:1", "static:2", "threshold:0.2", "quota:3", "dream:entropy:4", "static:1@temperature=0.8")


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


def shifted():
    return HuggingFaceDenoiser(tiny_llama(3), MASK_ID, logits_shift=1)


class FewShapes(HuggingFaceDenoiser):
    """As where shapes cost something: every block is padded to the longest that there may be."""

    few_shapes = True


def few_shapes():
    return FewShapes(tiny_llama(3), MASK_ID)


def block_lengths(facts):
    """How many positions were masked in the first step of every block."""
    return [len(fact.masked_position) for fact in facts if fact.step == 1]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("policy", ["static:2", "threshold:0.2"])
def test_plain_decoding_equals_the_naive_decoder(denoiser, policy, cache):
    seen = set()
    for prompt in PROMPTS:
        expected = naive_adablock_decode(denoiser.model, MASK_ID, prompt, policy, SCHEDULE, 21, cache)
        facts = Facts()
        counting = CountingDenoiser(denoiser)
        result = decode(counting, prompt, make_policy(policy), replace(CONFIG, cache=cache), observer=facts)
        assert (result.tokens, result.forwards, block_lengths(facts.steps)) == expected
        assert (result.forwards, result.query_tokens) == (counting.calls, counting.rows)
        assert result.steps == result.forwards
        seen.update(expected[2])
    assert len(seen) > 3  # the blocks are of different lengths, or nothing is tested


@pytest.mark.parametrize("cache", CACHES)
def test_early_stop_equals_the_naive_decoder(denoiser, cache):
    whole, _, lengths = naive_adablock_decode(denoiser.model, MASK_ID, PROMPTS[0], "static:2", SCHEDULE, 21, cache)
    for end in (whole[0], whole[lengths[0]], whole[-1]):
        expected = naive_adablock_decode(
            denoiser.model, MASK_ID, PROMPTS[0], "static:2", SCHEDULE, 21, cache, (end,)
        )  # fmt: skip
        config = replace(CONFIG, cache=cache, end_token_ids=(end,))
        result = decode(denoiser, PROMPTS[0], make_policy("static:2"), config)
        assert (result.tokens, result.forwards) == expected[:2]
        assert result.end == result.tokens.index(end)


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize("policy", POLICIES)
def test_speculation_is_lossless(denoiser, policy, cache, backend):
    config = replace(CONFIG, cache=cache, backend=backend)
    saved = 0
    for prompt in PROMPTS[:1]:
        seen = Facts()
        plain = decode(denoiser, prompt, make_policy(policy), config, observer=seen)
        graphs = [random_formulas(seed, 12, step_sizes(policy), ranks=6) for seed in range(2)]
        for drafts in (*graphs, InformedDrafter(6), InformedDrafter(3, InformedSettings(copies=True))):
            drafted, counting = Facts(), CountingDenoiser(denoiser)
            result = decode(counting, prompt, make_policy(policy), config, drafts, observer=drafted)
            assert (result.tokens, result.end, result.steps) == (plain.tokens, plain.end, plain.steps)
            assert (result.forwards, result.query_tokens) == (counting.calls, counting.rows)
            books_balance(result)
            same_facts(seen.steps, drafted.steps)
            saved += plain.forwards - result.forwards
    assert saved > 0 or policy != "static:1"  # blocks of five positions take the others two or three steps


@pytest.mark.parametrize(("cache", "backend"), [*EXACT, ("none", "packed"), ("prefix", "packed")])
@pytest.mark.parametrize("model", [tiny_denoiser, shifted, few_shapes], ids=["plain", "shifted", "few shapes"])
def test_slots_of_different_block_lengths_are_decoded_as_alone(model, cache, backend):
    """Four sequences, up to three at a time: their blocks begin and end at different steps."""
    denoiser, policy = model(), make_policy("threshold:0.2")
    config = replace(CONFIG, cache=cache, backend=backend, end_token_ids=(END_ID,))
    numbered = list(enumerate(PROMPTS))
    for drafts in (random_formulas(1, 5, None, ranks=6), InformedDrafter(4)):
        batched = dict(decode_batch(denoiser, numbered, policy, config, drafts, batch_size=3))
        for number, prompt in numbered:
            plain = RowEngine(denoiser, cache, backend)
            alone = decode(denoiser, prompt, policy, config, drafts, prompt_index=number, engine=plain)
            found = batched[number]
            assert (found.tokens, found.forwards, found.query_tokens, found.accepted) == (
                alone.tokens, alone.forwards, alone.query_tokens, alone.accepted,
            )  # fmt: skip


def test_a_window_without_bound_and_delimiters_that_are_never_met_are_fixed_blocks(denoiser):
    fixed = DecodeConfig(block_length=8, generation_length=24, top_j=4)
    scheduled = replace(fixed, schedule="adablock:1:47")
    for cache in CACHES:
        one, other = Facts(), Facts()
        expected = decode(denoiser, PROMPTS[0], make_policy("static:2"), replace(fixed, cache=cache), observer=one)
        config = replace(scheduled, cache=cache)
        found = decode(denoiser, PROMPTS[0], make_policy("static:2"), config, observer=other)
        assert (found.tokens, found.forwards, found.query_tokens) == (
            expected.tokens, expected.forwards, expected.query_tokens,
        )  # fmt: skip
        same_facts(one.steps, other.steps)


def test_what_cannot_be_is_refused(denoiser):
    with pytest.raises(LayoutError, match="block-causal"):
        decode(denoiser, PROMPTS[0], make_policy("static:1"), replace(CONFIG, cache="block_causal"))
    fixed = replace(CONFIG, schedule=None, generation_length=24)
    engine = make_engine(denoiser, CONFIG, [CONFIG.layout(5)], 1, 0)
    with pytest.raises(EngineError, match="not both"):
        decode(denoiser, PROMPTS[0], make_policy("static:1"), fixed, engine=engine)


@pytest.mark.parametrize("cache", ["dual", "block_causal"])
def test_no_bridge_leads_into_a_block_whose_length_is_open(cache):
    drafter = InformedDrafter(4, InformedSettings(copies=True))
    assert most_bridges(drafter, cache) == 4
    assert most_bridges(drafter, cache, schedule=SPEC) == 0
