"""Cache modes: what is cached while a block is solved, and the refresh forward that computes it.

Every block begins with one refresh forward. It is a forward like any other: it computes the block's first
distribution, and on the way the keys and values that stay cached until the block is done.
"""

from __future__ import annotations

from typing import Any

import torch

from verify.denoiser import Denoiser, cached_rows
from verify.engines.packing import BlockLogits, Frame
from verify.layout import SequenceLayout


class CacheKeeper:
    """Holds what is cached of one sequence, from block to block.

    ====================  ==========================  ==============================
    mode                  cached                      live rows of a draft forward
    ====================  ==========================  ==============================
    ``none``              nothing                     the whole sequence
    ``prefix``            rows before the block       block and suffix
    ``dual``              rows before and after       the block
    ``block_causal``      rows before the block       the block
    ====================  ==========================  ==============================

    ``prefix`` and ``dual`` recompute the whole sequence at each block's start. ``block_causal`` computes only the
    rows that are not cached yet (the finished block before this one, at first the prompt) together with the new block
    in one forward, so no separate forward is paid to store a finished block.

    Under a schedule the refresh is run before the block's end is known. Then ``dual`` caches every row but the block's
    first, those that the block may have last and descending; the block's own are the last ones and hidden.
    """

    def __init__(self, denoiser: Denoiser, layout: SequenceLayout, mode: str) -> None:
        self.denoiser = denoiser
        self.layout = layout
        self.mode = mode
        self._cache: Any | None = None
        self._positions = torch.arange(layout.length, device=denoiser.device)

    def refresh(self, sequence: torch.Tensor, start: int) -> tuple[BlockLogits, Frame]:
        """Run the refresh forward of the block at ``start``.

        Args:
            sequence: int64 [N], all tokens, later blocks masked.
            start: the block's first position.

        Returns:
            The block's logits [1, L, V] with the rows computed, and the frame for the block's further forwards.
        """
        if self.mode == "block_causal":
            return self._refresh_block_causal(sequence, start)
        return self._refresh_bidirectional(sequence, start)

    def cross(self, sequence: torch.Tensor, start: int) -> Frame:
        """The frame of the block at ``start`` whose refresh forward was saved; block-causal mode only.

        What is not cached yet, the finished block before it, is carried: the next forward computes it beside the block.
        """
        cached, stop = cached_rows(self._cache), start + self.layout.block_length
        rows = self._positions[cached:stop]
        return Frame(
            sequence[rows], rows, start - cached, self.layout.block_length, self._cache, carried=start - cached
        )

    def carried(self, frame: Frame, cache: Any) -> Frame:
        """The frame after its carried rows were cached."""
        self._cache = cache
        block = frame.block_rows
        return Frame(frame.tokens[block], frame.positions[block], 0, frame.block_length, cache)

    def _refresh_bidirectional(self, sequence: torch.Tensor, start: int) -> tuple[BlockLogits, Frame]:
        length = len(sequence)
        reach = self.layout.reach(start)
        rows, stop = self._positions, start + reach
        block, suffix = rows[start:stop], rows[stop:]
        undecided = block[1:].flip(0) if self.layout.schedule is not None else block[:0]
        cached = {"none": None, "prefix": rows[:start], "dual": torch.cat([rows[:start], suffix, undecided])}[self.mode]
        everything = torch.ones(1, length, length, dtype=torch.bool, device=sequence.device)
        logits, cache = self.denoiser(sequence[None], rows[None], everything, None, logit_rows=block, cache_rows=cached)
        live = {"none": rows, "prefix": rows[start:], "dual": block}[self.mode]
        offset = start if self.mode == "none" else 0
        unseen = len(undecided) if self.mode == "dual" else 0
        frame = Frame(sequence[live], live, offset, reach, cache, unseen=unseen)
        return BlockLogits(logits, length), frame

    def narrowed(self, frame: Frame, length: int) -> Frame:
        """The frame of the block whose refresh gave ``frame``, now that it is ``length`` positions long."""
        if self.mode != "dual":
            return Frame(frame.tokens, frame.positions, frame.block_offset, length, frame.cache)
        return Frame(frame.tokens[:length], frame.positions[:length], 0, length, frame.cache, unseen=length - 1)

    def _refresh_block_causal(self, sequence: torch.Tensor, start: int) -> tuple[BlockLogits, Frame]:
        cached = cached_rows(self._cache)
        stop = start + self.layout.block_length
        rows = self._positions[cached:stop]
        block_of = self._positions[:stop] // self.layout.block_length
        attention_mask = block_of[None, :] <= block_of[cached:, None]
        logits, cache = self.denoiser(
            sequence[rows][None],
            rows[None],
            attention_mask[None],
            self._cache,
            logit_rows=torch.arange(start - cached, stop - cached, device=sequence.device),
            cache_rows=torch.arange(start - cached, device=sequence.device),
        )
        self._cache = cache
        block = self._positions[start:stop]
        return BlockLogits(logits, len(rows)), Frame(sequence[block], block, 0, self.layout.block_length, cache)
