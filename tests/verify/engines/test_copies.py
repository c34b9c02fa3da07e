"""Copies: the next block's refresh in a step forward, held until the block ends, and states of the next block on it."""

import numpy as np
import pytest
import torch

from calibrate.models.hugging_face import HuggingFaceDenoiser
from tests.support.models import MASK_ID, tiny_denoiser, tiny_llama
from verify.engines.contract import EngineError
from verify.engines.copy_rows import CopyingRowEngine
from verify.engines.copy_slots import CopyingSlotEngine
from verify.engines.rows import RowEngine
from verify.engines.slots import SlotEngine
from verify.layout import SequenceLayout

L = 4
PROMPTS = [[5, 9, 11, 13, 15], [7], list(range(3, 14))]
EMPTY = np.full(L, MASK_ID)
PARTLY = np.array([MASK_ID, 9, MASK_ID, 8])
ENDS = np.array([[20, 21, 22, 23], [30, 31, 32, 33]])
NONE = np.zeros((0, 2, L), dtype=np.int64)


def pairs(end, *states):
    return np.stack([[end, state] for state in states])


class Stage:
    """Three sequences whose first blocks have begun, in an engine with copies and in one without."""

    def __init__(self, kind, backend, denoiser=None):
        denoiser = denoiser or tiny_denoiser()
        self.layouts = [SequenceLayout.make(len(prompt), 3 * L, L, "dual") for prompt in PROMPTS]
        if kind == "rows":
            self.copying = CopyingRowEngine(denoiser, "dual", backend)
            self.plain = RowEngine(denoiser, "dual", backend)
        else:
            self.copying = CopyingSlotEngine(denoiser, "dual", backend, 3, self.layouts, 3, 2)
            self.plain = SlotEngine(denoiser, "dual", backend, 3, self.layouts, 3)
        self.starts = [layout.block_starts[0] for layout in self.layouts]
        self.tokens = []
        for slot, (prompt, layout) in enumerate(zip(PROMPTS, self.layouts, strict=True)):
            whole = np.full(layout.length, MASK_ID)
            whole[: len(prompt)] = prompt
            self.tokens.append(whole)
            for engine in (self.copying, self.plain):
                engine.open(slot, slot, layout)
        self.refreshed = [engine.refresh([0, 1, 2], self.tokens, self.starts) for engine in (self.copying, self.plain)]

    def finish(self, slot, end):
        """The block of ``slot`` ends as ``end``; the plain engine refreshes the next one, the other one crosses."""
        self.tokens[slot][self.starts[slot] : self.starts[slot] + L] = end
        self.starts[slot] += L
        self.copying.cross(slot, self.tokens[slot], self.starts[slot])
        return self.plain.refresh([slot], [self.tokens[slot]], [self.starts[slot]])


def part(result, slot, unit):
    """Logits of the wanted rows of one unit of a slot."""
    own = slice(result.bounds[slot], result.bounds[slot + 1])
    return result.logits[own][torch.from_numpy(result.unit[own] == unit)]


def close(one, other):
    assert len(one)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("backend", ["packed", "expanded"])
@pytest.mark.parametrize("kind", ["rows", "slots"])
def test_a_copy_is_the_refresh_that_it_saves(kind, backend):
    """Slot 0 goes on behind its copy before it crosses, slot 1 replaces its copy, slot 2 has none."""
    stage = Stage(kind, backend)
    close(stage.refreshed[0].logits, stage.refreshed[1].logits)
    drafts = [np.stack([EMPTY, PARTLY, np.array([2, MASK_ID, 3, 4])]), EMPTY[None], np.stack([EMPTY, PARTLY])]
    first = stage.copying.step([0, 1, 2], drafts, [pairs(ENDS[0], EMPTY), pairs(ENDS[1], EMPTY), NONE])
    plain = stage.plain.step([0, 1, 2], drafts)
    units = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]
    for slot, unit in units:  # bridges change nothing for root and drafts
        close(part(first, slot, unit), part(plain, slot, unit))
    close(stage.copying.step([0, 1, 2], drafts).logits, plain.logits)  # nor does a copy that is held
    second = stage.copying.step([0, 1, 2], drafts, [pairs(ENDS[0], PARTLY, drafts[0][2]), pairs(ENDS[0], EMPTY), NONE])
    for slot, unit in units:
        close(part(second, slot, unit), part(plain, slot, unit))
    # What a refresh computes at the next block is what the copies computed, and so are states behind it.
    close(part(first, 0, 3), stage.finish(0, ENDS[0]).logits)
    close(part(second, 1, 1), stage.finish(1, ENDS[0]).logits)
    for _ in range(2):
        one, other = (engine.step([0, 1, 2], drafts) for engine in (stage.copying, stage.plain))
        close(one.logits, other.logits)
        assert one.query_tokens == other.query_tokens
    close(part(second, 0, 3), part(other, 0, 1))
    close(part(second, 0, 4), part(other, 0, 2))
    # And once more, from a block that began without a refresh.
    third = stage.copying.step([0, 1, 2], drafts, [pairs(ENDS[1], EMPTY), NONE, NONE])
    close(part(third, 0, 3), stage.finish(0, ENDS[1]).logits)


@pytest.mark.parametrize("kind", ["rows", "slots"])
def test_a_held_copy_moves_with_its_sequence(kind):
    stage = Stage(kind, "packed")
    stage.copying.step([0, 1, 2], [EMPTY[None]] * 3, [NONE, NONE, pairs(ENDS[0], EMPTY)])
    for engine in (stage.copying, stage.plain):
        engine.move(2, 0)
    stage.tokens[0], stage.starts[0] = stage.tokens[2], stage.starts[2]
    stage.finish(0, ENDS[0])
    one, other = (engine.step([0, 1], [EMPTY[None]] * 2) for engine in (stage.copying, stage.plain))
    close(one.logits, other.logits)


@pytest.mark.parametrize("kind", ["rows", "slots"])
@pytest.mark.parametrize("backend", ["packed", "expanded"])
def test_a_copy_costs_the_sequence_once_and_states_behind_it_a_block_each(kind, backend):
    stage = Stage(kind, backend)
    drafts = [np.stack([EMPTY, PARTLY]), EMPTY[None], EMPTY[None]]
    for states, wanted, paid in (
        ([EMPTY], True, stage.layouts[0].length),
        ([PARTLY], False, L),
        ([PARTLY, EMPTY], False, 2 * L),
    ):
        found = stage.copying.step([0, 1, 2], drafts, [pairs(ENDS[0], *states), NONE, NONE])
        assert found.query_tokens == [2 * L + paid, L, L]
        layout, start = stage.layouts[0], stage.starts[0]
        assert found.query_tokens[0] == layout.step_query_tokens("dual", backend, start, 1, len(states), 0, wanted)


@pytest.mark.parametrize("kind", ["rows", "slots"])
def test_what_no_copy_is_held_of_is_refused(kind):
    stage = Stage(kind, "packed")
    blocks = [EMPTY[None]] * 3

    def step(*bridges):
        return stage.copying.step([0, 1, 2], blocks, [np.concatenate(bridges), NONE, NONE])

    with pytest.raises(EngineError, match="bridges behind several blocks; a sequence holds one copy"):
        step(pairs(ENDS[0], EMPTY), pairs(ENDS[1], EMPTY))
    with pytest.raises(
        EngineError, match="1 bridges behind a block that no copy is held of; expected one, to a masked"
    ):
        step(pairs(ENDS[0], PARTLY))
    with pytest.raises(EngineError, match="2 bridges behind a block that no copy is held of"):
        step(pairs(ENDS[0], EMPTY, PARTLY))
    with pytest.raises(EngineError, match="slot 0 begins the block at 9 without a refresh, but holds no copy of it"):
        stage.copying.cross(0, stage.tokens[0], 9)
    step(pairs(ENDS[0], EMPTY))
    stage.copying.refresh([0], [stage.tokens[0]], [5])  # drops it
    with pytest.raises(EngineError, match="no copy is held of"):
        step(pairs(ENDS[0], PARTLY))
    stage.copying.refresh([0], [stage.tokens[0]], [stage.layouts[0].length - L])
    with pytest.raises(EngineError, match="a bridge from the last block of a sequence"):
        step(pairs(ENDS[0], EMPTY))


def test_an_engine_says_what_it_needs_for_copies():
    layout = SequenceLayout.make(4, 2 * L, L, "dual")
    shifted = HuggingFaceDenoiser(tiny_llama(), MASK_ID, logits_shift=1)
    for denoiser, cache in ((shifted, "dual"), (tiny_denoiser(), "block_causal")):
        match = rf"copies need the cache mode dual and a denoiser that offers them .*, got {cache} and a HuggingFace"
        with pytest.raises(EngineError, match=match):
            CopyingRowEngine(denoiser, cache, "packed")
        with pytest.raises(EngineError, match=match):
            CopyingSlotEngine(denoiser, cache, "packed", 1, [layout], 2, 2)
    denoiser = tiny_denoiser()
    engine = CopyingSlotEngine(denoiser, "dual", "packed", 1, [layout], 2, 1)
    with pytest.raises(EngineError, match=r"up to 2 drafts and 2 bridges at an anchor, but .* at most 2 and 1"):
        engine.check(denoiser, "dual", "packed", 2, 2)
    with pytest.raises(
        EngineError, match="up to 2 bridges in cache mode dual, but the engine has them in block_causal"
    ):
        RowEngine(denoiser, "dual", "packed").check(denoiser, "dual", "packed", 2, 2)
