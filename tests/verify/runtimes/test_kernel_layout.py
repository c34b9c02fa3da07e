"""Segment lists say what the dense mask says, and two passes merged by log-sum-exp are one attention."""

import itertools

import numpy as np
import pytest
import torch

from verify.engines.packing import Frame
from verify.runtimes.kernel_layout import KernelLayout, SequenceRows, kernel_layout

L = 3


class Cached:
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


def frame(one: SequenceRows) -> Frame:
    """The frame of the same forward in the engine that knows dense masks."""
    live = one.carried + L
    positions = one.start - one.carried + torch.arange(live)
    return Frame(torch.zeros_like(positions), positions, one.carried, L, Cached(one.cached), one.carried)


def dense(layout: KernelLayout, number: int, one: SequenceRows) -> np.ndarray:
    """Who sees whom in sequence ``number``, bool [r, C + r], read from the segment lists alone."""
    low, high = layout.cu_rows[number : number + 2]
    seen = np.zeros((high - low, one.cached + high - low), dtype=bool)
    keys = np.arange(*layout.cu_prefix[number : number + 2]) - layout.cu_prefix[number]
    kept = {key - layout.cu_prefix[number]: row for row, key in zip(layout.kept_rows, layout.kept_keys, strict=True)}
    for key in keys.tolist():
        seen[:, key if key < one.cached else one.cached + kept[key] - low] = True
    for unit, (first, last) in enumerate(itertools.pairwise(layout.cu_self)):
        if low <= first < high:
            seen[
                first - low : last - low, one.cached + np.arange(layout.self_begin[unit], layout.self_end[unit]) - low
            ] = 1
    return seen


CASES = {
    "a block alone": [SequenceRows(4, 4, 0)],
    "nothing cached": [SequenceRows(0, 0, 2)],
    "drafts": [SequenceRows(4, 4, 3)],
    "the dual cache, which holds rows behind the block too": [SequenceRows(11, 5, 2)],
    "bridges": [SequenceRows(6, 6, 1, bridges=2)],
    "a finished block is carried": [SequenceRows(3, 6, 2, carried=3)],
    "a batch": [
        SequenceRows(5, 5, 2), SequenceRows(0, 0, 0), SequenceRows(6, 9, 1, 1, 3), SequenceRows(7, 7, 0, bridges=1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_segments_are_the_dense_mask(name: str) -> None:
    sequences = CASES[name]
    layout = kernel_layout(sequences, L)
    assert all(array.dtype == np.int32 for array in vars(layout).values())
    for number, one in enumerate(sequences):
        same = frame(one).packed_attention_mask(one.drafts, one.bridges)[0].numpy()
        np.testing.assert_array_equal(dense(layout, number, one), same)


def test_the_arrays_of_a_small_forward() -> None:
    """L = 3, four cached keys, two drafts; then a carried block of three, one draft and one bridge."""
    layout = kernel_layout([SequenceRows(4, 4, 2), SequenceRows(3, 6, 1, 1, 3)], L)
    assert layout.positions.tolist() == [4, 5, 6] * 3 + [3, 4, 5] + [6, 7, 8] * 3 + [9, 10, 11]
    assert layout.cu_rows.tolist() == [0, 9, 24] and layout.cu_prefix.tolist() == [0, 4, 10]
    assert layout.cu_self.tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24]
    assert layout.self_begin.tolist() == [0, 3, 6, 9, 12, 15, 18, 18]
    assert layout.self_end.tolist() == [3, 6, 9, 9, 15, 18, 21, 24]
    assert layout.kept_rows.tolist() == [9, 10, 11] and layout.kept_keys.tolist() == [7, 8, 9]
    assert layout.logit_rows.tolist() == [*range(9), *range(12, 18), 21, 22, 23]
    assert layout.before.tolist() == [-1, 0, 1, -1, 3, 4, -1, 6, 7, 11, 12, 13, 11, 15, 16, 20, 21, 22]


@pytest.mark.parametrize("name", CASES)
def test_two_passes_merged_are_one_attention(name: str) -> None:
    sequences = CASES[name]
    layout = kernel_layout(sequences, L)
    generator = torch.Generator().manual_seed(0)
    rows, cached = int(layout.cu_rows[-1]), int(layout.cu_prefix[-1])
    query, key, value = torch.randn(3, rows, 8, dtype=torch.float64, generator=generator)
    prefix_key, prefix_value = torch.randn(2, cached, 8, dtype=torch.float64, generator=generator)
    kept, places = torch.from_numpy(layout.kept_rows).long(), torch.from_numpy(layout.kept_keys).long()
    prefix_key[places], prefix_value[places] = key[kept], value[kept]

    def attend(queries, keys, values):
        score = queries @ keys.T / 8**0.5
        return score.softmax(-1) @ values if len(keys) else values.new_zeros(len(queries), 8), score.logsumexp(-1)

    out, lse = torch.zeros(2, rows, 8, dtype=torch.float64), torch.zeros(2, rows, dtype=torch.float64)
    for number in range(len(sequences)):
        part, keys = slice(*layout.cu_rows[number : number + 2]), slice(*layout.cu_prefix[number : number + 2])
        out[0, part], lse[0, part] = attend(query[part], prefix_key[keys], prefix_value[keys])
    for unit in range(len(layout.self_begin)):
        part, keys = slice(*layout.cu_self[unit : unit + 2]), slice(layout.self_begin[unit], layout.self_end[unit])
        out[1, part], lse[1, part] = attend(query[part], key[keys], value[keys])
    weight = (lse - lse.logsumexp(0)).exp()
    merged = (weight[:, :, None] * out).sum(0)

    for number, one in enumerate(sequences):
        part = slice(*layout.cu_rows[number : number + 2])
        first = int(layout.cu_prefix[number])
        keys = torch.cat([prefix_key[first : first + one.cached], key[part]])
        values = torch.cat([prefix_value[first : first + one.cached], value[part]])
        mask = frame(one).packed_attention_mask(one.drafts, one.bridges)[0]
        expected = torch.nn.functional.scaled_dot_product_attention(query[part], keys, values, attn_mask=mask)
        torch.testing.assert_close(merged[part], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("one", [SequenceRows(-1, 0, 0), SequenceRows(0, 0, -1)])
def test_negative_numbers_are_refused(one: SequenceRows) -> None:
    with pytest.raises(ValueError, match="expected no negative number"):
        kernel_layout([one], L)
    with pytest.raises(ValueError, match="a block length of 0"):
        kernel_layout([], 0)


def test_an_empty_forward() -> None:
    assert all(not array.any() for array in vars(kernel_layout([], L)).values())
