"""Slots of transformers' models: heads that are more than a matrix, graphs of forwards, and waits for the device."""

import gc
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma2Config, Gemma2ForCausalLM

from calibrate.models.cuda_graphs import MAX_GRAPHS, SIGHTS, GraphedForward
from calibrate.models.hugging_face import HuggingFaceDenoiser
from calibrate.models.slot_cache import run_decoder
from tests.support.models import MASK_ID, random_formulas, tiny_denoiser, tiny_llama
from verify.decoding import DecodeConfig, decode, decode_batch, make_engine
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.engines.rows import RowEngine
from verify.engines.slots import SlotEngine
from verify.layout import SequenceLayout
from verify.policies.specification import make_policy

L = 6
PROMPTS = list(enumerate([[5, 6, 7], list(range(3, 16)), [30, 31]]))
CONFIG = DecodeConfig(L, 2 * L, "dual", top_j=4)


def run_again(run, inputs):
    """A capture without CUDA: runs on the same input buffers and writes into the same output buffer."""
    output = run(*inputs).clone()
    return output, lambda: output.copy_(run(*inputs))


class Graphed(HuggingFaceDenoiser):
    """Uses graphs on a CPU, through ``run_again``."""

    def make_slots(self, *sizes):
        memory = super().make_slots(*sizes)
        self.graphs = memory.graphs = GraphedForward(partial(run_decoder, self.model, memory.cache), run_again)
        return memory


@pytest.mark.parametrize("cache", ["dual", "prefix", "block_causal", "none"])
@pytest.mark.parametrize("shift", [0, 1])
def test_graphed_forwards_decode_the_same(cache, shift):
    model = tiny_denoiser().model
    config = DecodeConfig(L, 2 * L, cache, top_j=4)
    graph = random_formulas(3, 6)
    graphed = Graphed(model, MASK_ID, shift)
    policy = make_policy("static:1")
    plain = dict(decode_batch(HuggingFaceDenoiser(model, MASK_ID, shift), PROMPTS, policy, config, graph, batch_size=2))
    other = dict(decode_batch(graphed, PROMPTS, policy, config, graph, batch_size=2))
    for prompt_index, _ in PROMPTS:
        assert other[prompt_index].tokens == plain[prompt_index].tokens
        assert other[prompt_index].accepted == plain[prompt_index].accepted
    assert graphed.graphs.captured >= 2  # several numbers of drafts, or of sequences
    assert graphed.graphs.replayed > graphed.graphs.captured


def test_graphed_forwards_decode_the_same_with_copies():
    """While a copy is held, graphs read twice the columns; a copy itself is made without one."""
    model, policy = tiny_denoiser(3).model, make_policy("static:1")
    drafter, graphed = InformedDrafter(6, InformedSettings(copies=True)), Graphed(model, MASK_ID)
    plain = dict(decode_batch(HuggingFaceDenoiser(model, MASK_ID), PROMPTS, policy, CONFIG, drafter, batch_size=2))
    other = dict(decode_batch(graphed, PROMPTS, policy, CONFIG, drafter, batch_size=2))
    for prompt_index, _ in PROMPTS:
        assert other[prompt_index].tokens == plain[prompt_index].tokens
        assert other[prompt_index].accepted == plain[prompt_index].accepted
    assert graphed.graphs.replayed > 0


@pytest.mark.parametrize("shift", [0, 1])
def test_a_block_that_is_carried_is_cached_although_forwards_are_graphed(shift):
    """A graph keeps writing to the columns that it was captured with; a carrying step has columns of its own."""
    model, policy = tiny_denoiser(seed=3).model, make_policy("static:1")
    config = DecodeConfig(4, 24, "block_causal", top_j=4)

    class Captured(HuggingFaceDenoiser):
        def make_slots(self, *sizes):
            memory = super().make_slots(*sizes)

            def capture(run, inputs):
                rows, output = memory._plan.rows, run(*inputs).clone()

                def replay():
                    now = memory._plan.rows
                    memory.set_rows(rows)
                    output.copy_(run(*inputs))
                    memory.set_rows(now)

                return output, replay

            self.graphs = memory.graphs = GraphedForward(partial(run_decoder, self.model, memory.cache), capture)
            return memory

    prompts = [(k, [5 + k, 9, 14, 3][: 2 + k % 3]) for k in range(6)]
    drafter, graphed = InformedDrafter(6), Captured(model, MASK_ID, shift)
    plain = dict(decode_batch(HuggingFaceDenoiser(model, MASK_ID, shift), prompts, policy, config, drafter))
    other = dict(decode_batch(graphed, prompts, policy, config, drafter))
    assert {k: (one.tokens, one.forwards) for k, one in other.items()} == {
        k: (one.tokens, one.forwards) for k, one in plain.items()
    }
    assert graphed.graphs.replayed > 0


def test_compiled_steps_decode_the_same():
    """No break: a step forward is one graph. Dynamic shapes keep their number under torch's limit of eight."""
    model = tiny_denoiser().model
    config = DecodeConfig(L, 2 * L, "dual", top_j=4)
    graph = random_formulas(3, 6)
    policy = make_policy("static:1")
    plain = dict(decode_batch(HuggingFaceDenoiser(model, MASK_ID), PROMPTS, policy, config, graph, batch_size=2))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = HuggingFaceDenoiser(model, MASK_ID, compile_backend="aot_eager")
    other = dict(decode_batch(compiled, PROMPTS, policy, config, graph, batch_size=2))
    for prompt_index, _ in PROMPTS:
        assert other[prompt_index].tokens == plain[prompt_index].tokens
        assert other[prompt_index].accepted == plain[prompt_index].accepted
    assert not torch._dynamo.utils.counters["graph_break"]
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] < 8


def test_no_graphs_without_cuda():
    denoiser = HuggingFaceDenoiser(tiny_denoiser().model, MASK_ID, cuda_graphs=True)
    assert denoiser.make_slots(1, 16, 6).graphs is None


def test_a_shape_is_captured_when_it_is_met_again():
    forward = GraphedForward(lambda one: one + 1, run_again)
    assert [forward((), torch.tensor([k])).item() for k in (1, 5, 8)] == [2, 6, 9]
    assert (forward.captured, forward.replayed) == (1, 2)
    assert forward(("other",), torch.tensor([3])).item() == 4
    assert (forward.captured, forward.replayed) == (1, 2)


def failing(error):
    def capture(run, inputs):
        if len(inputs[0]) > 1:
            raise error
        return run_again(run, inputs)

    return GraphedForward(lambda one: one + 1, capture)


def test_what_cannot_be_captured_runs_as_it_is():
    forward = failing(RuntimeError("operation not permitted when stream is capturing\nmore"))
    for k in range(3):
        assert forward((), torch.tensor([k])).tolist() == [k + 1]
    forward((), torch.ones(2))
    with pytest.warns(UserWarning, match="no CUDA graphs for this model: operation not permitted when stream is"):
        assert forward((), torch.ones(2)).tolist() == [2, 2]
    assert forward((), torch.ones(2)).tolist() == [2, 2]
    assert forward((), torch.tensor([7])).tolist() == [8]
    assert (forward.captured, forward.replayed) == (1, 2)  # nothing is trusted any more


def test_graphs_without_room_for_more_keep_those_there_are():
    forward = failing(torch.OutOfMemoryError("CUDA out of memory"))
    for k in range(3):
        forward((), torch.tensor([k]))
    forward((), torch.ones(2))
    with pytest.warns(UserWarning, match="no more CUDA graphs than the 1 there are: out of memory"):
        assert forward((), torch.ones(2)).tolist() == [2, 2]
    assert forward((), torch.tensor([7])).tolist() == [8]
    assert forward((), torch.ones(3)).tolist() == [2, 2, 2]
    assert (forward.captured, forward.replayed) == (1, 3)


def test_old_graphs_are_dropped():
    forward = GraphedForward(lambda one: one * 2, run_again)
    for size in range(1, MAX_GRAPHS + 3):
        for _ in range(SIGHTS):
            assert forward((), torch.ones(size)).sum() == 2 * size
    assert forward.captured == MAX_GRAPHS + 2
    forward((), torch.ones(MAX_GRAPHS + 2))
    assert forward.captured == MAX_GRAPHS + 2  # the newest was kept
    forward((), torch.ones(1))
    assert forward.captured == MAX_GRAPHS + 3  # the oldest was not


def test_few_shapes_need_few_graphs():
    """Ten drafts that run out at the end of a block: 0, 1, 2, 4, 8 and 10 are all the numbers that forwards have."""
    model = tiny_denoiser().model

    class FewShapes(Graphed):
        few_shapes = True

    config = DecodeConfig(16, 48, "block_causal", top_j=4)
    graph = [[[i, 1] for i in range(1, size + 1)] for size in range(1, 11)]
    policy = make_policy("static:1")
    plain = decode(HuggingFaceDenoiser(model, MASK_ID), [5, 6, 7], policy, config, graph)
    few = FewShapes(model, MASK_ID)
    assert decode(few, [5, 6, 7], policy, config, graph).tokens == plain.tokens
    many = Graphed(model, MASK_ID)
    assert decode(many, [5, 6, 7], policy, config, graph).tokens == plain.tokens
    assert 1 <= few.graphs.captured <= 6
    assert few.graphs.replayed > many.graphs.replayed


def test_a_memory_goes_with_its_engine():
    """Not with the next garbage collection: buffers of a GPU would pile up until then."""
    denoiser = Graphed(tiny_denoiser().model, MASK_ID)
    layout = SequenceLayout.make(3, L, L, "dual")
    engine = SlotEngine(denoiser, "dual", "packed", 1, [layout], 0)
    list(decode_batch(denoiser, PROMPTS[:1], make_policy("static:1"), DecodeConfig(L, L, top_j=2), engine=engine))
    memory, layer = weakref.ref(engine.memory), weakref.ref(engine.memory.layers[0])
    gc.collect()
    gc.disable()
    try:
        del denoiser.graphs, engine
        assert memory() is None and layer() is None
    finally:
        gc.enable()


def test_a_broken_prompt_leaves_nothing_behind_in_its_slot():
    """A masked column is multiplied by 0, and 0 times infinity is no number: the next sequence must not meet it."""
    model = tiny_llama()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = torch.inf
    denoiser = HuggingFaceDenoiser(model, MASK_ID)
    config = DecodeConfig(L, L, "dual", top_j=2)
    policy = make_policy("static:1")
    layouts = [SequenceLayout.make(30, L, L, "dual")]
    engine = make_engine(denoiser, config, layouts, 2, 0)
    with pytest.raises(FloatingPointError):
        decode(denoiser, [7] * 30, policy, config, engine=engine)
    alone = decode(denoiser, [5, 6, 8], policy, config)
    assert decode(denoiser, [5, 6, 8], policy, config, engine=engine).tokens == alone.tokens


def test_padding_brings_nothing_that_is_not_there():
    """Neither prompt holds token 0, whose embedding is infinite; padding must not bring it in."""
    model = tiny_llama()
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = torch.inf
    denoiser = HuggingFaceDenoiser(model, MASK_ID)
    denoiser.__dict__["offers_slots"] = True  # the probe of the head looks at token 0, too
    policy = make_policy("static:1")
    prompts = [(0, [5, 6, 8]), (1, list(range(10, 25)))]
    for cache in ("dual", "prefix", "none", "block_causal"):
        config = DecodeConfig(L, 2 * L, cache, top_j=2)
        together = dict(decode_batch(denoiser, prompts, policy, config, random_formulas(1, 3), batch_size=2))
        for prompt_index, prompt in prompts:
            engine = RowEngine(denoiser, cache, "packed")
            assert together[prompt_index].tokens == decode(denoiser, prompt, policy, config, engine=engine).tokens


def gemma(**changes):
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=48, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, attn_implementation="eager", **changes,
    )  # fmt: skip
    return HuggingFaceDenoiser(Gemma2ForCausalLM(config), MASK_ID)


@pytest.mark.parametrize("cap,spread", [(2.0, 0.3), (30.0, 0.02)])  # the second hardly bends its small logits
def test_a_model_that_caps_its_logits_is_decoded_row_by_row(cap, spread):
    capped = gemma(final_logit_softcapping=cap, initializer_range=spread)
    layouts = [SequenceLayout.make(3, L, L, "dual")]
    assert not capped.offers_slots
    assert isinstance(make_engine(capped, CONFIG, layouts, 1, 0), RowEngine)
    assert tiny_denoiser().offers_slots
    assert len(decode(capped, [5, 6, 7], make_policy("static:1"), CONFIG).tokens) == 2 * L


def test_rotary_frequencies_that_depend_on_the_batch_are_decoded_row_by_row():
    model = tiny_llama()
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_type": "dynamic", "factor": 2.0}
    assert not HuggingFaceDenoiser(model, MASK_ID).offers_slots


class Waits(TorchDispatchMode):
    """Notes what makes the host wait for a device: scalars read, copies to the host, shapes that depend on data."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "repeat_interleave")
    METHODS = ("cpu", "numpy", "tolist")

    def __init__(self):
        super().__init__()
        self.seen, self.calls = [], 0

    def __enter__(self):
        self.patch = pytest.MonkeyPatch()
        for name in self.METHODS:
            self.patch.setattr(torch.Tensor, name, self.noting(name, getattr(torch.Tensor, name)))
        return super().__enter__()

    def __exit__(self, *error):
        self.patch.undo()
        return super().__exit__(*error)

    def noting(self, name, method):
        def noted(*args, **kwargs):
            self.seen.append(name)
            return method(*args, **kwargs)

        return noted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or any(name.startswith(wait) for wait in self.NAMES):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cache,backend", [("dual", "packed"), ("block_causal", "packed"), ("prefix", "expanded")])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_step_waits_for_nothing_but_the_ranks(cache, backend, shift):
    """Between the upload of the states and the download of the ranks nothing asks the device for a value."""
    denoiser = HuggingFaceDenoiser(tiny_denoiser().model, MASK_ID, shift)
    layouts = [SequenceLayout.make(len(prompt), 2 * L, L, cache) for _, prompt in PROMPTS]
    engine = SlotEngine(denoiser, cache, backend, 3, layouts, 2)
    sequences, starts, states = [], [], []
    for (prompt_index, prompt), layout in zip(PROMPTS, layouts, strict=True):
        sequences.append(np.array(prompt + [MASK_ID] * (layout.length - len(prompt))))
        starts.append(layout.block_starts[0])
        states.append(np.repeat(sequences[-1][None, starts[-1] : starts[-1] + L], 3, axis=0))
        engine.open(prompt_index, prompt_index, layout)
    engine.refresh([0, 1, 2], sequences, starts)
    engine.step([0, 1, 2], states)  # the first step after a refresh makes positions and mask
    with torch.inference_mode(), Waits() as waits:
        result = engine.step([0, 1, 2], states)
        result.rank(MASK_ID, 4)
    assert waits.calls > 50
    assert waits.seen == ["cpu", "numpy"]  # the ranks come back, once


def test_the_watch_sees_waits():
    with Waits() as waits:
        one = torch.arange(4)
        bool((one > 2).any())
        one[one > 2]
        one.cpu().tolist()
    assert waits.seen == ["_local_scalar_dense", "index", "cpu", "tolist"]
