"""Slots of transformers' models: heads that are more than a matrix, graphs of forwards, and waits for the device."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma2Config, Gemma2ForCausalLM

from calibrate.cuda_graphs import MAX_GRAPHS, GraphedForward
from calibrate.hugging_face import HuggingFaceDenoiser
from calibrate.slots import run_decoder
from tests.models import MASK_ID, random_formulas, tiny_denoiser
from verify.decode import DecodeConfig, decode, decode_batch, make_engine
from verify.engine import RowEngine
from verify.layout import SequenceLayout
from verify.policies import make_policy
from verify.slots import SlotEngine

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
        self.graphs = memory.graphs = GraphedForward(partial(run_decoder, self.model, memory), run_again)
        return memory


@pytest.mark.parametrize("context", ["dual", "prefix", "block_causal", "none"])
@pytest.mark.parametrize("shift", [0, 1])
def test_graphed_forwards_decode_the_same(context, shift):
    model = tiny_denoiser().model
    config = DecodeConfig(L, 2 * L, context, top_j=4)
    graph = random_formulas(3, 6)
    graphed = Graphed(model, MASK_ID, shift)
    policy = make_policy("static:1")
    plain = dict(decode_batch(HuggingFaceDenoiser(model, MASK_ID, shift), PROMPTS, policy, config, graph, batch_size=2))
    other = dict(decode_batch(graphed, PROMPTS, policy, config, graph, batch_size=2))
    for sample, _ in PROMPTS:
        assert other[sample].tokens == plain[sample].tokens
        assert other[sample].accepted == plain[sample].accepted
    assert graphed.graphs.captured >= 2  # several numbers of drafts, or of sequences
    assert graphed.graphs.replayed > graphed.graphs.captured


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
    for sample, _ in PROMPTS:
        assert other[sample].tokens == plain[sample].tokens
        assert other[sample].accepted == plain[sample].accepted
    assert not torch._dynamo.utils.counters["graph_break"]
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] < 8


def test_no_graphs_without_cuda():
    denoiser = HuggingFaceDenoiser(tiny_denoiser().model, MASK_ID, cuda_graphs=True)
    assert denoiser.make_slots(1, 16, 6).graphs is None


def test_what_cannot_be_captured_runs_as_it_is():
    def refuse(run, inputs):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    forward = GraphedForward(lambda one: one + 1, refuse)
    with pytest.warns(UserWarning, match="no CUDA graphs for this model: operation not permitted when stream is"):
        assert forward((), torch.tensor([1])).tolist() == [2]
    assert forward((), torch.tensor([5])).tolist() == [6]
    assert forward.captured == forward.replayed == 0


def test_old_graphs_are_dropped():
    forward = GraphedForward(lambda one: one * 2, run_again)
    for size in range(1, MAX_GRAPHS + 3):
        assert forward((), torch.ones(size)).sum() == 2 * size
    assert forward.captured == MAX_GRAPHS + 2
    forward((), torch.ones(MAX_GRAPHS + 2))
    assert forward.captured == MAX_GRAPHS + 2  # the newest was kept
    forward((), torch.ones(1))
    assert forward.captured == MAX_GRAPHS + 3  # the oldest was not


def test_a_model_that_caps_its_logits_is_decoded_row_by_row():
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=48, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.3, final_logit_softcapping=2.0,
        attn_implementation="eager",
    )  # fmt: skip
    capped = HuggingFaceDenoiser(Gemma2ForCausalLM(config), MASK_ID)
    layouts = [SequenceLayout.make(3, L, L, "dual")]
    assert not capped.offers_slots
    assert isinstance(make_engine(capped, CONFIG, layouts, 1, 0), RowEngine)
    assert tiny_denoiser().offers_slots
    assert len(decode(capped, [5, 6, 7], make_policy("static:1"), CONFIG).tokens) == 2 * L


class Waits(TorchDispatchMode):
    """Counts operations that make the host wait for a device: scalars read, shapes that depend on data."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "item")

    def __init__(self):
        super().__init__()
        self.seen, self.calls = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or any(name.startswith(wait) for wait in self.NAMES):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("context,backend", [("dual", "packed"), ("block_causal", "packed"), ("prefix", "expanded")])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_step_waits_for_nothing_but_the_ranks(context, backend, shift):
    """Between the upload of the states and the download of the ranks nothing asks the device for a value."""
    denoiser = HuggingFaceDenoiser(tiny_denoiser().model, MASK_ID, shift)
    layouts = [SequenceLayout.make(len(prompt), 2 * L, L, context) for _, prompt in PROMPTS]
    engine = SlotEngine(denoiser, context, backend, 3, layouts, 2)
    sequences, starts, states = [], [], []
    for (sample, prompt), layout in zip(PROMPTS, layouts, strict=True):
        sequences.append(np.array(prompt + [MASK_ID] * (layout.length - len(prompt))))
        starts.append(layout.block_starts[0])
        states.append(np.repeat(sequences[-1][None, starts[-1] : starts[-1] + L], 3, axis=0))
        engine.open(sample, sample, layout)
    engine.refresh([0, 1, 2], sequences, starts)
    engine.step([0, 1, 2], states)  # the first step after a refresh makes positions and mask
    with torch.inference_mode(), Waits() as waits:
        result = engine.step([0, 1, 2], states)
        result.rank(MASK_ID, 4)
    assert waits.calls > 50
    assert waits.seen == []


def test_the_watch_sees_waits():
    with Waits() as waits:
        one = torch.arange(4)
        bool((one > 2).any())
        one[one > 2]
    assert waits.seen == ["_local_scalar_dense", "index"]
