"""The engine for devices: one padded forward for all sequences, over keys and values that stay where they are.

Every sequence owns a slot. A refresh writes the keys and values it freezes into the slot's buffer; a step forward adds
its own behind them and reads both as one view, so nothing frozen is copied, neither per draft nor per forward. Rows
of the block come first among a sequence's live rows (order is free, as positions are given), so that all slots have
their blocks at the same place. Padding rows see what live rows see and are seen by none.

``packed`` puts drafts beside the live rows. ``expanded`` gives every draft a copy of all live rows, here as further
rows of the same sequence and not as further sequences: the same arithmetic, and the frozen rows are still shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from verify.denoiser import SlotDenoiser, SlotRows
from verify.engine import BatchLogits, masked_rows
from verify.layout import SequenceLayout

#: Frozen columns that a forward reads are rounded up to this, so that few different widths occur.
COLUMN_STEP = 16


@dataclass(eq=False)
class _Slot:
    """What is known of the sequence in a slot.

    Attributes:
        layout: where its blocks lie.
        frozen: rows in its buffer, ``C``.
        tokens: int64 [R], live rows, the block first.
        positions: int64 [R], of the live rows.
        start: first position of the block.
    """

    layout: SequenceLayout
    frozen: int = 0
    tokens: np.ndarray | None = None
    positions: np.ndarray | None = None
    start: int = 0

    @property
    def live(self) -> int:
        return 0 if self.tokens is None else len(self.tokens)


@dataclass(frozen=True, eq=False)
class _Scene:
    """What stays as it is between two refreshes: shapes, positions and the mask for the largest number of drafts.

    Attributes:
        columns: frozen columns read by everyone.
        width: live rows per slot, the shorter ones padded.
        positions: int64 [b, rows].
        mask: as the denoiser takes it, last two axes [rows, columns + rows].
    """

    columns: int
    width: int
    positions: torch.Tensor
    mask: torch.Tensor


class SlotEngine:
    """Static key and value buffers per slot, one forward for all slots.

    Args:
        denoiser: a model that offers slots.
        context: the context mode.
        backend: ``packed`` or ``expanded``.
        slots: sequences at a time.
        layouts: of all sequences that will come; buffers are made for the longest.
        drafts: the most drafts at an anchor.

    Memory: ``slots * (frozen + live rows) `` keys and values per layer, where ``packed`` has ``R + drafts * L`` live
    rows and ``expanded`` ``(1 + drafts) * R``.
    """

    def __init__(
        self,
        denoiser: SlotDenoiser,
        context: str,
        backend: str,
        slots: int,
        layouts: Sequence[SequenceLayout],
        drafts: int,
    ) -> None:
        self.denoiser, self.context, self.backend = denoiser, context, backend
        self.length = layouts[0].block_length
        self.drafts = drafts
        longest = max(layout.length for layout in layouts)
        suffix = max(layout.length - layout.block_starts[0] for layout in layouts)
        frozen = {"none": 0, "prefix": longest - self.length}.get(context, longest - self.length)
        live = {"none": longest, "prefix": suffix}.get(context, self.length)
        self.frozen_rows = -(-frozen // COLUMN_STEP) * COLUMN_STEP
        self.live_rows = self._row_count(live, drafts)
        self.memory = denoiser.make_slots(slots, self.frozen_rows, self.live_rows)
        self._slots: dict[int, _Slot] = {}
        self._scene: _Scene | None = None

    def _row_count(self, width: int, drafts: int) -> int:
        return width + drafts * self.length if self.backend == "packed" else (1 + drafts) * width

    def open(self, slot: int, sample: int, layout: SequenceLayout) -> None:
        self._slots[slot] = _Slot(layout)

    def move(self, source: int, target: int) -> None:
        self._slots[target] = self._slots.pop(source)
        self.denoiser.move_slot(self.memory, source, target)
        self._scene = None

    # ---- refresh -----------------------------------------------------------------------------------------------------

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> BatchLogits:
        self._scene = None
        order = [
            self._refresh_order(self._slots[slot], start) for slot, start in zip(slots, starts, strict=True)
        ]  # positions of the rows to compute, the block's first
        width = max(map(len, order))
        tokens, positions = np.zeros((2, len(slots), width), dtype=np.int64)
        for k, (rows, sequence) in enumerate(zip(order, sequences, strict=True)):
            tokens[k, : len(rows)] = sequence[rows]
            positions[k, : len(rows)] = rows
        states = [s[None, start : start + self.length] for s, start in zip(sequences, starts, strict=True)]
        unit, offset, bounds = masked_rows(states, self.denoiser.mask_token_id)
        which = np.repeat(np.arange(len(slots)), np.diff(bounds))
        wanted = which * width + offset
        # The row one position before the block, or the block's own first row where there is none.
        edge = np.array([int(np.argmax(rows == start - 1)) for rows, start in zip(order, starts, strict=True)])
        before = np.where(offset > 0, wanted - 1, which * width + edge[which])
        freeze_rows, freeze_columns = self._frozen_by_refresh(slots, order, starts)
        old = [self._slots[slot].frozen for slot in slots]
        columns = self._columns(old) if self.context == "block_causal" else 0
        visible = self._refresh_visibility(order, positions, old, columns, width)
        device = self.denoiser.device
        logits = self.denoiser.forward_slots(
            self.memory,
            SlotRows(
                tokens=_put(tokens, device),
                positions=_put(positions, device),
                mask=self.denoiser.attention_mask(visible),
                columns=columns,
                slots=_put(np.asarray(slots), device),
                wanted=_put(wanted, device),
                before=_put(before, device),
                freeze_rows=None if freeze_rows is None else _put(freeze_rows, device),
                freeze_columns=None if freeze_columns is None else _put(freeze_columns, device),
                edge_rows=_put(edge, device),
            ),
        )
        for slot, rows, sequence, start in zip(slots, order, sequences, starts, strict=True):
            self._settle(self._slots[slot], rows, sequence, start)
        return BatchLogits(logits, unit, offset, bounds, [1] * len(slots), [len(rows) for rows in order], self.length)

    def _refresh_order(self, slot: _Slot, start: int) -> np.ndarray:
        first, last = (slot.frozen, start + self.length) if self.context == "block_causal" else (0, slot.layout.length)
        stop = start + self.length
        return np.concatenate([np.arange(start, stop), np.arange(first, start), np.arange(stop, last)])

    def _frozen_by_refresh(
        self, slots: Sequence[int], order: Sequence[np.ndarray], starts: Sequence[int]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Which rows are frozen (int64 [b, f]) and the columns they go to; short ones are padded with a scratch column.

        The rows of the block come first and are never frozen, so it is always a run of rows behind them.
        """
        if self.context == "none":
            return None, None
        count = [
            len(rows) - self.length if self.context == "dual" else int(np.count_nonzero(rows < start))
            for rows, start in zip(order, starts, strict=True)
        ]
        rows = np.zeros((len(slots), max(1, *count)), dtype=np.int64)
        columns = np.full(rows.shape, self.frozen_rows + self.live_rows - 1, dtype=np.int64)
        for k, slot in enumerate(slots):
            first = self._slots[slot].frozen if self.context == "block_causal" else 0
            rows[k, : count[k]] = self.length + np.arange(count[k])
            columns[k, : count[k]] = first + np.arange(count[k])
        return rows, columns

    def _refresh_visibility(
        self, order: Sequence[np.ndarray], positions: np.ndarray, old: Sequence[int], columns: int, width: int
    ) -> torch.Tensor:
        """bool [b, rows, columns + rows]."""
        device = self.denoiser.device
        real = _put(np.array([len(rows) for rows in order]), device)[:, None]
        row = torch.arange(width, device=device)[None]
        seen = (row < real)[:, None, :].expand(-1, width, -1)
        if self.context != "block_causal":
            return seen
        block = _put(positions // self.length, device)
        last = _put(np.array([rows[0] for rows in order]) // self.length, device)[:, None]
        block_of_row = torch.where(row < real, block, last)
        seen = seen & (block[:, None, :] <= block_of_row[:, :, None])
        frozen = torch.arange(columns, device=device)[None] < _put(np.asarray(old), device)[:, None]
        return torch.cat([frozen[:, None, :].expand(-1, width, -1), seen], dim=2)

    def _settle(self, slot: _Slot, rows: np.ndarray, sequence: np.ndarray, start: int) -> None:
        """Note what the refresh left: the frozen rows, and the rows that stay live."""
        slot.start = start
        slot.frozen = {"none": 0, "dual": slot.layout.length - self.length}.get(self.context, start)
        keep = {"none": slice(None), "prefix": slice(None)}.get(self.context, slice(self.length))
        kept = rows[keep]
        if self.context == "prefix":
            kept = kept[kept >= start]
        slot.positions, slot.tokens = kept, sequence[kept]

    def _columns(self, frozen: Sequence[int]) -> int:
        return -(-max(frozen) // COLUMN_STEP) * COLUMN_STEP

    # ---- step --------------------------------------------------------------------------------------------------------

    def step(self, slots: Sequence[int], states: Sequence[np.ndarray]) -> BatchLogits:
        """See :class:`verify.engine.Engine`; ``slots`` must be 0, 1, 2, ... as the decode loop keeps them."""
        if list(slots) != list(range(len(slots))):
            raise ValueError(f"a step takes the slots 0 to {len(slots) - 1}, got {list(slots)}; move them together")
        scene = self._scene
        if scene is None or len(scene.positions) != len(slots):
            scene = self._scene = self._make_scene(len(slots))
        drafts = max(len(state) for state in states) - 1
        if drafts > self.drafts:
            raise ValueError(f"{drafts} drafts at an anchor, but the engine was made for at most {self.drafts}")
        width, length = scene.width, self.length
        count = self._row_count(width, drafts)
        tokens = np.empty((len(slots), count), dtype=np.int64)
        rows = []
        for k, state in enumerate(states):
            slot = self._slots[k]
            assert slot.tokens is not None  # it was refreshed
            live, own = slot.live, len(state) - 1
            if self.backend == "packed":
                tokens[k, :live] = slot.tokens
                tokens[k, live:width] = 0
                tokens[k, :length] = state[0]
                tokens[k, width:] = state[0, 0]
                tokens[k, width : width + own * length] = state[1:].reshape(-1)
                rows.append(live + own * length)
            else:
                units = tokens[k].reshape(1 + drafts, width)
                units[:, :live] = slot.tokens
                units[:, live:] = 0
                units[: 1 + own, :length] = state
                rows.append(live * (1 + own))
        unit, offset, bounds = masked_rows(states, self.denoiser.mask_token_id)
        which = np.repeat(np.arange(len(slots)), np.diff(bounds))
        wanted = which * count + self._first_row(unit, width) + offset
        before = self._rows_before(which, unit, offset, wanted, count, width)
        device = self.denoiser.device
        # One upload: everything that changes from step to step lies in one array.
        sent = _put(np.concatenate([tokens.reshape(-1), wanted, before]), device)
        logits = self.denoiser.forward_slots(
            self.memory,
            SlotRows(
                tokens=sent[: tokens.size].view(len(slots), count),
                positions=scene.positions[:, :count].contiguous(),  # a compiled forward takes strides for shapes
                mask=scene.mask[..., :count, : scene.columns + count],
                columns=scene.columns,
                slots=None,
                wanted=sent[tokens.size : tokens.size + len(wanted)],
                before=sent[tokens.size + len(wanted) :],
            ),
        )
        return BatchLogits(logits, unit, offset, bounds, [len(state) for state in states], rows, length)

    def _first_row(self, unit: np.ndarray, width: int) -> np.ndarray:
        """Where the block of each unit begins among the rows of its slot."""
        if self.backend == "expanded":
            return unit * width
        return np.where(unit == 0, 0, width + (unit - 1) * self.length)

    def _rows_before(
        self, which: np.ndarray, unit: np.ndarray, offset: np.ndarray, wanted: np.ndarray, count: int, width: int
    ) -> np.ndarray:
        """The row one position before each wanted one; -1 where that row is frozen."""
        start = np.array([self._slots[k].start for k in range(int(which.max(initial=-1)) + 1)], dtype=np.int64)[which]
        if self.context == "none":
            home = unit * width if self.backend == "expanded" else 0
            edge = which * count + home + self.length + start - 1
        else:
            edge = np.full(len(which), -1)
        return np.where(offset > 0, wanted - 1, np.where(start > 0, edge, wanted))

    def _make_scene(self, batch: int) -> _Scene:
        device = self.denoiser.device
        slots = [self._slots[k] for k in range(batch)]
        width = max(slot.live for slot in slots)
        columns = self._columns([slot.frozen for slot in slots])
        positions = np.zeros((batch, self._row_count(width, self.drafts)), dtype=np.int64)
        for k, slot in enumerate(slots):
            assert slot.positions is not None
            if self.backend == "packed":
                positions[k, : slot.live] = slot.positions
                positions[k, width:] = np.tile(slot.positions[: self.length], self.drafts)
            else:
                positions[k].reshape(1 + self.drafts, width)[:, : slot.live] = slot.positions
        frozen = _put(np.array([slot.frozen for slot in slots]), device)[:, None, None]
        live = _put(np.array([slot.live for slot in slots]), device)[:, None, None]
        seen = self._step_visibility(width, live)
        context = torch.arange(columns, device=device) < frozen
        visible = torch.cat([context.expand(-1, seen.shape[1], -1), seen], dim=2)
        return _Scene(columns, width, _put(positions, device), self.denoiser.attention_mask(visible))

    def _step_visibility(self, width: int, live: torch.Tensor) -> torch.Tensor:
        """bool [b, rows, rows] among the rows of a step; ``live`` int64 [b, 1, 1] rows of each slot are no padding."""
        row = torch.arange(self._row_count(width, self.drafts), device=live.device)
        if self.backend == "expanded":
            unit = row // width
            return (unit[:, None] == unit[None, :]) & (row % width < live)
        unit = torch.where(row < width, 0, 1 + (row - width) // self.length)
        own = unit[:, None] == unit[None, :]
        # A draft stands in place of the real block, and sees the other live rows.
        beside = (unit[:, None] > 0) & (row >= self.length) & (row < width)
        return (own | beside) & ((row < live) | (row >= width))


def _put(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
    if device.type != "cuda":
        return tensor.to(device)
    # Pinned memory comes from torch's caching host allocator, which keeps it until the copy is over.
    return tensor.pin_memory().to(device, non_blocking=True)
