"""The plain engine with copies (``verify.engines.copies``): one call of the denoiser per sequence and forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from verify.denoiser import Denoiser, cached_rows
from verify.engines.contract import BatchLogits, no_bridges
from verify.engines.copies import HeldCopies, check_copies
from verify.engines.packing import Frame
from verify.engines.rows import RowEngine
from verify.layout import SequenceLayout


@dataclass(frozen=True, eq=False)
class _Unit:
    """Rows that see each other and the cached rows ``low`` to ``high - 1``; the wanted block's rows first."""

    tokens: torch.Tensor
    positions: torch.Tensor
    low: int
    high: int


class CopyingRowEngine(RowEngine):
    """The plain engine with copies; the reference for the other. Its denoiser must offer copies."""

    bridged_cache = "dual"

    def __init__(self, denoiser: Denoiser, cache: str, backend: str) -> None:
        check_copies(denoiser, cache)
        super().__init__(denoiser, cache, backend)
        self._copies = HeldCopies()
        self._both: dict[int, Any] = {}  # the cached rows, and behind them those of the copy

    def open(self, slot: int, prompt_index: int, layout: SequenceLayout) -> None:
        super().open(slot, prompt_index, layout)
        self._copies.drop(slot)

    def move(self, source: int, target: int) -> None:
        super().move(source, target)
        self._copies.move(source, target)
        self._both[target] = self._both.pop(source, None)

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> BatchLogits:
        for slot, sequence, start in zip(slots, sequences, starts, strict=True):
            self._copies.begin(slot, sequence, start)
            self._both[slot] = None
        return super().refresh(slots, sequences, starts)

    def cross(self, slot: int, sequence: np.ndarray, start: int) -> None:
        length = self._frames[slot].block_length
        self._copies.check_crossing(slot, sequence, start, length)
        cache = self._both[slot].last(len(sequence) - length)
        block = slice(start, start + length)
        device = self.denoiser.device
        self._frames[slot] = Frame(
            torch.from_numpy(sequence[block].copy()).to(device),
            torch.arange(start, start + length, device=device),
            0,
            length,
            cache,
        )
        self._copies.begin(slot, sequence, start)
        self._both[slot] = None

    def step(
        self, slots: Sequence[int], states: Sequence[np.ndarray], bridges: Sequence[np.ndarray] | None = None
    ) -> BatchLogits:
        bridges = no_bridges(states) if bridges is None else bridges
        logits, rows = [], []
        for slot, state, bridge in zip(slots, states, bridges, strict=True):
            found, count = self._step(slot, state, bridge)
            logits.append(found)
            rows.append(count)
        ranked = [np.concatenate([state, bridge[:, 1]]) for state, bridge in zip(states, bridges, strict=True)]
        return self._collect(logits, ranked, rows)

    def _step(self, slot: int, states: np.ndarray, bridges: np.ndarray) -> tuple[torch.Tensor, int]:
        """Logits [1 + D + K, L, V] of one sequence, and the rows paid."""
        frame, device = self._frames[slot], self.denoiser.device
        if not len(bridges):
            result = self.forward(self.denoiser, frame, torch.from_numpy(states).to(device))
            return result.logits, result.query_tokens
        copy = self._copies.wanted(slot, bridges, self.denoiser.mask_token_id)
        cached = cached_rows(frame.cache)
        here = [_Unit(torch.from_numpy(state).to(device), frame.positions, 0, cached) for state in states]
        if copy is not None:
            rows, positions = (torch.from_numpy(array).to(device) for array in (copy.tokens, copy.positions))
            units, cache = [_Unit(rows, positions, 0, 0), *here], frame.cache
            keep = torch.arange(frame.block_length, len(rows), device=device)
        else:
            there = frame.positions + frame.block_length
            ahead = [_Unit(torch.from_numpy(state).to(device), there, cached, 2 * cached) for state in bridges[:, 1]]
            units, cache, keep = [*ahead, *here], self._both[slot], None
        logits, both = _forward_units(self.denoiser, units, cache, keep, self.backend == "packed")
        if copy is not None:
            self._copies.hold(slot, copy)
            self._both[slot] = both
        return logits.roll(-len(bridges), 0), sum(len(unit.tokens) for unit in units)


def _forward_units(
    denoiser: Denoiser, units: Sequence[_Unit], cache: Any, keep: torch.Tensor | None, packed: bool
) -> tuple[torch.Tensor, Any]:
    """Logits [units, L, V] of the first ``L`` rows of every unit, ``L`` being the shortest unit, and the new cache.

    ``keep``: rows of the first unit that are cached behind what ``cache`` holds.
    """
    size = [len(unit.tokens) for unit in units]
    device, cached, length = denoiser.device, cached_rows(cache), min(size)
    column = torch.arange(cached, device=device)
    seen = [((unit.low <= column) & (column < unit.high)).expand(len(unit.tokens), -1) for unit in units]
    wanted = torch.arange(length, device=device)
    if packed:
        own = torch.block_diag(*[torch.ones(rows, rows, device=device) for rows in size]).bool()
        first = np.cumsum([0, *size[:-1]]).tolist()
        logits, both = denoiser(
            torch.cat([unit.tokens for unit in units])[None],
            torch.cat([unit.positions for unit in units])[None],
            torch.cat([torch.cat(seen), own], dim=1)[None],
            cache,
            logit_rows=torch.cat([begin + wanted for begin in first]),
            cache_rows=keep,
        )
        return logits.reshape(len(units), length, -1), both
    # One sequence of the batch per unit; padding repeats the first row, sees itself, and is seen by none.
    width = max(size)
    tokens = torch.stack([_padded(unit.tokens, width) for unit in units])
    positions = torch.stack([_padded(unit.positions, width) for unit in units])
    mask = torch.eye(width, dtype=torch.bool, device=device).repeat(len(units), 1, 1)
    mask = torch.cat([mask.new_zeros(len(units), width, cached), mask], dim=2)
    for k, rows in enumerate(size):
        mask[k, :rows, :cached], mask[k, :rows, cached : cached + rows] = seen[k], True
    logits, both = denoiser(tokens, positions, mask, cache, logit_rows=wanted, cache_rows=keep)
    return logits, both.first() if both is not None else None


def _padded(row: torch.Tensor, width: int) -> torch.Tensor:
    return torch.cat([row, row[:1].expand(width - len(row))])
