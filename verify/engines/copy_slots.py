"""The engine for devices with copies (``verify.engines.copies``): one padded forward for all sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from verify.denoiser import SlotDenoiser, SlotRows
from verify.engines.contract import BatchLogits, masked_rows
from verify.engines.copies import Copy, HeldCopies, check_copies
from verify.engines.slots import SlotEngine, put
from verify.engines.step_rows import few, refresh_order
from verify.layout import SequenceLayout


class CopyingSlotEngine(SlotEngine):
    """The engine for devices with copies, held in columns behind the cached ones; arguments as there.

    Memory: a slot's cached columns are there twice, and live columns for a copy of the longest sequence. While any
    slot holds a copy, forwards look past both halves, as live keys stand behind what is cached.
    """

    def __init__(
        self,
        denoiser: SlotDenoiser,
        cache: str,
        backend: str,
        slots: int,
        layouts: Sequence[SequenceLayout],
        drafts: int,
        bridges: int,
    ) -> None:
        check_copies(denoiser, cache)
        self._copies, self._room = HeldCopies(), bridges
        super().__init__(denoiser, cache, backend, slots, layouts, drafts)

    def _make_memory(self) -> Any:
        self.bridges, self.half = self._room, self.cached_rows
        self.cached_rows = 2 * self.half
        self.live_rows = (1 + self.drafts + self.bridges) * self.length + self.longest
        return super()._make_memory()

    def _columns(self, cached: Sequence[int]) -> int:
        if any(slot in self._copies for slot in range(len(cached))):
            return self.cached_rows
        return self.half if self.denoiser.few_shapes else super()._columns(cached)

    def open(self, slot: int, prompt_index: int, layout: SequenceLayout) -> None:
        super().open(slot, prompt_index, layout)
        self._copies.drop(slot)

    def move(self, source: int, target: int) -> None:
        super().move(source, target)
        self._copies.move(source, target)

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> BatchLogits:
        for slot, sequence, start in zip(slots, sequences, starts, strict=True):
            self._copies.begin(slot, sequence, start)
        return super().refresh(slots, sequences, starts)

    def cross(self, slot: int, sequence: np.ndarray, start: int) -> None:
        self._copies.check_crossing(slot, sequence, start, self.length)
        rows = refresh_order(len(sequence), start, self.length)
        self.denoiser.move_columns(self.memory, slot, self.half, 0, len(rows) - self.length)
        self._settle(self._slots[slot], rows, sequence, start)
        self._copies.begin(slot, sequence, start)
        self._scenes.clear()

    def step(
        self, slots: Sequence[int], states: Sequence[np.ndarray], bridges: Sequence[np.ndarray] | None = None
    ) -> BatchLogits:
        if bridges is None or not any(map(len, bridges)):
            return super().step(slots, states)
        self._check_step(slots, states, bridges)
        copies = [
            self._copies.wanted(slot, pairs, self.denoiser.mask_token_id)
            for slot, pairs in zip(slots, bridges, strict=True)
        ]
        layout = _Layout.of(self.length, states, bridges, copies, self.denoiser.few_shapes, self.drafts, self.bridges)
        tokens, positions, unit = (np.stack(column) for column in zip(*(
            layout.fill(states[k], bridges[k], copies[k], self._slots[slot].start) for k, slot in enumerate(slots)
        ), strict=True))  # fmt: skip
        ranked = [np.concatenate([state, pair[:, 1]]) for state, pair in zip(states, bridges, strict=True)]
        number, offset, bounds = masked_rows(ranked, self.denoiser.mask_token_id)
        logit_rows = np.concatenate([
            k * layout.count + layout.first(len(states[k]), len(bridges[k]), copies[k] is not None)[
                number[bounds[k] : bounds[k + 1]]
            ] + offset[bounds[k] : bounds[k + 1]]
            for k in range(len(slots))
        ])  # fmt: skip
        device = self.denoiser.device
        visible = layout.attention_mask(
            put(unit, device), put(np.array([self._slots[slot].cached for slot in slots]), device),
            put(np.array([self.half * (slot in self._copies) for slot in slots]), device), self.cached_rows,
        )  # fmt: skip
        cache_rows, cache_columns = self._cached_by_copies(layout, copies)
        logits = self.denoiser.forward_slots(
            self.memory,
            SlotRows(
                tokens=put(tokens, device),
                positions=put(positions, device),
                mask=self.denoiser.prepare_mask(visible),
                columns=self.cached_rows,
                slots=None,
                logit_rows=put(logit_rows, device),
                before=put(logit_rows, device),  # of shifted models only, which offer no copies
                cache_rows=None if cache_rows is None else put(cache_rows, device),
                cache_columns=None if cache_columns is None else put(cache_columns, device),
            ),
        )
        for slot, copy in zip(slots, copies, strict=True):
            if copy is not None:
                self._copies.hold(slot, copy)
                self._scenes.clear()
        paid = [
            self._slots[slot].layout.step_query_tokens(
                self.cache,
                self.backend,
                self._slots[slot].start,
                len(states[k]) - 1,
                len(bridges[k]),
                0,
                copies[k] is not None,
            )
            for k, slot in enumerate(slots)
        ]
        return BatchLogits(
            logits, number, offset, bounds, [len(one) for one in ranked], paid, [self.length] * len(slots)
        )

    def _cached_by_copies(
        self, layout: _Layout, copies: Sequence[Copy | None]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Rows of copies that are held (int64 [b, f]) and their columns; the others write into a scratch column."""
        if not layout.copy:
            return None, None
        rows = np.zeros((len(copies), layout.copy - self.length), dtype=np.int64)
        columns = np.full(rows.shape, self.cached_rows + self.live_rows - 1, dtype=np.int64)
        for k, copy in enumerate(copies):
            kept = np.arange(len(copy.tokens) - self.length if copy is not None else 0)
            rows[k, : len(kept)] = layout.count - layout.copy + self.length + kept
            columns[k, : len(kept)] = self.half + kept
        return rows, columns


#: In an array of units: a row of padding, which sees what the block sees.
_PADDING = -1


@dataclass(frozen=True)
class _Layout:
    """Rows of one slot in a step forward with bridges: the block, drafts, states behind the held copy, a copy.

    Attributes:
        length: ``L``.
        drafts, ahead: how many drafts, and states behind a held copy, there is room for.
        copy: rows of the longest copy, 0 where none is made.
    """

    length: int
    drafts: int
    ahead: int
    copy: int

    @classmethod
    def of(
        cls, length: int, states: Sequence[np.ndarray], bridges: Sequence[np.ndarray], copies: Sequence[Copy | None],
        few_shapes: bool, most_drafts: int, most_bridges: int,
    ) -> _Layout:  # fmt: skip
        """With room for the slot that has most of each; rounded up where forwards should come in ``few_shapes``."""
        drafts = max(map(len, states)) - 1
        ahead = max(len(pairs) * (copy is None) for pairs, copy in zip(bridges, copies, strict=True))
        if few_shapes:
            drafts, ahead = few(drafts, most_drafts), few(ahead, most_bridges)
        return cls(length, drafts, ahead, max(0 if copy is None else len(copy.tokens) for copy in copies))

    @property
    def count(self) -> int:
        return (1 + self.drafts + self.ahead) * self.length + self.copy

    def first(self, states: int, bridges: int, copying: bool) -> np.ndarray:
        """int64 [states + bridges], the first row of every unit whose logits are wanted."""
        behind = 1 + self.drafts + (self.ahead if copying else 0)
        return np.concatenate([np.arange(states), behind + np.arange(bridges)]) * self.length

    def fill(
        self, states: np.ndarray, bridges: np.ndarray, copy: Copy | None, start: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens, positions and units of the rows of a slot whose block is at ``start``, each int64 [count]."""
        blocks = 1 + self.drafts + self.ahead
        tokens = np.full(self.count, states[0, 0])
        positions = np.full(self.count, start)
        unit = np.full(self.count, _PADDING)
        positions[: blocks * self.length] = np.tile(start + np.arange(self.length), blocks)
        unit[: len(states) * self.length] = np.repeat(np.arange(len(states)), self.length)
        tokens[: len(states) * self.length] = states.reshape(-1)
        if copy is not None:
            rows = slice(blocks * self.length, blocks * self.length + len(copy.tokens))
            tokens[rows], positions[rows], unit[rows] = copy.tokens, copy.positions, blocks
        else:
            rows = slice((1 + self.drafts) * self.length, (1 + self.drafts + len(bridges)) * self.length)
            tokens[rows] = bridges[:, 1].reshape(-1)
            positions[rows] += self.length
            unit[rows] = np.repeat(1 + self.drafts + np.arange(len(bridges)), self.length)
        return tokens, positions, unit

    def attention_mask(
        self, unit: torch.Tensor, cached: torch.Tensor, held: torch.Tensor, columns: int
    ) -> torch.Tensor:
        """bool [b, count, columns + count].

        Args:
            unit: int64 [b, count].
            cached: int64 [b], cached rows of every slot; a held copy has as many.
            held: int64 [b], the column where those of the held copy begin.
            columns: cached columns that are read.
        """
        column = torch.arange(columns, device=unit.device)
        kind = unit[:, :, None]
        ahead = (kind > self.drafts) & (kind <= self.drafts + self.ahead)
        low = torch.where(ahead, held[:, None, None], 0)
        sees = kind <= self.drafts + self.ahead
        outside = sees & (low <= column) & (column < low + cached[:, None, None])
        own = (unit[:, None, :] != _PADDING) & (unit.clamp(min=0)[:, :, None] == unit[:, None, :])
        return torch.cat([outside, own], dim=2)
