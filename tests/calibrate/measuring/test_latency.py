"""Measured latency: which forwards are timed, what is kept when memory ends, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from calibrate.measuring.latency import device_name, measure_latency
from calibrate.measuring.latency_table import LatencyError
from calibrate.measuring.stage import Stage
from calibrate.models.checkpoint import Checkpoint
from calibrate.models.hugging_face import HuggingFaceDenoiser
from calibrate.models.shapes import LLADA_TINY, SDAR_TINY
from figures.records.latency import load_latency
from figures.records.record import save_record
from tests.support.models import END_ID, MASK_ID, tiny_llama
from verify.engines.rows import RowEngine
from verify.engines.slots import SlotEngine
from verify.graph.values import check_latency

SIZES = {"block_length": 8, "context_length": 12, "warmup": 1, "repeats": 3}


@pytest.mark.parametrize(("threads", "expected"), [(1, ", 1 thread"), (2, ", 2 threads")])
def test_a_processor_is_named_with_its_threads(monkeypatch: pytest.MonkeyPatch, threads: int, expected: str) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device_name(torch.device("cpu")).endswith(expected)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    denoiser = HuggingFaceDenoiser(tiny_llama(3), MASK_ID)
    return Checkpoint("tiny", None, denoiser, None, (END_ID,), 8, (), "float32")


def test_measured_table_round_trip_and_graph_section(checkpoint: Checkpoint, tmp_path: Path) -> None:
    found = measure_latency(checkpoint, drafts=(0, 2, 5), batch=2, **SIZES)  # type: ignore[arg-type]
    assert found.query_tokens == (16, 48, 96) and found.drafts == (0, 2, 5)
    assert all(low <= middle <= high for low, middle, high in zip(found.low, found.latency, found.high, strict=True))
    assert found.refresh > 0 and found.unit == "ms"
    assert (found.engine, found.cache, found.context_length, found.repeats) == ("slots", "dual", 12, 3)
    save_record(found, tmp_path / "latency.json")
    assert load_latency(tmp_path / "latency.json") == found
    check_latency(found.graph_section())
    with pytest.raises(LatencyError, match=r"no latency was measured for 3 drafts, only for \[0, 2, 5\]"):
        found.at(3)


@pytest.mark.parametrize("backend", ["packed", "expanded"])
@pytest.mark.parametrize("engine", ["slots", "rows"])
def test_every_measured_forward_has_the_rows_it_says(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, backend: str, engine: str
) -> None:
    seen: list[int] = []
    decoder = checkpoint.denoiser.model.get_decoder()
    inner = decoder.forward

    def spy(*args: object, **kwargs: object) -> object:
        seen.append(kwargs["input_ids"].numel())  # type: ignore[attr-defined]
        return inner(*args, **kwargs)

    monkeypatch.setattr(decoder, "forward", spy)
    found = measure_latency(checkpoint, drafts=(0, 3), batch=2, backend=backend, engine=engine, **SIZES)  # type: ignore[arg-type]
    calls = 1 if engine == "slots" else 2  # the engine of rows calls the model once per sequence
    probe = {2}  # the question whether the model offers slots
    assert found.engine == engine
    assert set(seen) - probe == {2 * (12 + 8) // calls, *(rows // calls for rows in found.query_tokens)}


def test_block_causal_refreshes_are_of_the_last_and_the_new_block(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = SDAR_TINY.make(dtype="float32")
    rows: list[int] = []
    forward = HuggingFaceDenoiser.forward_slots

    def spy(self, memory, given):
        rows.append(given.tokens.shape[1])
        return forward(self, memory, given)

    monkeypatch.setattr(HuggingFaceDenoiser, "forward_slots", spy)
    stage = Stage(checkpoint, 8, 30, 2, "packed", 3)
    stage.refresh()
    stage.step(3)
    assert stage.cache == "block_causal" and stage.context_length == 32
    assert rows == [32, 16, 8, 32]  # first block with the prompt; last and new block; the masks; block and drafts
    single = Stage(checkpoint, 8, 8, 1, "packed", 0)
    single.refresh()
    assert single.context_length == 8


def test_the_states_of_a_step(checkpoint: Checkpoint) -> None:
    stage = Stage(checkpoint, 8, 12, 3, "packed", 9)
    states = stage.states(9, 4)
    masked = np.stack(states) == MASK_ID
    assert masked[:, 0].sum(axis=1).tolist() == [4] * 3  # half of the block
    assert (masked[:, 1:].sum(axis=2) == 3).all()
    assert not np.array_equal(states[0], states[1])
    assert isinstance(stage.engine, SlotEngine)
    assert isinstance(Stage(checkpoint, 8, 12, 1, "packed", 1, "rows").engine, RowEngine)


@pytest.mark.parametrize(
    "change",
    [{"repeats": 1}, {"context_length": 0}, {"batch": 0}, {"drafts": (-1,)}, {"backend": "x"}, {"engine": "x"}],
)
def test_measurement_refuses_nonsense(checkpoint: Checkpoint, change: dict[str, object]) -> None:
    with pytest.raises(LatencyError, match=r"must be at least|unknown"):
        measure_latency(checkpoint, **change)  # type: ignore[arg-type]


def test_a_time_limit_ends_the_rounds(checkpoint: Checkpoint) -> None:
    found = measure_latency(checkpoint, drafts=(1,), block_length=8, context_length=12, repeats=500, seconds=0.0)
    assert found.repeats == 3 and found.drafts == (0, 1)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_what_fits_into_memory_is_kept(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    step = SlotEngine.step

    def limited(self: SlotEngine, slots, states):
        if len(states[0]) > 3:
            raise error
        return step(self, slots, states)

    monkeypatch.setattr(SlotEngine, "step", limited)
    found = measure_latency(checkpoint, drafts=(1, 2, 4, 8), **SIZES)  # type: ignore[arg-type]
    assert found.drafts == (0, 1, 2) and found.query_tokens == (8, 16, 24)
    assert len(found.latency) == len(found.low) == len(found.high) == 3
    assert found.note == (
        "4 drafts do not fit into the device's memory at batch 1, context 12, block length 8; the largest measured "
        "number that fits is 2"
    )


def test_buffers_that_do_not_fit_are_made_for_fewer_drafts(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = HuggingFaceDenoiser.make_slots

    def limited(self, slots: int, cached_rows: int, live_rows: int):
        if live_rows > 24:
            raise torch.OutOfMemoryError("out")
        return make(self, slots, cached_rows, live_rows)

    monkeypatch.setattr(HuggingFaceDenoiser, "make_slots", limited)
    found = measure_latency(checkpoint, drafts=(1, 2, 4, 8), **SIZES)  # type: ignore[arg-type]
    assert found.drafts == (0, 1, 2) and "4 drafts do not fit" in found.note  # the most that fit, not half of all


def test_a_plain_forward_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = LLADA_TINY.make(dtype="float32")

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("out")

    monkeypatch.setattr(SlotEngine, "refresh", full)
    message = "not even plain decoding fits into the device's memory: out of memory with D = 0 drafts, batch 3 and"
    with pytest.raises(MemoryError, match=message):
        measure_latency(checkpoint, block_length=8, context_length=12, batch=3)

    def broken(*_: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(SlotEngine, "refresh", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        measure_latency(checkpoint, block_length=8, context_length=12)
