"""Trace-driven decodes: the recorded tokens and replay's forwards, whatever model is run beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trace_driven import TraceDrivenEngine, recorded_config
from calibrate.models.checkpoint import load_checkpoint
from calibrate.models.shapes import LLADA_TINY, SDAR_TINY
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.traces.table import TraceError, Traces
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.chain import confidence_chain
from drafting.searches.greedy import greedy
from drafting.searches.published import published
from drafting.trie import PrefixTrie
from tests.support.models import random_formulas
from verify.decoding import DecodeConfig, decode_batch, make_engine
from verify.engines.contract import Engine
from verify.engines.rows import RowEngine
from verify.graph.formulas import Formula
from verify.layout import SequenceLayout
from verify.policies.specification import make_policy

CASES = [("static:1", "dual"), ("static:2", "block_causal"), ("threshold:0.7", "dual"), ("threshold:0.9", "dual")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Traces]:
    """The bundled model on three prompts, under every case."""
    checkpoint = load_checkpoint("bundled")
    texts = load_prompt_set("bundled", "calibration", 3)
    prompts = encode_prompts(texts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)
    made = {}
    for number, (policy, cache) in enumerate(CASES):
        config = DecodeConfig(32, 64, cache, end_token_ids=checkpoint.end_token_ids)
        folder = tmp_path_factory.mktemp("traces") / str(number)
        made[policy, cache] = record(checkpoint, prompts, make_policy(policy), config, folder)
    return made


def graphs(traces: Traces, step_size: int | None) -> dict[str, Sequence[Formula]]:
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, max_depth=None))
    return {
        "plain": (),
        "chain": confidence_chain(6, 32, step_size).nodes,
        "greedy": greedy(trie, 10).nodes,
        "published": published(trie, 6, step_size=step_size).nodes,
        "random": random_formulas(3, 12, step_size),
    }


def follows(engine: TraceDrivenEngine, traces: Traces, length: int, nodes: Sequence[Formula], batch: int = 1) -> int:
    """Decode every prompt and hold tokens and forwards against the trace; returns the forwards."""
    predicted = replay(nodes, AnchorTable.from_traces(traces, max_depth=None))
    written = traces.committed_blocks()
    prompts = [
        (int(prompt_index), engine.prompt(int(prompt_index), length)) for prompt_index in predicted.prompt_indices
    ]
    policy = make_policy(traces.metadata["policy"])
    results = dict(decode_batch(engine, prompts, policy, engine.config, nodes, batch_size=batch, engine=engine))
    for prompt_index, forwards in zip(
        predicted.prompt_indices.tolist(), predicted.forwards_per_prompt.tolist(), strict=True
    ):
        blocks = [written[key] for key in sorted(written) if key[0] == prompt_index]
        assert results[prompt_index].tokens == [token for block in blocks for _, token in sorted(block.items())]
        assert results[prompt_index].forwards == forwards
    return predicted.forwards


@pytest.mark.parametrize("case", CASES)
def test_without_a_model_replay_is_counted(recorded: dict[tuple[str, str], Traces], case: tuple[str, str]) -> None:
    traces = recorded[case]
    engine = TraceDrivenEngine(traces, None, mask_token_id=999, vocabulary_size=1000)
    counted = {
        name: follows(engine, traces, 40, nodes, batch=2)
        for name, nodes in graphs(traces, make_policy(case[0]).step_size).items()
    }
    assert counted["greedy"] < counted["plain"]
    assert engine.unreached > 0 and engine.reached > counted["plain"] and engine.seconds > 0


@pytest.mark.parametrize(
    ("case", "shape", "backend", "batch", "slots"),
    [
        (("static:1", "dual"), LLADA_TINY, "packed", 1, False),
        (("static:1", "dual"), LLADA_TINY, "expanded", 2, True),
        (("threshold:0.7", "dual"), LLADA_TINY, "packed", 3, True),
        (("static:2", "block_causal"), SDAR_TINY, "packed", 2, True),
    ],
)
def test_a_model_pays_and_the_trace_decides(
    recorded: dict[tuple[str, str], Traces], case: tuple[str, str], shape, backend: str, batch: int, slots: bool
) -> None:
    traces, denoiser = recorded[case], shape.make(dtype="bfloat16").denoiser
    inner: Engine = RowEngine(denoiser, case[1], backend)
    if slots:
        layouts = [SequenceLayout.make(96, 64, 32, case[1])]
        inner = make_engine(denoiser, recorded_config(traces, backend), layouts, batch, 10)
    engine = TraceDrivenEngine(
        traces, inner, mask_token_id=shape.mask_token_id, vocabulary_size=denoiser.vocabulary_size
    )
    engine.config = recorded_config(traces, backend)
    nodes = graphs(traces, make_policy(case[0]).step_size)
    saved = follows(engine, traces, 50, (), batch) - follows(engine, traces, 50, nodes["greedy"], batch)
    assert saved > 0


def test_a_slot_that_moves_keeps_its_sample(recorded: dict[tuple[str, str], Traces]) -> None:
    """Three prompts that end at different times, so that slots are closed up."""
    traces = recorded["threshold:0.9", "dual"]
    engine = TraceDrivenEngine(traces, None, mask_token_id=999, vocabulary_size=1000)
    moved = []
    move = engine.move

    def noted(source: int, target: int) -> None:
        moved.append((source, target))
        move(source, target)

    engine.move = noted  # type: ignore[method-assign]
    follows(engine, traces, 40, (), batch=3)
    assert moved


def test_probabilities_come_back(recorded: dict[tuple[str, str], Traces]) -> None:
    """The ranks of the loop see the recorded probabilities, to float32."""
    traces = recorded["threshold:0.9", "dual"].select([1])
    engine = TraceDrivenEngine(traces, None, mask_token_id=999, vocabulary_size=1000)
    seen = []

    class Observer:
        def on_step(self, fact) -> None:
            seen.append(fact)

    prompts = [(1, engine.prompt(1, 20))]
    list(decode_batch(engine, prompts, make_policy("threshold:0.9"), engine.config, observer=Observer(), engine=engine))
    assert len(seen) == traces.n_steps
    assert np.array_equal(np.concatenate([fact.masked_position for fact in seen]), traces.masked_position)
    assert np.array_equal(np.concatenate([fact.top_token for fact in seen]), traces.top_token)
    probability = np.concatenate([fact.top_probability for fact in seen])
    assert np.abs(probability - traces.top_probability).max() < 2e-6


def test_order_beyond_float32_is_brought_back(recorded: dict[tuple[str, str], Traces]) -> None:
    """Recorded probabilities that are equal in float32, at positions in descending order: the order is a fact."""
    traces = recorded["static:1", "dual"]
    flat = traces.top_probability.copy()
    flat[:] = flat[0]
    same = replace(traces, top_probability=flat)
    engine = TraceDrivenEngine(same, None, mask_token_id=999, vocabulary_size=1000)
    follows(engine, same, 40, ())


def test_what_cannot_drive_is_refused(recorded: dict[tuple[str, str], Traces], tmp_path: Path) -> None:
    traces = recorded["static:1", "dual"]
    for change, message in (
        ({"mask_token_id": int(traces.top_token[0, 0]), "vocabulary_size": 1000}, "which is the mask of the model"),
        ({"mask_token_id": 5, "vocabulary_size": 6}, "beyond the model's vocabulary of 6"),
    ):
        with pytest.raises(TraceError, match=message):
            TraceDrivenEngine(traces, None, **change)
    warm = replace(traces, metadata={**traces.metadata, "temperature": 0.5})
    with pytest.raises(TraceError, match=r"recorded at temperature 0\.5"):
        recorded_config(warm)
    with pytest.raises(TraceError, match="lack a fact of their run"):
        recorded_config(replace(traces, metadata={}))
    engine = TraceDrivenEngine(traces, None, mask_token_id=999, vocabulary_size=1000)
    with pytest.raises(TraceError, match="hold no prompt number 77"):
        list(decode_batch(engine, [(77, [1])], make_policy("static:1"), engine.config, engine=engine))
