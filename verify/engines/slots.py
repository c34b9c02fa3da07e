"""The engine for devices: one padded forward for all sequences, over keys and values that stay where they are.

Every sequence owns a slot. A refresh writes the keys and values it freezes into the slot's buffer; a step forward adds
its own behind them and hands the model both as one view, so this engine copies nothing cached, neither per draft nor
per forward. Rows of the block come first among a sequence's live rows (order is free, as positions are given), so that
all slots have their blocks at the same place. Padding repeats a real row, sees what it sees, and is seen by none.

``packed`` puts drafts beside the live rows. ``expanded`` gives every draft a copy of all live rows, here as further
rows of the same sequence and not as further sequences: the same arithmetic, and the cached rows are still shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from verify.denoiser import Denoiser, SlotDenoiser, SlotRows
from verify.engines.attention_mask import refresh_attention_mask, step_attention_mask
from verify.engines.contract import BatchLogits, EngineError, masked_rows
from verify.layout import SequenceLayout, exactness

#: Cached columns that a forward reads are rounded up to this, so that few different widths occur.
COLUMN_STEP = 16


@dataclass(eq=False)
class _Slot:
    """What is known of the sequence in a slot.

    Attributes:
        layout: where its blocks lie.
        cached: rows in its buffer, ``C``.
        start: first position of the block.
        tokens: int64 [R], live rows, the block first; none before the first refresh.
        positions: int64 [R], of the live rows.
    """

    layout: SequenceLayout
    cached: int = 0
    start: int = 0
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    positions: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(eq=False)
class _Scene:
    """What stays as it is between two refreshes: shapes, positions and the mask for the largest number of drafts.

    Attributes:
        columns: cached columns read by everyone.
        width: live rows per slot, the shorter ones padded.
        positions: int64 [b, rows].
        mask: as the denoiser takes it, last two axes [rows, columns + rows].
    """

    columns: int
    width: int
    positions: torch.Tensor
    mask: torch.Tensor
    _last: tuple[int, torch.Tensor, torch.Tensor] | None = None

    def cut(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and mask of the first ``rows`` rows; kept, as most forwards of a block are of one width."""
        if self._last is None or self._last[0] != rows:
            mask = self.mask[..., :rows, : self.columns + rows]
            self._last = rows, self.positions[:, :rows].contiguous(), mask.contiguous()
        return self._last[1], self._last[2]


class SlotEngine:
    """Static key and value buffers per slot, one forward for all slots. It serves one decode at a time.

    Args:
        denoiser: a model that offers slots.
        cache: the cache mode.
        backend: ``packed`` or ``expanded``.
        slots: sequences at a time.
        layouts: of all sequences that will come; buffers are made for the longest.
        drafts: the most drafts at an anchor.

    Raises:
        EngineError: no layout, or fewer than one slot.
        LayoutError: an unknown cache mode or back-end.

    Memory: ``slots * (cached + live rows)`` keys and values per layer, where ``packed`` has ``R + drafts * L`` live
    rows and ``expanded`` ``(1 + drafts) * R``.
    """

    def __init__(
        self,
        denoiser: SlotDenoiser,
        cache: str,
        backend: str,
        slots: int,
        layouts: Sequence[SequenceLayout],
        drafts: int,
    ) -> None:
        exactness(cache, backend)
        if not layouts or slots < 1:
            raise EngineError(f"an engine needs a layout and a slot at least, got {len(layouts)} and {slots}")
        self.denoiser, self.cache, self.backend = denoiser, cache, backend
        self.slots, self.drafts = slots, drafts
        self.length = layouts[0].block_length
        self.longest = max(layout.length for layout in layouts)
        # Only a sequence's part from its first block on can be live behind a cached prefix.
        self.suffix = max(layout.length - layout.block_starts[0] for layout in layouts)
        cached = 0 if cache == "none" else self.longest - self.length
        live = {"none": self.longest, "prefix": self.suffix}.get(cache, self.length)
        self.cached_rows = -(-cached // COLUMN_STEP) * COLUMN_STEP
        self.live_rows = self._row_count(live, drafts)
        self.memory = denoiser.make_slots(slots, self.cached_rows, self.live_rows)
        self._slots: dict[int, _Slot] = {}
        self._scene: _Scene | None = None

    def _row_count(self, width: int, drafts: int) -> int:
        return width + drafts * self.length if self.backend == "packed" else (1 + drafts) * width

    def check(self, denoiser: Denoiser, cache: str, backend: str, drafts: int) -> None:
        """See :meth:`verify.engines.contract.Engine.check`."""
        if denoiser is not self.denoiser or (cache, backend) != (self.cache, self.backend):
            raise EngineError(
                f"the engine was made for another model, or for {self.cache}, {self.backend} and not {cache}, "
                f"{backend}; make one with verify.decoding.make_engine"
            )
        if drafts > self.drafts:
            raise EngineError(f"the graph has {drafts} drafts, the engine was made for at most {self.drafts}")

    def open(self, slot: int, prompt_index: int, layout: SequenceLayout) -> None:
        suffix = layout.length - layout.block_starts[0]
        if slot >= self.slots or layout.length > self.longest or layout.block_length != self.length:
            raise EngineError(
                f"the engine was made for {self.slots} slots, {self.longest} rows and blocks of {self.length}; prompt "
                f"{prompt_index} would take slot {slot}, {layout.length} rows, blocks of {layout.block_length}"
            )
        if self.cache == "prefix" and suffix > self.suffix:
            raise EngineError(
                f"the engine was made for up to {self.suffix} generated rows, prompt {prompt_index} has {suffix}"
            )
        self._slots[slot] = _Slot(layout)
        self.denoiser.clear_slot(self.memory, slot)

    def move(self, source: int, target: int) -> None:
        self._slots[target] = self._slots.pop(source)
        self.denoiser.move_slot(self.memory, source, target)
        self._scene = None

    def _columns(self, cached: Sequence[int]) -> int:
        if self.denoiser.few_shapes:
            return self.cached_rows
        return -(-max(cached) // COLUMN_STEP) * COLUMN_STEP

    # ---- refresh -----------------------------------------------------------------------------------------------------

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> BatchLogits:
        self._scene = None
        order = [self._refresh_order(self._slots[slot], start) for slot, start in zip(slots, starts, strict=True)]
        count = np.array([len(rows) for rows in order])
        width = int(count.max())
        tokens, positions = np.empty((2, len(slots), width), dtype=np.int64)
        for k, (rows, sequence) in enumerate(zip(order, sequences, strict=True)):
            tokens[k, : len(rows)], tokens[k, len(rows) :] = sequence[rows], sequence[rows[0]]
            positions[k, : len(rows)], positions[k, len(rows) :] = rows, rows[0]
        states = [s[None, start : start + self.length] for s, start in zip(sequences, starts, strict=True)]
        unit, offset, bounds = masked_rows(states, self.denoiser.mask_token_id)
        which = np.repeat(np.arange(len(slots)), np.diff(bounds))
        wanted = which * width + offset
        # The row one position before the block; -1 where it was cached before, its hidden state is kept then.
        edge = np.array(
            [
                int(np.argmax(rows == start - 1)) if (rows == start - 1).any() else -1
                for rows, start in zip(order, starts, strict=True)
            ]
        )
        first = np.asarray(starts)[which] == 0  # position 0 has no row before it and keeps its own
        before = np.where(edge[which] < 0, -1, which * width + edge[which])
        before = np.where(offset > 0, wanted - 1, np.where(first, wanted, before))
        cache_rows, cache_columns = self._cached_by_refresh(slots, order, starts)
        old = [self._slots[slot].cached for slot in slots]
        block_causal = self.cache == "block_causal"
        columns = self._columns(old) if block_causal else 0
        device = self.denoiser.device
        visible = refresh_attention_mask(
            _put(count, device), _put(np.array(old), device), columns, _put(positions // self.length, device),
            block_causal,
        )  # fmt: skip
        logits = self.denoiser.forward_slots(
            self.memory,
            SlotRows(
                tokens=_put(tokens, device),
                positions=_put(positions, device),
                mask=self.denoiser.prepare_mask(visible),
                columns=columns,
                slots=_put(np.asarray(slots), device),
                wanted=_put(wanted, device),
                before=_put(before, device),
                cache_rows=None if cache_rows is None else _put(cache_rows, device),
                cache_columns=None if cache_columns is None else _put(cache_columns, device),
                edge_rows=_put(edge, device),
            ),
        )
        for slot, rows, sequence, start in zip(slots, order, sequences, starts, strict=True):
            self._settle(self._slots[slot], rows, sequence, start)
        return BatchLogits(logits, unit, offset, bounds, [1] * len(slots), count.tolist(), self.length)

    def _refresh_order(self, slot: _Slot, start: int) -> np.ndarray:
        """Positions of the rows to compute, the block's first."""
        stop = start + self.length
        first, last = (slot.cached, stop) if self.cache == "block_causal" else (0, slot.layout.length)
        return np.concatenate([np.arange(start, stop), np.arange(first, start), np.arange(stop, last)])

    def _cached_by_refresh(
        self, slots: Sequence[int], order: Sequence[np.ndarray], starts: Sequence[int]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Which rows are cached (int64 [b, f]) and the columns they go to; short ones are padded with a scratch column.

        The rows of the block come first and are never cached, so it is always a run of rows behind them.
        """
        if self.cache == "none":
            return None, None
        count = [
            len(rows) - self.length if self.cache == "dual" else int(np.count_nonzero(rows < start))
            for rows, start in zip(order, starts, strict=True)
        ]
        rows = np.zeros((len(slots), max(1, *count)), dtype=np.int64)
        columns = np.full(rows.shape, self.cached_rows + self.live_rows - 1, dtype=np.int64)
        for k, slot in enumerate(slots):
            first = self._slots[slot].cached if self.cache == "block_causal" else 0
            rows[k, : count[k]] = self.length + np.arange(count[k])
            columns[k, : count[k]] = first + np.arange(count[k])
        return rows, columns

    def _settle(self, slot: _Slot, rows: np.ndarray, sequence: np.ndarray, start: int) -> None:
        """Note what the refresh left: the cached rows, and the rows that stay live."""
        slot.start = start
        slot.cached = {"none": 0, "dual": slot.layout.length - self.length}.get(self.cache, start)
        kept = {"none": rows, "prefix": rows[rows >= start]}.get(self.cache, rows[: self.length])
        slot.positions, slot.tokens = kept, sequence[kept]

    # ---- step --------------------------------------------------------------------------------------------------------

    def step(self, slots: Sequence[int], states: Sequence[np.ndarray]) -> BatchLogits:
        """See :class:`verify.engines.contract.Engine`; ``slots`` must be 0, 1, 2, ... as the decode loop keeps them."""
        if list(slots) != list(range(len(slots))):
            raise EngineError(f"a step takes the slots 0 to {len(slots) - 1}, got {list(slots)}; move them together")
        if any(slot not in self._slots or not len(self._slots[slot].tokens) for slot in slots):
            raise EngineError("a step needs a refresh of every slot before it")
        scene = self._scene
        if scene is None or len(scene.positions) != len(slots):
            scene = self._scene = self._make_scene(len(slots))
        drafts = max(len(state) for state in states) - 1
        if drafts > self.drafts:
            raise EngineError(f"{drafts} drafts at an anchor, but the engine was made for at most {self.drafts}")
        if self.denoiser.few_shapes and drafts:
            drafts = min(self.drafts, 1 << (drafts - 1).bit_length())
        tokens, rows = self._step_tokens(states, scene.width, drafts)
        count = tokens.shape[1]
        unit, offset, bounds = masked_rows(states, self.denoiser.mask_token_id)
        which = np.repeat(np.arange(len(slots)), np.diff(bounds))
        wanted = which * count + self._first_row(unit, scene.width) + offset
        parts = [tokens.reshape(-1), wanted]
        if self.denoiser.logits_shift:
            parts.append(self._rows_before(which, unit, offset, wanted, count, scene.width))
        # One upload: everything that changes from step to step lies in one array.
        sent = _put(np.concatenate(parts), self.denoiser.device)
        positions, mask = scene.cut(count)
        logits = self.denoiser.forward_slots(
            self.memory,
            SlotRows(
                tokens=sent[: tokens.size].view(len(slots), count),
                positions=positions,
                mask=mask,
                columns=scene.columns,
                slots=None,
                wanted=sent[tokens.size : tokens.size + len(wanted)],
                before=sent[-len(wanted) :],
            ),
        )
        return BatchLogits(logits, unit, offset, bounds, [len(state) for state in states], rows, self.length)

    def _step_tokens(self, states: Sequence[np.ndarray], width: int, drafts: int) -> tuple[np.ndarray, list[int]]:
        """int64 [b, rows] tokens of a step with room for ``drafts`` drafts, and the rows that are no padding."""
        tokens = np.empty((len(states), self._row_count(width, drafts)), dtype=np.int64)
        paid = []
        for k, state in enumerate(states):
            slot, own = self._slots[k], len(state) - 1
            live = len(slot.tokens)
            if self.backend == "packed":
                tokens[k, :live], tokens[k, live:] = slot.tokens, state[0, 0]
                tokens[k, : self.length] = state[0]
                tokens[k, width : width + own * self.length] = state[1:].reshape(-1)
                paid.append(live + own * self.length)
            else:
                units = tokens[k].reshape(1 + drafts, width)
                units[:, :live], units[:, live:] = slot.tokens, state[0, 0]
                units[: 1 + own, : self.length] = state
                paid.append(live * (1 + own))
        return tokens, paid

    def _first_row(self, unit: np.ndarray, width: int) -> np.ndarray:
        """Where the block of each unit begins among the rows of its slot."""
        if self.backend == "expanded":
            return unit * width
        return np.where(unit == 0, 0, width + (unit - 1) * self.length)

    def _rows_before(
        self, which: np.ndarray, unit: np.ndarray, offset: np.ndarray, wanted: np.ndarray, count: int, width: int
    ) -> np.ndarray:
        """The row one position before each wanted one; -1 where that row is cached, the row itself at position 0."""
        start = np.array([self._slots[k].start for k in range(int(which.max(initial=-1)) + 1)], dtype=np.int64)[which]
        edge = np.full(len(which), -1)
        if self.cache == "none":
            home = unit * width if self.backend == "expanded" else 0
            edge = which * count + home + self.length + start - 1
        return np.where(offset > 0, wanted - 1, np.where(start > 0, edge, wanted))

    def _make_scene(self, batch: int) -> _Scene:
        device = self.denoiser.device
        slots = [self._slots[k] for k in range(batch)]
        cached, live = [slot.cached for slot in slots], [len(slot.tokens) for slot in slots]
        width, columns = max(live), self._columns(cached)
        positions = np.empty((batch, self._row_count(width, self.drafts)), dtype=np.int64)
        for k, slot in enumerate(slots):
            positions[k] = slot.positions[0]
            if self.backend == "packed":
                positions[k, : live[k]] = slot.positions
                positions[k, width:] = np.tile(slot.positions[: self.length], self.drafts)
            else:
                positions[k].reshape(1 + self.drafts, width)[:, : live[k]] = slot.positions
        visible = step_attention_mask(
            _put(np.array(cached), device), _put(np.array(live), device), columns, width, self.drafts, self.length,
            self.backend == "packed",
        )  # fmt: skip
        return _Scene(columns, width, _put(positions, device), self.denoiser.prepare_mask(visible))


def _put(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
    if device.type != "cuda":
        return tensor.to(device)
    # Pinned memory comes from torch's caching host allocator, which keeps it until the copy is over.
    return tensor.pin_memory().to(device, non_blocking=True)
