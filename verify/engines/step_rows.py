"""The rows of a slot, and where those of a step forward lie: its live rows, then its bridges, then its drafts.

Drafts come last, so that a forward with fewer drafts is the beginning of one with more. ``packed``: every draft is a
block of rows, every bridge two. ``expanded``: every unit is a copy of all live rows, and where there are bridges each
copy has a next block behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from verify.layout import SequenceLayout


@dataclass(frozen=True)
class StepRows:
    """The rows of one slot.

    Attributes:
        length: ``L``, of the longest block; drafts of a shorter one are padded.
        width: live rows, the block first; of the widest slot, the others are padded.
        bridges: how many bridges there is room for, ``K``.
        packed: the back-end.
    """

    length: int
    width: int
    bridges: int
    packed: bool

    @property
    def copy(self) -> int:
        """Rows of one unit of the expanded back-end."""
        return self.width + (self.length if self.bridges else 0)

    def count(self, drafts: int) -> int:
        """Rows with room for ``drafts`` drafts."""
        if self.packed:
            return self.width + (2 * self.bridges + drafts) * self.length
        return (1 + self.bridges + drafts) * self.copy

    def first(self, unit: np.ndarray, drafts: np.ndarray) -> np.ndarray:
        """The first row of the block whose logits are wanted: of ``unit`` (int [n]) in a slot of ``drafts`` (int [n]).

        Units are counted as in :class:`verify.engines.contract.BatchLogits`: the root, drafts, next blocks of bridges.
        """
        bridge = unit > drafts
        number = np.where(bridge, unit - drafts - 1, unit - 1)
        if self.packed:
            there = self.width + np.where(bridge, 2 * number + 1, 2 * self.bridges + number) * self.length
        else:
            there = np.where(bridge, (1 + number) * self.copy + self.width, (1 + self.bridges + number) * self.copy)
        return np.where(unit == 0, 0, there)

    def fill(self, rows: np.ndarray, live: np.ndarray, states: np.ndarray, bridges: np.ndarray, padding: int) -> int:
        """Write the tokens of a slot into ``rows`` (int64 [count]); returns how many of them are not padding.

        Args:
            rows: of the slot.
            live: int64 [R], its live rows; the block's own part is replaced.
            states: int64 [1 + D, L], the block and its drafts.
            bridges: int64 [K, 2, L].
            padding: the token that pads.
        """
        rows[:] = padding
        length, own, drafts = states.shape[1], len(bridges), len(states) - 1
        if self.packed:
            rows[: len(live)], rows[:length] = live, states[0]
            rows[self.width : self.width + 2 * own * length] = bridges.reshape(-1)
            first = self.width + 2 * self.bridges * self.length
            rows[first : first + drafts * self.length].reshape(drafts, self.length)[:, :length] = states[1:]
            return len(live) + (2 * own + drafts) * length
        copies = rows.reshape(-1, self.copy)
        copies[:, : len(live)] = live
        copies[0, :length] = states[0]
        copies[1 : 1 + own, :length] = bridges[:, 0]
        if own:
            copies[1 : 1 + own, self.width :] = bridges[:, 1]
        copies[1 + self.bridges : 1 + self.bridges + drafts, :length] = states[1:]
        return (len(live) + (length if own else 0)) * (1 + own + drafts)

    def positions(self, live: np.ndarray, drafts: int) -> np.ndarray:
        """Position ids int64 [count] of a slot whose live rows (int64 [R]) stand there; padding repeats the first."""
        block = live[: self.length]
        if len(block) < self.length:  # a short block with nothing live behind it
            block = np.concatenate([block, np.full(self.length - len(block), live[0])])
        pair = np.concatenate([block, block + self.length])
        if self.packed:
            padded = np.concatenate([live, np.full(self.width - len(live), live[0])])
            return np.concatenate([padded, np.tile(pair, self.bridges), np.tile(block, drafts)])
        copy = np.full(self.copy, live[0])
        copy[: len(live)] = live
        copy[self.width :] = block + self.length if self.bridges else block[:0]
        return np.tile(copy, 1 + self.bridges + drafts)

    def attention_mask(
        self, cached: torch.Tensor, live: torch.Tensor, own: torch.Tensor, columns: int, drafts: int, causal: bool
    ) -> torch.Tensor:
        """Who sees whom; the first rows of it are those of a step with fewer drafts.

        A unit sees itself and the cached rows; packed drafts and bridges also the live rows that are not the block. Of
        a bridge, the block that is complete does not see the next one. Live rows that are carried (in block-causal mode
        all but the block) do not see the block either.

        Args:
            cached: int64 [b], cached rows of each slot.
            live: int64 [b], live rows of each slot, of which ``width`` are laid out; the others are padding.
            own: int64 [b], positions of each slot's block; rows of its packed drafts behind them are padding.
            columns: cached columns that are read.
            drafts: how many drafts there is room for.
            causal: whether live rows before the block do not see it.

        Returns:
            bool [b, rows, columns + rows].
        """
        device, length = cached.device, self.length
        held = torch.arange(columns, device=device) < cached[:, None, None]
        live, own = live[:, None, None], own[:, None, None]
        row = torch.arange(self.count(drafts), device=device)
        if self.packed:
            behind, pairs = row - self.width, 2 * self.bridges * length
            unit = torch.where(
                behind < pairs, 1 + behind // (2 * length), 1 + self.bridges + (behind - pairs) // length
            )
            unit = torch.where(row < self.width, 0, unit)
            later = (behind >= 0) & (behind < pairs) & (behind % (2 * length) >= length)
            place = row
            shared = (row >= own) & (row < self.width)
            seen = (unit[:, None] == unit[None, :]) | ((unit[:, None] > 0) & shared)
            seen = seen & torch.where(row < self.width, row < live, behind % length < own)
        else:
            unit, place = row // self.copy, row % self.copy
            later = place >= self.width
            shared = (place >= own) & (place < self.width)
            seen = (unit[:, None] == unit[None, :]) & ((place < live) | later)
        seen = seen & (later[:, None] | ~later[None, :])
        if causal:
            block = place < own
            seen = seen & ~(shared.transpose(1, 2) & block)
        return torch.cat([held.expand(-1, len(row), -1), seen], dim=2)


@dataclass(eq=False)
class SlotState:
    """What is known of the sequence in a slot.

    Attributes:
        layout: where its blocks lie.
        cached: rows in its buffer, ``C``.
        start: first position of the block.
        length: positions of the block, or before its end is known those that it may have.
        tokens: int64 [R], live rows, the block first; none before the first refresh.
        positions: int64 [R], of the live rows.
        carried: how many of them, behind the block, the next step caches; 0 but for a block that began without refresh.
    """

    layout: SequenceLayout
    cached: int = 0
    start: int = 0
    carried: int = 0
    length: int = 0
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    positions: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def narrow(self, length: int, cache: str) -> None:
        """The block, begun by the last refresh, has ``length`` positions; those behind it are as other later blocks."""
        tokens = np.empty(self.layout.length, dtype=np.int64)
        tokens[self.positions] = self.tokens
        self.length = length
        if cache == "dual":
            self.cached, self.positions = self.layout.length - length, self.positions[:length]
        elif cache == "none":
            self.positions = refresh_order(self.layout.length, self.start, length)
        self.tokens = tokens[self.positions]

    def settle(self) -> None:
        """What was carried is cached now; the block stays live."""
        self.cached, self.carried = self.cached + self.carried, 0
        self.tokens, self.positions = self.tokens[: self.length], self.positions[: self.length]


@dataclass(eq=False)
class Scene:
    """What stays as it is between two refreshes: shapes, positions and the mask for the largest number of drafts.

    Attributes:
        columns: cached columns read by everyone.
        layout: where live rows, bridges and drafts lie.
        positions: int64 [b, rows].
        mask: as the denoiser takes it, last two axes [rows, columns + rows].
    """

    columns: int
    layout: StepRows
    positions: torch.Tensor
    mask: torch.Tensor
    _last: tuple[int, torch.Tensor, torch.Tensor] | None = None

    def cut(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and mask of the first ``rows`` rows; kept, as most forwards of a block are of one width."""
        if self._last is None or self._last[0] != rows:
            mask = self.mask[..., :rows, : self.columns + rows]
            self._last = rows, self.positions[:, :rows].contiguous(), mask.contiguous()
        return self._last[1], self._last[2]


def refresh_order(length: int, start: int, block_length: int) -> np.ndarray:
    """Positions int64 [length] of a whole sequence: those of the block at ``start`` first, the others ascending."""
    every = np.arange(length)
    return np.concatenate([every[start : start + block_length], every[:start], every[start + block_length :]])


def cached_by_refresh(
    slots: Sequence[SlotState], order: Sequence[np.ndarray], starts: Sequence[int], cache: str, scratch: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Which rows a refresh caches (int64 [b, f]) and the columns they go to; short ones are padded with ``scratch``.

    The rows of the block come first, and what is cached is a run of rows behind them. In dual mode under a schedule the
    rows that the block may have follow, the last first: once the block's end is known, fewer columns are read.

    Args:
        slots: the sequences.
        order: int64 [R] each, the positions of the rows that are computed.
        starts: the first positions of their blocks.
        cache: the cache mode.
        scratch: a column that nobody looks at.
    """
    if cache == "none":
        return None, None
    kept = []
    for slot, rows, start in zip(slots, order, starts, strict=True):
        reach = slot.layout.reach(start)
        behind = np.arange(reach, len(rows)) if cache == "dual" else reach + np.arange(np.count_nonzero(rows < start))
        undecided = cache == "dual" and slot.layout.schedule is not None
        kept.append(np.concatenate([behind, np.arange(reach - 1, 0, -1) if undecided else behind[:0]]))
    cached = np.zeros((len(slots), max(1, *map(len, kept))), dtype=np.int64)
    columns = np.full(cached.shape, scratch, dtype=np.int64)
    for k, slot in enumerate(slots):
        first = slot.cached if cache == "block_causal" else 0
        cached[k, : len(kept[k])] = kept[k]
        columns[k, : len(kept[k])] = first + np.arange(len(kept[k]))
    return cached, columns


def few(count: int, most: int) -> int:
    """``count`` rounded up to a power of two, ``most`` at most, so that forwards come in few shapes."""
    return min(most, 1 << (count - 1).bit_length()) if count else 0
