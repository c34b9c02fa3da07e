"""Predicted memory: terms by hand, the largest that fits, and the one message when nothing does."""

from __future__ import annotations

import re

import pytest
import torch

from calibrate.measuring.memory import (
    GIB,
    Load,
    ModelSizes,
    device_memory,
    explained,
    is_out_of_memory,
    largest_batch,
    largest_drafts,
    out_of_memory_message,
    predict_memory,
)
from calibrate.models.shapes import LLADA_8B, LLADA_TINY, SDAR_8B
from verify.decoding import DecodeConfig, decode_batch, make_engine
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.engines.slots import SlotEngine
from verify.layout import BACKENDS, CACHE_MODES, SequenceLayout
from verify.policies.specification import make_policy

LLADA = ModelSizes.of_config(LLADA_8B.native(), 8_015_581_184, 2, "cuda")
SDAR = ModelSizes.of_config(SDAR_8B.native(), 8_190_735_360, 2, "cuda")


def test_what_is_held_by_hand() -> None:
    held = predict_memory(LLADA, Load(batch=4, context_length=1000, drafts=10)).held
    rows = 1008 + 32 * 11  # cached columns come in sixteens
    assert held["weights"] == 2 * 8_015_581_184
    assert held["keys and values"] == 2 * 32 * 4 * rows * 4096 * 2
    assert held["mask of a step"] == 4 * 352 * rows * 2
    # Four times fewer key heads, four more layers.
    grouped = predict_memory(SDAR, Load(batch=4, context_length=1000, drafts=10, cache="block_causal")).held
    assert grouped["keys and values"] == 2 * 36 * 4 * rows * 1024 * 2


def test_logits_and_ranking_of_a_step() -> None:
    plan = predict_memory(LLADA, Load(drafts=10))
    logits = (352 - 10) * 126464
    assert plan.moments["logits and ranking of a step"] == 2 * logits + 16 * 265 * 126464  # in two goes
    assert plan.peak == sum(plan.held.values()) + max(plan.moments.values())
    assert plan.widest in plan.sentence() and "weights 14.93 GiB" in plan.sentence()


def test_an_8b_model_on_a_card_of_80_gib() -> None:
    load = Load(batch=16, context_length=4096, drafts=10)
    fits = largest_drafts(LLADA, load, 80 * GIB)
    assert fits is not None
    peaks = [predict_memory(LLADA, Load(16, 4096, drafts)).peak for drafts in (fits, fits + 1)]
    assert peaks[0] <= 80 * GIB < peaks[1]
    batch = largest_batch(LLADA, load, 40 * GIB)
    assert batch is not None
    peaks = [predict_memory(LLADA, Load(size, 4096, 10)).peak for size in (batch, batch + 1)]
    assert peaks[0] <= 40 * GIB < peaks[1]
    assert largest_drafts(LLADA, load, 10 * GIB) is None and largest_batch(LLADA, load, 10 * GIB) is None


@pytest.mark.parametrize(
    ("load", "available", "said"),
    [
        (Load(16, 4096, 200), 80 * GIB, r"The largest budget that fits at batch 16 is D = \d+, the largest batch with"),
        (Load(16, 4096, 0), 20 * GIB, r"No budget fits at batch 16; the largest batch that fits is \d+\."),
        (Load(1, 256, 500), 16 * GIB, r"The largest budget that fits is D = \d+; no batch fits with D = 500\."),
        (Load(1, 256, 0), 10 * GIB, "Not even plain decoding of one sequence fits"),
        (Load(1, 256, 1), 80 * GIB, "This should fit: see what else uses the device"),
    ],
)
def test_the_message(load: Load, available: int, said: str) -> None:
    message = out_of_memory_message(LLADA, load, available)
    assert f"out of memory with D = {load.drafts} drafts, batch {load.batch} and context" in message
    assert "weights 14.93 GiB" in message
    assert re.search(said, message), message


@pytest.mark.parametrize("bridges", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cache", CACHE_MODES)
def test_the_load_of_a_decode_is_what_its_engine_makes_room_for(cache: str, backend: str, bridges: bool) -> None:
    denoiser = LLADA_TINY.make(dtype="float32").denoiser
    config = DecodeConfig(8, 24, cache, backend)
    prompts = [(k, list(range(5 + 6 * k))) for k in range(3)]
    layouts = [SequenceLayout.make(len(prompt), 24, 8, cache) for _, prompt in prompts]
    engine = make_engine(denoiser, config, layouts, 2, 3, 3 if bridges else 0)
    assert isinstance(engine, SlotEngine)
    drafter = (
        InformedDrafter(3, InformedSettings(copies=True))
        if bridges
        else GraphDrafter([((1, 1),), ((2, 1),), ((1, 2),)])
    )
    list(decode_batch(denoiser, prompts, make_policy("static:4"), config, drafter, batch_size=2, engine=engine))
    load = Load.of_decode(config, [len(prompt) for _, prompt in prompts], 2, 3, bridges=bridges)
    assert (load.batch, load.step_rows) == (2, engine.live_rows)
    held = predict_memory(ModelSizes.of_denoiser(denoiser), load).held
    assert held["keys and values"] == engine.memory.bytes > 0
    assert Load.of_decode(config, [], 4, 1).batch == 1


def test_a_budget_of_bridges_is_a_budget_of_wider_forwards() -> None:
    """Every draft may be a bridge of two blocks, the second of them masked whole."""
    load = Load(drafts=10, cache="block_causal", bridges=True)
    assert load.step_rows == 32 * (1 + 1 + 10 + 2 * 10) and load.ranked_rows == 32 * 11
    without = Load(drafts=10, cache="block_causal")
    assert without.step_rows == 32 * 11 and without.ranked_rows == 32 * 11 - 10
    few, many = (
        largest_drafts(SDAR, Load(16, 4096, cache="block_causal", bridges=bridges), 60 * GIB)
        for bridges in (True, False)
    )
    assert few and many and few < 0.6 * many


def test_errors_are_explained() -> None:
    denoiser = LLADA_TINY.make(dtype="float32").denoiser
    for error in (torch.OutOfMemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        assert is_out_of_memory(error)
        with (
            pytest.raises(MemoryError, match="out of memory with D = 4 drafts, batch 2 and context 64"),
            explained(denoiser, Load(2, 64, 4)),
        ):
            raise error
    with pytest.raises(RuntimeError, match="shapes"), explained(denoiser, Load()):
        raise RuntimeError("shapes differ")
    with pytest.raises(torch.OutOfMemoryError), explained(object(), Load()):
        raise torch.OutOfMemoryError("sizes of this one are not known")
    with explained(denoiser, Load()):
        pass
    assert device_memory("cpu") > 2**28


def test_a_real_allocation_that_fails() -> None:
    """What the CPU's allocator says today is recognised."""
    denoiser = LLADA_TINY.make(dtype="float32").denoiser
    with pytest.raises(MemoryError, match="out of memory with D = 1"), explained(denoiser, Load(1, 8, 1, 8)):
        torch.empty(2**55, dtype=torch.uint8)
