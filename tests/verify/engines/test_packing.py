"""Drafts beside the real block: what sees what, and that packing changes no distribution."""

import pytest
import torch

from tests.support.models import MASK_ID, CountingDenoiser, tiny_denoiser
from verify.engines.cache import CacheKeeper
from verify.engines.packing import Frame, forward_expanded, forward_packed
from verify.layout import CACHE_MODES, SequenceLayout

L = 6
PROMPT = [5, 9, 13, 17, 21, 25, 29, 33]


class Rows:
    """A cached context of a given length, for frames that never meet a model."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


def frame_of(live, offset, block_length, cached):
    return Frame(torch.zeros(live, dtype=torch.int64), torch.arange(live), offset, block_length, Rows(cached))


def pattern(attention_mask):
    return ["".join("x" if cell else "." for cell in row) for row in attention_mask[0].tolist()]


def test_visibility_with_the_whole_context_cached():
    """L = 2, D = 2, three cached rows (dual and block_causal): columns are CCC, the block, draft 1, draft 2."""
    assert pattern(frame_of(2, 0, 2, 3).packed_attention_mask(2)) == [
        "xxx" "xx" "..." ".",
        "xxx" "xx" "..." ".",
        "xxx" ".." "xx" "..",
        "xxx" ".." "xx" "..",
        "xxx" ".." ".." "xx",
        "xxx" ".." ".." "xx",
    ]  # fmt: skip


def test_visibility_with_a_live_suffix():
    """L = 2, D = 2, one cached row, a suffix of one (prefix): it is seen by the drafts and sees the real block only."""
    assert pattern(frame_of(3, 0, 2, 1).packed_attention_mask(2)) == [
        "x" "xx" "x" "...." ,
        "x" "xx" "x" "...." ,
        "x" "xx" "x" "...." ,
        "x" ".." "x" "xx..",
        "x" ".." "x" "xx..",
        "x" ".." "x" "..xx",
        "x" ".." "x" "..xx",
    ]  # fmt: skip


def test_visibility_with_nothing_cached():
    """L = 2, D = 1, one row before the block and one after it (none)."""
    frame = Frame(torch.zeros(4, dtype=torch.int64), torch.arange(4), 1, 2, None)
    assert pattern(frame.packed_attention_mask(1)) == ["xxxx..", "xxxx..", "xxxx..", "xxxx..", "x..xxx", "x..xxx"]


def test_without_drafts_everything_is_visible_and_kept():
    frame = frame_of(3, 0, 2, 1)
    assert pattern(frame.packed_attention_mask(0)) == ["xxxx"] * 3
    assert frame.packed_attention_mask(0) is frame.packed_attention_mask(0)
    assert frame.packed_attention_mask(2) is not frame.packed_attention_mask(1)


def refreshed(denoiser, mode, block=1):
    """A frame of the given block of a three-block sequence, after the refresh forwards that lead there."""
    layout = SequenceLayout.make(len(PROMPT), 3 * L, L, mode)
    torch.manual_seed(0)
    sequence = torch.full((layout.length,), MASK_ID)
    sequence[: len(PROMPT)] = torch.tensor(PROMPT)
    keeper = CacheKeeper(denoiser, layout, mode)
    for number, start in enumerate(layout.block_starts):
        result, frame = keeper.refresh(sequence, start)
        if number == block:
            return sequence, start, result, frame
        sequence[start : start + L] = torch.randint(3, 48, (L,))
    raise AssertionError("no such block")


def some_states(sequence, start, count):
    torch.manual_seed(1)
    states = sequence[start : start + L].repeat(count, 1)
    for d in range(1, count):
        chosen = torch.randperm(L)[:d]
        states[d, chosen] = torch.randint(3, 48, (len(chosen),))
    return states


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mode", ["dual", "block_causal"])
def test_packed_equals_expanded_equals_single_forwards(mode, seed):
    denoiser = tiny_denoiser(seed)
    sequence, start, _, frame = refreshed(denoiser, mode)
    states = some_states(sequence, start, 5)
    packed = forward_packed(denoiser, frame, states)
    expanded = forward_expanded(denoiser, frame, states)
    singles = torch.cat([forward_packed(denoiser, frame, state[None]).logits for state in states])
    assert packed.logits.shape == expanded.logits.shape == (5, L, 48)
    assert singles.std() > 1  # else equality would mean little
    torch.testing.assert_close(packed.logits, singles, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(expanded.logits, singles, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["none", "prefix"])
def test_with_a_live_suffix_only_expanded_is_exact(mode):
    """The root is exact either way; a packed draft meets a suffix that looked at the real block."""
    denoiser = tiny_denoiser()
    sequence, start, _, frame = refreshed(denoiser, mode)
    states = some_states(sequence, start, 3)
    packed = forward_packed(denoiser, frame, states).logits
    expanded = forward_expanded(denoiser, frame, states).logits
    singles = torch.cat([forward_packed(denoiser, frame, state[None]).logits for state in states])
    torch.testing.assert_close(expanded, singles, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed[:1], singles[:1], atol=1e-5, rtol=1e-5)
    assert (packed[1:] - singles[1:]).abs().max() > 1e-3


@pytest.mark.parametrize("mode", CACHE_MODES)
def test_the_refresh_forward_is_a_forward_of_the_block(mode):
    """What the refresh says of the block is what a later forward of the unchanged block says."""
    denoiser = tiny_denoiser()
    sequence, start, result, frame = refreshed(denoiser, mode)
    again = forward_packed(denoiser, frame, sequence[None, start : start + L])
    torch.testing.assert_close(result.logits, again.logits, atol=1e-5, rtol=1e-5)


def test_a_block_causal_block_equals_a_full_recompute():
    denoiser = tiny_denoiser()
    sequence, start, result, frame = refreshed(denoiser, "block_causal", block=2)
    states = some_states(sequence, start, 3)
    packed = forward_packed(denoiser, frame, states).logits
    torch.testing.assert_close(packed[:1], result.logits, atol=1e-5, rtol=1e-5)
    rows = torch.arange(start + L)
    visible = rows[None] // L <= rows[:, None] // L
    for state, logits in zip(states, packed, strict=True):
        tokens = torch.cat([sequence[:start], state])
        with torch.inference_mode():
            whole = denoiser.model(tokens[None], attention_mask=visible[None, None], position_ids=rows[None]).logits
        torch.testing.assert_close(logits, whole[0, start:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("mode", "refresh_rows", "live"), [("none", 26, 26), ("prefix", 26, 12), ("dual", 26, 6), ("block_causal", 12, 6)]
)
def test_rows_are_what_the_model_computes(mode, refresh_rows, live):
    """Prompt 8, blocks of 6, second block. Block-causal: the finished block before it and itself."""
    denoiser = CountingDenoiser(tiny_denoiser())
    sequence, start, result, frame = refreshed(denoiser, mode)
    assert (len(frame.tokens), result.query_tokens) == (live, refresh_rows)
    states = some_states(sequence, start, 4)
    for forward, rows in ((forward_packed, live + 3 * L), (forward_expanded, 4 * live)):
        before = denoiser.rows
        assert forward(denoiser, frame, states).query_tokens == rows == denoiser.rows - before
