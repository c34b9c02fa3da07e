"""Bridges: a block as it may end with a state of the next one behind it, and a block that begins without its
refresh.
"""

import numpy as np
import pytest
import torch

from calibrate.models.hugging_face import HuggingFaceDenoiser
from tests.support.models import MASK_ID, tiny_denoiser, tiny_llama
from verify.engines.contract import EngineError
from verify.engines.rows import RowEngine
from verify.engines.slots import SlotEngine
from verify.layout import SequenceLayout

L = 4
PROMPTS = [[5, 9, 11, 13, 15], [7], list(range(3, 14))]
CACHE = "block_causal"


def shifted(seed=3):
    return HuggingFaceDenoiser(tiny_llama(seed), MASK_ID, logits_shift=1)


def made(kind, denoiser, backend, layouts):
    if kind == "rows":
        return RowEngine(denoiser, CACHE, backend)
    return SlotEngine(denoiser, CACHE, backend, len(layouts), layouts, 3, 2)


def part(result, slot, unit):
    """Logits of the wanted rows of one unit of a slot."""
    own = slice(result.bounds[slot], result.bounds[slot + 1])
    return result.logits[own][torch.from_numpy(result.unit[own] == unit)]


def close(one, other):
    assert len(one)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("backend", ["packed", "expanded"])
@pytest.mark.parametrize("kind", ["rows", "slots"])
@pytest.mark.parametrize("model", [tiny_denoiser, shifted], ids=["plain", "shifted"])
def test_a_bridge_is_the_refresh_that_it_saves(model, kind, backend):
    """The first distribution behind a bridge, and all that follows, are those that a refresh forward leads to.

    Three sequences: one with two bridges and two drafts, one with a bridge that is crossed, one with neither.
    """
    denoiser = model()
    layouts = [SequenceLayout.make(len(prompt), 3 * L, L, CACHE) for prompt in PROMPTS]
    crossing, refreshing = (made(kind, denoiser, backend, layouts) for _ in range(2))
    rng = np.random.default_rng(1)
    tokens, starts = [], [layout.block_starts[0] for layout in layouts]
    for slot, (prompt, layout) in enumerate(zip(PROMPTS, layouts, strict=True)):
        whole = np.full(layout.length, MASK_ID)
        whole[: len(prompt)] = prompt
        tokens.append(whole)
        for engine in (crossing, refreshing):
            engine.open(slot, slot, layout)
    for engine in (crossing, refreshing):
        engine.refresh([0, 1, 2], tokens, starts)
    blocks = [whole[start : start + L] for whole, start in zip(tokens, starts, strict=True)]
    ends = [np.where(block == MASK_ID, rng.integers(3, 40, L), block) for block in blocks]
    partly = np.array([MASK_ID, 9, MASK_ID, 8])
    empty = np.full(L, MASK_ID)
    drafts = [np.repeat(blocks[0][None], 3, axis=0), blocks[1][None], blocks[2][None]]
    drafts[0][1:, -1] = 20, 21
    bridges = [
        np.stack([[ends[0], partly], [ends[0], empty]]),
        np.stack([[ends[1], empty]]),
        np.zeros((0, 2, L), dtype=np.int64),
    ]
    found = crossing.step([0, 1, 2], drafts, bridges)
    plain = refreshing.step([0, 1, 2], drafts)
    for slot, units in enumerate(([0, 1, 2], [0], [0])):  # bridges change nothing for root and drafts
        for unit in units:
            close(part(found, slot, unit), part(plain, slot, unit))
    # What a refresh computes at the next block is what the bridge computed.
    for slot in (0, 1):
        tokens[slot][starts[slot] : starts[slot] + L] = ends[slot]
        starts[slot] += L
    fresh = refreshing.refresh([0, 1], tokens[:2], starts[:2])
    close(part(found, 0, 4), part(fresh, 0, 0))
    close(part(found, 1, 1), part(fresh, 1, 0))
    for slot in (0, 1):
        crossing.cross(slot, tokens[slot], starts[slot])
    # The first step carries the finished block along, the second stands on it; with bridges again.
    states = [
        np.stack([partly, np.where(partly == MASK_ID, [30, 0, MASK_ID, 0], partly)]),
        empty[None],
        blocks[2][None],
    ]
    for _ in range(2):
        pairs = [np.stack([[np.array([6, 9, 7, 8]), empty]]), np.stack([[ends[1], partly]]), bridges[2]]
        one, other = crossing.step([0, 1, 2], states, pairs), refreshing.step([0, 1, 2], states, pairs)
        close(one.logits, other.logits)
    # A bridged state that is not empty is what a step behind the refresh computes.
    close(part(found, 0, 3), part(other, 0, 0))


@pytest.mark.parametrize("kind", ["rows", "slots"])
def test_what_is_carried_is_paid_once(kind):
    denoiser = tiny_denoiser()
    layout = SequenceLayout.make(4, 3 * L, L, CACHE)
    engine = made(kind, denoiser, "packed", [layout])
    whole = np.full(layout.length, MASK_ID)
    whole[:4] = 5, 6, 7, 8
    engine.open(0, 0, layout)
    engine.refresh([0], [whole], [4])
    block, end = whole[None, 4:8], np.array([9, 10, 11, 12])
    assert engine.step([0], [block], [np.stack([[end, block[0]]])]).query_tokens == [3 * L]
    whole[4:8] = end
    engine.cross(0, whole, 8)
    assert engine.step([0], [whole[None, 8:12]]).query_tokens == [2 * L]
    assert engine.step([0], [whole[None, 8:12]]).query_tokens == [L]


def test_an_engine_that_was_made_without_bridges_says_so():
    layout = SequenceLayout.make(4, 2 * L, L, CACHE)
    engine = SlotEngine(tiny_denoiser(), CACHE, "packed", 1, [layout], 2)
    whole = np.full(layout.length, MASK_ID)
    engine.open(0, 0, layout)
    engine.refresh([0], [whole], [4])
    with pytest.raises(
        EngineError, match="0 drafts and 1 bridges at an anchor, but the engine was made for at most 2 and 0"
    ):
        engine.step([0], [whole[None, 4:8]], [np.full((1, 2, L), 5)])
    with pytest.raises(EngineError, match="4 rows before the block are not cached; the engine was made to carry 0"):
        engine.cross(0, whole, 8)
