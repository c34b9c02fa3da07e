"""Training rows of the bundled model: what is masked, who sees whom, and streams that go on where they stopped."""

from __future__ import annotations

import copy
import random

import pytest
import torch

from calibrate.bundled import GENERATION_LENGTH
from scripts.bundled_model.batches import (
    BLOCK_LENGTHS,
    IGNORE,
    BatchStream,
    BlockText,
    bidirectional_row,
    causal_row,
    collate,
    make_row,
    noise,
)
from scripts.bundled_model.tokenizer import EOS_ID, MASK_ID
from tests.support.models import tiny_llama

EVEN = {"lists": 1.0, "stories": 1.0, "lines": 1.0}


def text(kind: str, block_length: int = 4) -> BlockText:
    """Six tokens of prompt, seven of answer."""
    return BlockText.of(list(range(10, 16)), list(range(20, 27)), kind, block_length)


def test_blocks_of_a_text():
    bidirectional, causal = text("bidirectional"), text("block_causal")
    assert bidirectional.ids == [*range(10, 16), *range(20, 27), EOS_ID]
    assert [list(bidirectional.free(block)) for block in bidirectional.blocks] == [[6, 7, 8, 9], [10, 11, 12, 13]]
    assert causal.ids == [*range(10, 16), *range(20, 27), EOS_ID, EOS_ID, EOS_ID]
    assert [list(causal.free(block)) for block in causal.blocks] == [[6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert bidirectional.known == causal.known == 14


def test_bidirectional_row():
    row = bidirectional_row(text("bidirectional"), 0, [True, False, True, False], whole=False)
    assert row.tokens == [*range(10, 16), MASK_ID, 21, MASK_ID, 23]
    assert row.targets == [IGNORE] * 6 + [20, IGNORE, 22, IGNORE]
    whole = bidirectional_row(text("bidirectional"), 0, [True, False, True, False], whole=True)
    assert whole.tokens == row.tokens + [MASK_ID] * (6 + GENERATION_LENGTH - 10)
    assert whole.places == list(range(6 + GENERATION_LENGTH))
    assert bool(collate([whole], 128).visible[0, 0, : 6 + GENERATION_LENGTH].all())


def test_causal_row_holds_clean_text_and_masked_copies():
    row = causal_row(text("block_causal"), [1, 2], [[True, False], [True, True, False, True]])
    assert row.tokens == [*range(10, 16), 20, 21, 14, 15, MASK_ID, 21, MASK_ID, MASK_ID, 24, MASK_ID]
    assert row.targets == [IGNORE] * 10 + [20, IGNORE, 22, 23, IGNORE, 25]
    assert row.places == [*range(8), 4, 5, 6, 7, 8, 9, 10, 11]
    seen = collate([row], 16).visible[0]
    assert [k for k in range(16) if seen[10, k]] == [0, 1, 2, 3, 8, 9, 10, 11]  # block 1: block 0 clean, itself
    assert [k for k in range(16) if seen[12, k]] == [*range(8), 12, 13, 14, 15]  # block 2: clean blocks, itself
    assert [k for k in range(16) if seen[5, k]] == list(range(8))  # clean text sees no copy


def test_copies_are_predicted_as_decoding_would():
    """Logits of a masked copy are those of the plain text up to that block, with that block masked."""
    model, row = tiny_llama(), causal_row(text("block_causal"), [1, 2], [[True, True], [True, False, True, True]])
    batch = collate([row], 20)  # with padding

    def logits(tokens, places, visible):
        bias = torch.zeros(visible.shape).masked_fill_(~visible, torch.finfo(torch.float32).min)[:, None]
        with torch.no_grad():
            return model(input_ids=tokens, attention_mask=bias, position_ids=places).logits[0]

    packed = logits(batch.tokens, batch.places, batch.visible)
    for block, begin in ((1, 8), (2, 12)):
        end = (block + 1) * 4
        plain = torch.tensor([[*text("block_causal").ids[: block * 4], *row.tokens[begin : begin + 4]]])
        places = torch.arange(end)[None]
        visible = (places[:, None, :] // 4) <= (places[:, :, None] // 4)
        torch.testing.assert_close(packed[begin : begin + 4], logits(plain, places, visible)[-4:])


@pytest.mark.parametrize("kind", ["bidirectional", "block_causal"])
@pytest.mark.parametrize("block_length", BLOCK_LENGTHS)
def test_rows_are_masked_in_blocks_only(kind, block_length):
    rng = random.Random(0)
    prompt, answer = list(range(10, 25)), list(range(30, 80))
    for _ in range(50):
        row = make_row(prompt, answer, kind, block_length, rng)
        chosen = [index for index, target in enumerate(row.targets) if target != IGNORE]
        assert chosen
        full = [*prompt, *answer]
        for index in chosen:
            place = row.places[index]
            assert place >= len(prompt)
            assert row.tokens[index] == MASK_ID
            assert row.targets[index] == (full[place] if place < len(full) else EOS_ID)
        if kind == "bidirectional":
            assert chosen[-1] - chosen[0] < block_length
            assert (chosen[0] - len(prompt)) // block_length == (chosen[-1] - len(prompt)) // block_length
        else:
            assert {row.copies[index] for index in chosen} == {1}


def test_stream_goes_on_where_it_stopped():
    whole = BatchStream(1024, seed=0)
    for _ in range(3):
        whole.next(EVEN)
    saved = copy.deepcopy(whole.state())
    later = BatchStream(1024, seed=7)
    later.load(saved)
    for _ in range(6):
        mine, theirs = later.next(EVEN), whole.next(EVEN)
        assert torch.equal(mine.tokens, theirs.tokens)
        assert torch.equal(mine.visible, theirs.visible)


def test_weights_decide_the_domains():
    stream = BatchStream(1024, seed=0)
    heads = {int(stream.draw({"lines": 1.0, "code": 0.0}).tokens[0]) for _ in range(20)}
    assert len(heads) == 1


def test_late_noise_masks_some_of_a_short_span() -> None:
    rng = random.Random(3)
    for length in (4, 16, 32):
        for _ in range(200):
            places = [k for k, masked in enumerate(noise(length, rng, late=1.0)) if masked]
            assert 1 <= len(places) <= 10 and places[-1] - places[0] < 10
    assert sum(sum(noise(32, rng)) > 10 for _ in range(200)) > 100  # without it most blocks are mostly masked
