"""The slot engine against the plain one: same logits, same tokens, same books, whatever the batch."""

import numpy as np
import pytest
import torch

from calibrate.models.hugging_face import HuggingFaceDenoiser
from tests.support.models import END_ID, MASK_ID, CountingDenoiser, random_formulas, tiny_denoiser, tiny_llama
from verify.decoding import DecodeConfig, decode, decode_batch, make_engine
from verify.drafts import DraftFiller
from verify.engines.contract import EngineError
from verify.engines.rows import RowEngine
from verify.engines.slots import SlotEngine
from verify.layout import BACKENDS, CACHE_MODES, SequenceLayout
from verify.policies.specification import make_policy

L = 6
MODES = [(cache, backend) for cache in CACHE_MODES for backend in BACKENDS]
#: Of lengths that leave every alignment to blocks of 6: shorter than a block, a whole number of blocks, and others.
PROMPTS = [[5], [7, 9, 11, 13, 15], list(range(3, 15)), list(range(3, 22)), [40, 41, 42], list(range(10, 18))]


def plain_engine(denoiser, config):
    return RowEngine(denoiser, config.cache, config.backend)


def books(result):
    return result.tokens, result.end, result.steps, result.forwards, result.query_tokens, result.accepted


def shifted(seed=3):
    return HuggingFaceDenoiser(tiny_llama(seed), MASK_ID, logits_shift=1)


@pytest.mark.parametrize("cache,backend", MODES)
@pytest.mark.parametrize("model", [tiny_denoiser, shifted], ids=["plain", "shifted"])
def test_logits_of_refreshes_and_steps_are_those_of_the_plain_engine(cache, backend, model):
    """Three sequences in one forward, with 0, 2 and 3 drafts: each wanted row as one call per sequence computes it."""
    denoiser = model()
    layouts = [SequenceLayout.make(len(p), 3 * L, L, cache) for p in PROMPTS[1:4]]
    engines = RowEngine(denoiser, cache, backend), SlotEngine(denoiser, cache, backend, 3, layouts, 3)
    sequences = []
    for slot, (prompt, layout) in enumerate(zip(PROMPTS[1:4], layouts, strict=True)):
        sequence = np.full(layout.length, MASK_ID)
        sequence[: len(prompt)] = prompt
        sequences.append(sequence)
        for engine in engines:
            engine.open(slot, slot, layout)
    rng = np.random.default_rng(0)
    for number in range(2):  # the second block stands on what the first left cached
        starts = [layout.block_starts[number] for layout in layouts]
        for due in ([2], [0, 1]):  # a refresh of some slots only
            chosen = [sequences[k] for k in due], [starts[k] for k in due]
            same_logits(*(engine.refresh(due, *chosen) for engine in engines))
        for _ in range(2):
            states = []
            for k, drafts in enumerate((0, 2, 3)):
                block = sequences[k][starts[k] : starts[k] + L]
                state = np.repeat(block[None], 1 + drafts, axis=0)
                guessed = rng.integers(3, 40, state.shape)
                states.append(np.where((state == MASK_ID) & (rng.random(state.shape) < 0.4), guessed, state))
            same_logits(*(engine.step([0, 1, 2], states) for engine in engines))
        for k, start in enumerate(starts):
            block = sequences[k][start : start + L]
            sequences[k][start : start + L] = np.where(block == MASK_ID, rng.integers(3, 40, L), block)


def same_logits(one, other):
    torch.testing.assert_close(other.logits, one.logits, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(other.unit, one.unit)
    np.testing.assert_array_equal(other.offset, one.offset)
    assert (other.bounds, other.units, other.query_tokens, other.lengths) == (
        one.bounds,
        one.units,
        one.query_tokens,
        one.lengths,
    )


@pytest.mark.parametrize("cache,backend", MODES)
@pytest.mark.parametrize(
    "spec,temperature,model",
    [
        ("static:1", 0.0, tiny_denoiser),
        ("threshold:0.3", 0.0, tiny_denoiser),
        ("static:2", 0.9, tiny_denoiser),
        ("static:1", 0.0, shifted),
    ],
)
def test_a_batch_decodes_as_every_prompt_alone(cache, backend, spec, temperature, model):
    """Six prompts in three places: tokens, forwards, rows and acceptances, plainly and with drafts."""
    denoiser, policy = model(), make_policy(spec, temperature)
    config = DecodeConfig(L, 2 * L, cache, backend, (END_ID,), top_j=4, seed=7)
    for graph in ((), random_formulas(5, 7, policy.step_size)):
        together = dict(decode_batch(denoiser, list(enumerate(PROMPTS)), policy, config, graph, batch_size=3))
        assert sorted(together) == list(range(len(PROMPTS)))
        for prompt_index, prompt in enumerate(PROMPTS):
            alone = decode(
                denoiser,
                prompt,
                policy,
                config,
                graph,
                prompt_index=prompt_index,
                engine=plain_engine(denoiser, config),
            )
            assert books(together[prompt_index]) == books(alone)


def test_batches_accept_drafts():
    """The comparison above must not be of decodes that never speculate."""
    config = DecodeConfig(L, 3 * L, "dual", "packed", (), top_j=4)
    graph = random_formulas(5, 7, 1)
    prompts, policy = list(enumerate(PROMPTS)), make_policy("static:1")
    results = dict(decode_batch(tiny_denoiser(), prompts, policy, config, graph, batch_size=3))
    assert sum(sum(result.accepted) for result in results.values()) > 5


def test_a_batch_pays_one_call_for_all_its_sequences():
    """What batching is for: fewer calls of the model than forwards that the sequences took part in."""
    denoiser, calls = tiny_denoiser(), []

    class Watched(HuggingFaceDenoiser):
        def forward_slots(self, memory, rows):
            calls.append(tuple(rows.tokens.shape))
            return super().forward_slots(memory, rows)

    config = DecodeConfig(L, 2 * L, "dual", top_j=2)
    watched = Watched(denoiser.model, MASK_ID)
    results = dict(decode_batch(watched, list(enumerate(PROMPTS[:4])), make_policy("static:1"), config, batch_size=4))
    # Blocks of one length and one commit a step: all four run in step, refreshes included.
    assert [result.forwards for result in results.values()] == [2 * L] * 4
    assert len(calls) == 2 * L
    assert calls[1] == (4, L)


def test_cached_keys_are_written_by_refreshes_only_and_read_in_place():
    """No forward with drafts copies the cache: attention reads a view of the buffers, and they stay as they were."""
    denoiser = tiny_denoiser()
    layout = SequenceLayout.make(9, 2 * L, L, "dual")
    engine = SlotEngine(denoiser, "dual", "packed", 1, [layout], 4)
    sequence = np.full(layout.length, MASK_ID)
    sequence[:9] = range(3, 12)
    engine.open(0, 0, layout)
    engine.refresh([0], [sequence], [9])
    layer = engine.memory.layers[0]
    before = layer.keys[:, :, : engine.cached_rows].clone()
    assert before[0, :, : layout.length - L].abs().sum() > 0
    views = []
    original = type(layer).update

    def watching(self, *args, **kwargs):
        keys, values = original(self, *args, **kwargs)
        views.append((keys.data_ptr() == self.keys.data_ptr(), values.data_ptr() == self.values.data_ptr()))
        return keys, values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(layer), "update", watching)
        engine.step([0], [np.repeat(sequence[None, 9 : 9 + L], 5, axis=0)])
    assert views == [(True, True)] * 2
    torch.testing.assert_close(layer.keys[:, :, : engine.cached_rows], before, rtol=0, atol=0)


def test_eager_attention_in_slots():
    model = tiny_llama()
    model.set_attn_implementation("eager")
    config = DecodeConfig(L, 2 * L, "prefix", "expanded", top_j=4)
    graph = random_formulas(2, 5)
    results = [
        dict(decode_batch(d, list(enumerate(PROMPTS)), make_policy("static:1"), config, graph, batch_size=4))
        for d in (tiny_denoiser(), HuggingFaceDenoiser(model, MASK_ID))
    ]
    assert {k: books(v) for k, v in results[0].items()} == {k: books(v) for k, v in results[1].items()}


def test_a_denoiser_without_slots_is_decoded_row_by_row():
    denoiser = tiny_denoiser()
    counting = CountingDenoiser(denoiser)
    config = DecodeConfig(L, 2 * L, "dual", top_j=4)
    layouts = [SequenceLayout.make(4, 2 * L, L, "dual")]
    assert isinstance(make_engine(counting, config, layouts, 2, 0), RowEngine)
    assert isinstance(make_engine(denoiser, config, layouts, 2, 0), SlotEngine)
    results = dict(decode_batch(counting, list(enumerate(PROMPTS)), make_policy("static:1"), config, batch_size=2))
    assert counting.calls == sum(result.forwards for result in results.values())
    assert counting.rows == sum(result.query_tokens for result in results.values())


def test_no_prompts_give_no_results():
    assert list(decode_batch(tiny_denoiser(), [], make_policy("static:1"), DecodeConfig(L, L))) == []


def test_bad_prompts_and_batch_sizes_are_refused_before_anything_runs():
    from verify.decoding import DecodeError
    from verify.layout import LayoutError

    counting = CountingDenoiser(tiny_denoiser())
    config, policy = DecodeConfig(L, L, top_j=2), make_policy("static:1")
    with pytest.raises(DecodeError, match="at index 1"):
        decode_batch(counting, [(0, [3]), (1, [4, MASK_ID])], policy, config, batch_size=2)
    with pytest.raises(LayoutError, match="batch_size is 0"):
        decode_batch(counting, [(0, [3])], policy, config, batch_size=0)
    assert counting.calls == 0


@pytest.mark.parametrize("kind", ["rows", "slots"])
def test_an_engine_for_something_else_is_refused(kind):
    denoiser, policy = tiny_denoiser(), make_policy("static:1")
    layout = SequenceLayout.make(4, 2 * L, L, "dual")
    if kind == "rows":
        engine = RowEngine(denoiser, "dual", "packed")
    else:
        engine = SlotEngine(denoiser, "dual", "packed", 1, [layout], 2)
    with pytest.raises(EngineError, match="made for another model, or for dual, packed and not none, expanded"):
        decode(denoiser, [3], policy, DecodeConfig(L, L, "none", "expanded"), engine=engine)
    with pytest.raises(EngineError, match="made for another model"):
        decode(tiny_denoiser(1), [3], policy, DecodeConfig(L, L, "dual"), engine=engine)
    assert len(decode(denoiser, [3], policy, DecodeConfig(L, L, "dual"), engine=engine).tokens) == L


def test_an_engine_that_is_too_small_is_refused():
    """Before any forward: a sequence that is longer than the buffers would write into its own cache."""
    denoiser, policy = tiny_denoiser(), make_policy("static:1")
    layout = SequenceLayout.make(4, 2 * L, L, "prefix")
    engine = SlotEngine(denoiser, "prefix", "packed", 1, [layout], 2)
    config = DecodeConfig(L, 2 * L, "prefix", top_j=4)
    with pytest.raises(EngineError, match=r"up to 3 drafts .* the engine was made for at most 2"):
        decode(denoiser, [3], policy, config, [[[1, 1]], [[2, 1]], [[3, 1]]], engine=engine)
    with pytest.raises(EngineError, match="1 slots, 16 rows and blocks of 6; prompt 7 would take slot 0, 17 rows"):
        decode(denoiser, [3] * 5, policy, config, prompt_index=7, engine=engine)
    with pytest.raises(EngineError, match="prompt 1 would take slot 1"):
        list(decode_batch(denoiser, [(0, [3]), (1, [4])], policy, config, batch_size=2, engine=engine))
    with pytest.raises(EngineError, match="would take slot 0, 16 rows, blocks of 5"):
        decode(denoiser, [3], policy, DecodeConfig(5, 15, "prefix"), engine=engine)
    long = SequenceLayout.make(10, 2 * L, L, "prefix")  # room for its prompt, not for a suffix of as many rows
    with pytest.raises(EngineError, match="made for up to 12 generated rows, prompt 0 has 18"):
        engine = SlotEngine(denoiser, "prefix", "packed", 1, [long], 0)
        decode(denoiser, [3], policy, DecodeConfig(L, 3 * L, "prefix"), engine=engine)
    with pytest.raises(EngineError, match="needs a layout and a slot at least, got 0 and 1"):
        SlotEngine(denoiser, "dual", "packed", 1, [], 0)


def test_a_refresh_may_come_twice():
    """Block-causal: what the first froze is not among the rows of the second, nor is the row before the block."""
    denoiser = shifted()
    layout = SequenceLayout.make(9, 2 * L, L, "block_causal")
    engines = (
        RowEngine(denoiser, "block_causal", "packed"),
        SlotEngine(denoiser, "block_causal", "packed", 1, [layout], 0),
    )
    sequence = np.full(layout.length, MASK_ID)
    sequence[:9] = range(3, 12)
    for engine in engines:
        engine.open(0, 0, layout)
        start = layout.block_starts[0]
        first = engine.refresh([0], [sequence], [start])
        again = engine.refresh([0], [sequence], [start])
        step = engine.step([0], [sequence[None, start : start + L]])
        torch.testing.assert_close(again.logits, first.logits, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(step.logits, first.logits, rtol=1e-4, atol=2e-5)


def test_prompts_may_come_from_an_iterator():
    denoiser, policy = tiny_denoiser(), make_policy("static:1")
    config = DecodeConfig(L, L, "dual", top_j=2)
    results = dict(decode_batch(denoiser, enumerate(PROMPTS), policy, config, batch_size=2))
    assert sorted(results) == list(range(len(PROMPTS)))


def test_a_step_names_what_it_cannot_take():
    layout = SequenceLayout.make(4, L, L, "dual")
    engine = SlotEngine(tiny_denoiser(), "dual", "packed", 2, [layout], 1)
    with pytest.raises(EngineError, match="a step needs a refresh of every slot before it"):
        engine.step([0], [np.full((1, L), MASK_ID)])
    for slot in (0, 1):
        engine.open(slot, slot, layout)
    sequence = np.array([3, 4, 5, 6] + [MASK_ID] * L)
    engine.refresh([0, 1], [sequence, sequence], [4, 4])
    block = sequence[None, 4:]
    with pytest.raises(ValueError, match="slots 0 to 0, got"):
        engine.step([1], [block])
    with pytest.raises(
        ValueError, match="2 drafts and 0 bridges at an anchor, but the engine was made for at most 1 and 0"
    ):
        engine.step([0], [np.repeat(block, 3, axis=0)])


def test_drafts_that_do_not_fit_an_anchor_leave_no_trace():
    """Anchors near a block's end have fewer drafts, each sequence its own number; the widest sets the width."""
    filler = DraftFiller(random_formulas(9, 10))
    config = DecodeConfig(4, 8, "dual", top_j=4)
    policy = make_policy("static:1")
    denoiser = tiny_denoiser(4)
    together = dict(decode_batch(denoiser, list(enumerate(PROMPTS)), policy, config, filler, batch_size=6))
    for prompt_index, prompt in enumerate(PROMPTS):
        assert (
            together[prompt_index].tokens == decode(denoiser, prompt, policy, config, prompt_index=prompt_index).tokens
        )
