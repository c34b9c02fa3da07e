"""Engines: how the forward passes of several sequences are run, each sequence in a slot of its own.

The decode loop asks for two things, a refresh forward at the start of a block and a step forward with drafts, and gets
the logits of masked positions, of all slots together so that they are ranked in one go. ``RowEngine`` is the plain
reference: one call per sequence, any denoiser. ``verify.slots`` does the same in one padded call over static buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from verify.context import ContextKeeper
from verify.denoiser import Denoiser
from verify.layout import SequenceLayout
from verify.packing import FORWARDS, Frame
from verify.ranking import RankedBlocks, gather_blocks, rank_rows


class EngineError(ValueError):
    """An engine that does not fit what it is to run."""


@dataclass(frozen=True, eq=False)
class BatchLogits:
    """Logits of the masked positions that one forward over several slots computed.

    Attributes:
        logits: [n, V], on the device; slot after slot, in it unit after unit, offsets ascending.
        unit: int [n], 0 for the root, ``1 + d`` for draft ``d`` of its slot.
        offset: int [n], offsets in the block.
        bounds: the ``k``-th slot of the call owns rows ``bounds[k]:bounds[k + 1]``.
        units: root and drafts per slot.
        rows: rows that each slot paid for, padding left out.
        length: positions per block, ``L``.
    """

    logits: torch.Tensor
    unit: np.ndarray
    offset: np.ndarray
    bounds: list[int]
    units: list[int]
    rows: list[int]
    length: int

    def rank(self, mask_token_id: int, top_j: int) -> list[RankedBlocks]:
        """Rank all rows with one transfer to the host; one :class:`RankedBlocks` per slot. Errors as in ``ranking``."""
        token, probability = rank_rows(self.logits, mask_token_id, top_j)
        ranked = []
        for k, units in enumerate(self.units):
            part = slice(self.bounds[k], self.bounds[k + 1])
            ranked.append(
                gather_blocks(
                    (token[part], probability[part]),
                    self.logits[part],
                    self.unit[part],
                    self.offset[part],
                    units,
                    self.length,
                )
            )
        return ranked


def masked_rows(states: Sequence[np.ndarray], mask_token_id: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """``unit``, ``offset`` and ``bounds`` of :class:`BatchLogits` for the states int64 [1 + D, L] of every slot."""
    found = [np.nonzero(state == mask_token_id) for state in states]
    bounds = np.cumsum([0, *(len(unit) for unit, _ in found)]).tolist()
    return np.concatenate([unit for unit, _ in found]), np.concatenate([offset for _, offset in found]), bounds


class Engine(Protocol):
    """Runs the forwards of the sequences that stand in its slots."""

    def check(self, denoiser: Denoiser, context: str, backend: str, drafts: int) -> None:
        """Raise :class:`EngineError` unless this engine runs ``denoiser`` so, with up to ``drafts`` drafts."""
        ...

    def open(self, slot: int, sample: int, layout: SequenceLayout) -> None:
        """A new sequence, prompt number ``sample``, takes ``slot``; whatever stood there is forgotten.

        Raises:
            EngineError: there is no such slot, or no room for a sequence of this layout.
        """
        ...

    def move(self, source: int, target: int) -> None:
        """The sequence in slot ``source`` goes on in ``target``, so that slots in use stay gapless from 0."""
        ...

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> BatchLogits:
        """Refresh forwards: ``sequences`` int64 [N], later blocks masked; ``starts`` the first positions of blocks."""
        ...

    def step(self, slots: Sequence[int], states: Sequence[np.ndarray]) -> BatchLogits:
        """Forwards of blocks that were refreshed: ``states`` int64 [1 + D, L] per slot, the real block first."""
        ...


class RowEngine:
    """One call of the denoiser per sequence and forward; contexts are values. The reference for every other engine."""

    def __init__(self, denoiser: Denoiser, context: str, backend: str) -> None:
        self.denoiser, self.context, self.backend = denoiser, context, backend
        self.forward = FORWARDS[backend]
        self._keepers: dict[int, ContextKeeper] = {}
        self._frames: dict[int, Frame] = {}

    def check(self, denoiser: Denoiser, context: str, backend: str, drafts: int) -> None:
        """See :meth:`Engine.check`; the number of drafts does not matter here."""
        if denoiser is not self.denoiser or (context, backend) != (self.context, self.backend):
            raise EngineError(
                f"the engine was made for another model, or for {self.context}, {self.backend} and not {context}, "
                f"{backend}; make one with verify.decode.make_engine"
            )

    def open(self, slot: int, sample: int, layout: SequenceLayout) -> None:
        self._keepers[slot] = ContextKeeper(self.denoiser, layout, self.context)

    def move(self, source: int, target: int) -> None:
        self._keepers[target] = self._keepers.pop(source)
        self._frames[target] = self._frames.pop(source)

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> BatchLogits:
        logits, states, rows = [], [], []
        for slot, sequence, start in zip(slots, sequences, starts, strict=True):
            keeper = self._keepers[slot]
            result, self._frames[slot] = keeper.refresh(
                torch.from_numpy(sequence.copy()).to(self.denoiser.device), start
            )
            logits.append(result.logits)
            states.append(sequence[None, start : start + keeper.layout.block_length])
            rows.append(result.rows)
        return self._collect(logits, states, rows)

    def step(self, slots: Sequence[int], states: Sequence[np.ndarray]) -> BatchLogits:
        results = [
            self.forward(self.denoiser, self._frames[slot], torch.from_numpy(state).to(self.denoiser.device))
            for slot, state in zip(slots, states, strict=True)
        ]
        return self._collect([result.logits for result in results], states, [result.rows for result in results])

    def _collect(self, logits: list[torch.Tensor], states: Sequence[np.ndarray], rows: list[int]) -> BatchLogits:
        unit, offset, bounds = masked_rows(states, self.denoiser.mask_token_id)
        picked = []
        for k, whole in enumerate(logits):
            part = slice(bounds[k], bounds[k + 1])
            device = whole.device
            picked.append(whole[torch.from_numpy(unit[part]).to(device), torch.from_numpy(offset[part]).to(device)])
        return BatchLogits(
            torch.cat(picked) if len(picked) > 1 else picked[0],
            unit,
            offset,
            bounds,
            [len(state) for state in states],
            rows,
            states[0].shape[1],
        )
