"""The engine for devices: one padded forward for all sequences, over keys and values that stay where they are.

Every sequence owns a slot. A refresh writes the keys and values that it caches into the slot's buffer; a step forward
adds its own behind them and hands the model both as one view, so this engine copies nothing cached, neither per draft
nor per forward. Rows of the block come first among a sequence's live rows (order is free, as positions are given), so
that all slots have their blocks at the same place. Padding repeats a real row, sees what it sees, and is seen by none.

``packed`` puts drafts beside the live rows. ``expanded`` gives every draft a copy of all live rows, here as further
rows of the same sequence and not as further sequences: the same arithmetic, and the cached rows are still shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from verify.denoiser import Denoiser, SlotDenoiser, SlotRows
from verify.engines.attention_mask import refresh_attention_mask
from verify.engines.contract import BatchLogits, EngineError, masked_rows, no_bridges
from verify.engines.step_rows import Scene, SlotState, StepRows, cached_by_refresh, few, refresh_order
from verify.layout import SequenceLayout, exactness

#: Cached columns that a forward reads are rounded up to this, so that few different widths occur.
COLUMN_STEP = 16


class SlotEngine:
    """Static key and value buffers per slot, one forward for all slots. It serves one decode at a time.

    Args:
        denoiser: a model that offers slots.
        cache: the cache mode.
        backend: ``packed`` or ``expanded``.
        slots: sequences at a time.
        layouts: of all sequences that will come; buffers are made for the longest.
        drafts: the most drafts at an anchor.
        bridges: the most bridges.

    Raises:
        EngineError: no layout, or fewer than one slot.
        LayoutError: an unknown cache mode or back-end.

    Memory: ``slots * (cached + live rows)`` keys and values per layer, where ``packed`` has
    ``R + (drafts + 2 * bridges) * L`` live rows and ``expanded`` ``(1 + drafts + bridges) * R``. Where there are
    bridges, ``R`` holds the block that is carried too and, in ``expanded``, the next one behind each copy. Blocks of
    different lengths are padded to the longest that stands in a slot, to ``L`` where forwards come in few shapes.
    """

    def __init__(
        self,
        denoiser: SlotDenoiser,
        cache: str,
        backend: str,
        slots: int,
        layouts: Sequence[SequenceLayout],
        drafts: int,
        bridges: int = 0,
    ) -> None:
        exactness(cache, backend)
        if not layouts or slots < 1:
            raise EngineError(f"an engine needs a layout and a slot at least, got {len(layouts)} and {slots}")
        self.denoiser, self.cache, self.backend = denoiser, cache, backend
        self.slots, self.drafts, self.bridges = slots, drafts, bridges if cache == "block_causal" else 0
        self.length = layouts[0].block_length
        self.longest = max(layout.length for layout in layouts)
        # Only a sequence's part from its first block on can be live behind a cached prefix.
        self.suffix = max(layout.length - layout.block_starts[0] for layout in layouts)
        self.scheduled = layouts[0].schedule is not None
        # Under a schedule a refresh in dual mode caches all but the block's first row, as its end is not known yet.
        cached = 0 if cache == "none" else self.longest - (1 if self.scheduled else self.length)
        live = {"none": self.longest, "prefix": self.suffix}.get(cache, self.length)
        live += self.length if self.bridges else 0  # a finished block that is carried beside the next one
        self.cached_rows = -(-cached // COLUMN_STEP) * COLUMN_STEP
        self.live_rows = StepRows(self.length, live, self.bridges, backend == "packed").count(drafts)
        self.memory = self._make_memory()
        self._slots: dict[int, SlotState] = {}
        self._scenes: dict[tuple[int, int], Scene] = {}

    def _make_memory(self) -> Any:
        return self.denoiser.make_slots(self.slots, self.cached_rows, self.live_rows)

    def check(self, denoiser: Denoiser, cache: str, backend: str, drafts: int, bridges: int) -> None:
        """See :meth:`verify.engines.contract.Engine.check`."""
        if denoiser is not self.denoiser or (cache, backend) != (self.cache, self.backend):
            raise EngineError(
                f"the engine was made for another model, or for {self.cache}, {self.backend} and not {cache}, "
                f"{backend}; make one with verify.decoding.make_engine"
            )
        if drafts > self.drafts or bridges > self.bridges:
            raise EngineError(
                f"up to {drafts} drafts and {bridges} bridges at an anchor, but the engine was made for at most "
                f"{self.drafts} and {self.bridges}"
            )

    def open(self, slot: int, prompt_index: int, layout: SequenceLayout) -> None:
        suffix = layout.length - layout.block_starts[0]
        if (layout.schedule is not None) != self.scheduled:
            raise EngineError("an engine runs blocks of one length or blocks under a schedule, not both; make two")
        if slot >= self.slots or layout.length > self.longest or layout.block_length != self.length:
            raise EngineError(
                f"the engine was made for {self.slots} slots, {self.longest} rows and blocks of {self.length}; prompt "
                f"{prompt_index} would take slot {slot}, {layout.length} rows, blocks of {layout.block_length}"
            )
        if self.cache == "prefix" and suffix > self.suffix:
            raise EngineError(
                f"the engine was made for up to {self.suffix} generated rows, prompt {prompt_index} has {suffix}"
            )
        self._slots[slot] = SlotState(layout)
        self.denoiser.clear_slot(self.memory, slot)

    def move(self, source: int, target: int) -> None:
        self._slots[target] = self._slots.pop(source)
        self.denoiser.move_slot(self.memory, source, target)
        self._scenes.clear()

    def _columns(self, cached: Sequence[int]) -> int:
        if self.denoiser.few_shapes:
            return self.cached_rows
        return -(-max(cached) // COLUMN_STEP) * COLUMN_STEP

    # ---- refresh -----------------------------------------------------------------------------------------------------

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> BatchLogits:
        self._scenes.clear()
        order = [self._refresh_order(self._slots[slot], start) for slot, start in zip(slots, starts, strict=True)]
        count = np.array([len(rows) for rows in order])
        width = int(count.max())
        tokens, positions = np.empty((2, len(slots), width), dtype=np.int64)
        for k, (rows, sequence) in enumerate(zip(order, sequences, strict=True)):
            tokens[k, : len(rows)], tokens[k, len(rows) :] = sequence[rows], sequence[rows[0]]
            positions[k, : len(rows)], positions[k, len(rows) :] = rows, rows[0]
        reach = [self._slots[slot].layout.reach(start) for slot, start in zip(slots, starts, strict=True)]
        ends = [start + length for start, length in zip(starts, reach, strict=True)]
        states = [s[None, start:end] for s, start, end in zip(sequences, starts, ends, strict=True)]
        unit, offset, bounds = masked_rows(states, self.denoiser.mask_token_id)
        which = np.repeat(np.arange(len(slots)), np.diff(bounds))
        logit_rows = which * width + offset
        # The row one position before the block; -1 where it was cached before, its hidden state is kept then.
        edge = np.array(
            [
                int(np.argmax(rows == start - 1)) if (rows == start - 1).any() else -1
                for rows, start in zip(order, starts, strict=True)
            ]
        )
        first = np.asarray(starts)[which] == 0  # position 0 has no row before it and keeps its own
        before = np.where(edge[which] < 0, -1, which * width + edge[which])
        before = np.where(offset > 0, logit_rows - 1, np.where(first, logit_rows, before))
        cache_rows, cache_columns = cached_by_refresh(
            [self._slots[slot] for slot in slots], order, starts, self.cache, self.cached_rows + self.live_rows - 1
        )
        old = [self._slots[slot].cached for slot in slots]
        block_causal = self.cache == "block_causal"
        columns = self._columns(old) if block_causal else 0
        device = self.denoiser.device
        visible = refresh_attention_mask(
            put(count, device), put(np.array(old), device), columns, put(positions // self.length, device),
            block_causal,
        )  # fmt: skip
        logits = self.denoiser.forward_slots(
            self.memory,
            SlotRows(
                tokens=put(tokens, device),
                positions=put(positions, device),
                mask=self.denoiser.prepare_mask(visible),
                columns=columns,
                slots=put(np.asarray(slots), device),
                logit_rows=put(logit_rows, device),
                before=put(before, device),
                cache_rows=None if cache_rows is None else put(cache_rows, device),
                cache_columns=None if cache_columns is None else put(cache_columns, device),
                edge_rows=put(edge, device),
            ),
        )
        for slot, rows, sequence, start in zip(slots, order, sequences, starts, strict=True):
            self._settle(self._slots[slot], rows, sequence, start)
        return BatchLogits(logits, unit, offset, bounds, [1] * len(slots), count.tolist(), reach)

    def _refresh_order(self, slot: SlotState, start: int) -> np.ndarray:
        """Positions of the rows to compute, the block's first."""
        if self.cache == "block_causal":
            return np.roll(np.arange(slot.cached, start + self.length), self.length)
        return refresh_order(slot.layout.length, start, slot.layout.reach(start))

    def _settle(self, slot: SlotState, rows: np.ndarray, sequence: np.ndarray, start: int) -> None:
        """Note what the refresh left: the cached rows, and the rows that stay live."""
        slot.start, slot.carried, slot.length = start, 0, slot.layout.reach(start)
        slot.cached = {"none": 0, "dual": slot.layout.length - slot.length}.get(self.cache, start)
        kept = {"none": rows, "prefix": rows[rows >= start]}.get(self.cache, rows[: slot.length])
        slot.positions, slot.tokens = kept, sequence[kept]

    def narrow(self, slot: int, length: int) -> None:
        """See :meth:`verify.engines.contract.Engine.narrow`."""
        self._slots[slot].narrow(length, self.cache)
        self._scenes.clear()

    # ---- step --------------------------------------------------------------------------------------------------------

    def cross(self, slot: int, sequence: np.ndarray, start: int) -> None:
        """See :meth:`verify.engines.contract.Engine.cross`."""
        there = self._slots[slot]
        before = np.arange(there.cached, start)
        if len(before) > self.length or self.bridges == 0:
            raise EngineError(
                f"{len(before)} rows before the block are not cached; the engine was made to carry "
                f"{self.length if self.bridges else 0}"
            )
        there.start, there.carried, there.length = start, len(before), self.length
        there.positions = np.concatenate([np.arange(start, start + self.length), before])
        there.tokens = sequence[there.positions]
        self._scenes.clear()

    def step(
        self, slots: Sequence[int], states: Sequence[np.ndarray], bridges: Sequence[np.ndarray] | None = None
    ) -> BatchLogits:
        """See :class:`verify.engines.contract.Engine`; ``slots`` must be 0, 1, 2, ... as the decode loop keeps them."""
        bridges = no_bridges(states) if bridges is None else bridges
        drafts, pairs = self._check_step(slots, states, bridges)
        if self.denoiser.few_shapes:
            drafts, pairs = few(drafts, self.drafts), few(pairs, self.bridges)
        scene = self._scenes.get((len(slots), pairs))
        if scene is None:
            scene = self._scenes[len(slots), pairs] = self._make_scene(len(slots), pairs)
        layout, count = scene.layout, scene.layout.count(drafts)
        tokens = np.empty((len(slots), count), dtype=np.int64)
        paid = [
            layout.fill(tokens[k], self._slots[k].tokens, states[k], bridges[k], int(states[k][0, 0]))
            for k in range(len(slots))
        ]
        ranked = [np.concatenate([state, pair[:, 1]]) for state, pair in zip(states, bridges, strict=True)]
        unit, offset, bounds = masked_rows(ranked, self.denoiser.mask_token_id)
        which = np.repeat(np.arange(len(slots)), np.diff(bounds))
        own = np.array([len(state) - 1 for state in states])[which]
        logit_rows = which * count + layout.first(unit, own) + offset
        parts = [tokens.reshape(-1), logit_rows]
        if self.denoiser.logits_shift:
            first = self._rows_before(layout, which * count, which, unit > own, logit_rows - offset)
            parts.append(np.where(offset > 0, logit_rows - 1, first))
        # One upload: everything that changes from step to step lies in one array.
        sent = put(np.concatenate(parts), self.denoiser.device)
        positions, mask = scene.cut(count)
        rows = SlotRows(
            tokens=sent[: tokens.size].view(len(slots), count),
            positions=positions,
            mask=mask,
            columns=scene.columns,
            slots=None,
            logit_rows=sent[tokens.size : tokens.size + len(logit_rows)],
            before=sent[-len(logit_rows) :],
        )
        carrying = [slot for slot in slots if self._slots[slot].carried]
        if carrying:
            rows = self._carry(rows, slots)
        logits = self.denoiser.forward_slots(self.memory, rows)
        for slot in carrying:
            self._slots[slot].settle()
        if carrying:
            self._scenes.clear()
        lengths = [state.shape[1] for state in states]
        return BatchLogits(logits, unit, offset, bounds, [len(one) for one in ranked], paid, lengths)

    def _check_step(
        self, slots: Sequence[int], states: Sequence[np.ndarray], bridges: Sequence[np.ndarray]
    ) -> tuple[int, int]:
        """The most drafts and bridges of a slot; EngineError where the step is none that can be run."""
        if list(slots) != list(range(len(slots))):
            raise EngineError(f"a step takes the slots 0 to {len(slots) - 1}, got {list(slots)}; move them together")
        if any(slot not in self._slots or not len(self._slots[slot].tokens) for slot in slots):
            raise EngineError("a step needs a refresh of every slot before it")
        drafts, pairs = max(map(len, states)) - 1, max(map(len, bridges))
        if drafts > self.drafts or pairs > self.bridges:
            raise EngineError(
                f"{drafts} drafts and {pairs} bridges at an anchor, but the engine was made for at most {self.drafts} "
                f"and {self.bridges}"
            )
        return drafts, pairs

    def _carry(self, rows: SlotRows, slots: Sequence[int]) -> SlotRows:
        """The same forward, which also caches the rows that slots carry; the others write into a scratch column."""
        source = np.zeros((len(slots), self.length), dtype=np.int64)
        columns = np.full(source.shape, self.cached_rows + self.live_rows - 1, dtype=np.int64)
        edge = np.full(len(slots), -1)
        for k, slot in enumerate(slots):
            there = self._slots[slot]
            source[k, : there.carried] = self.length + np.arange(there.carried)
            columns[k, : there.carried] = there.cached + np.arange(there.carried)
            edge[k] = self.length + there.carried - 1 if there.carried else -1
        device = self.denoiser.device
        return replace(
            rows, cache_rows=put(source, device), cache_columns=put(columns, device), edge_rows=put(edge, device)
        )

    def _rows_before(
        self, layout: StepRows, home: np.ndarray, which: np.ndarray, bridge: np.ndarray, logit_rows: np.ndarray
    ) -> np.ndarray:
        """The row one position before each first row of a block: -1 where it is cached, the row itself at position 0.

        Args:
            layout: of the forward.
            home: int [n], the first row of the slot.
            which: int [n], the slot.
            bridge: bool [n], whether the block is the next one of a bridge, behind the block that is complete there.
            logit_rows: int [n], the first rows.
        """
        start, carried, length = (
            np.array([getattr(self._slots[k], name) for k in range(int(which.max(initial=-1)) + 1)], dtype=np.int64)[
                which
            ]
            for name in ("start", "carried", "length")
        )
        live = home if layout.packed else logit_rows  # where the live rows begin that the block belongs to
        distance = start if self.cache == "none" else carried  # live rows before the block, behind it among the rows
        before = np.where(distance > 0, live + length + distance - 1, -1)
        before = np.where(start > 0, before, logit_rows)
        return np.where(
            bridge, logit_rows - 1 if layout.packed else logit_rows - layout.width + self.length - 1, before
        )

    def _make_scene(self, batch: int, bridges: int) -> Scene:
        device = self.denoiser.device
        slots = [self._slots[k] for k in range(batch)]
        cached, live = [slot.cached for slot in slots], [len(slot.tokens) for slot in slots]
        own = [slot.length for slot in slots]
        widest = self.length if self.denoiser.few_shapes else max(own)
        layout = StepRows(widest, max(*live, widest), bridges, self.backend == "packed")
        # Live rows stand behind the columns that carried rows go to, as both are written in one forward.
        columns = self._columns([slot.cached + slot.carried for slot in slots])
        positions = np.stack([layout.positions(slot.positions, self.drafts) for slot in slots])
        visible = layout.attention_mask(
            put(np.array(cached), device), put(np.array(live), device), put(np.array(own), device), columns,
            self.drafts, self.cache == "block_causal",
        )  # fmt: skip
        return Scene(columns, layout, put(positions, device), self.denoiser.prepare_mask(visible))


def put(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """``array`` as int64 on ``device``, without a wait for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
    if device.type != "cuda":
        return tensor.to(device)
    # Pinned by torch's caching host allocator, which keeps it until the copy is over.
    return tensor.pin_memory().to(device, non_blocking=True)
