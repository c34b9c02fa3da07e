"""The contract of engines: how the forward passes of several sequences are run, each sequence in a slot of its own.

The decode loop asks for two things, a refresh forward at the start of a block and a step forward with drafts, and gets
the logits of masked positions, of all slots together so that they are ranked in one go. ``verify.engines.rows`` is the
plain reference, ``verify.engines.slots`` does the same in one padded call over static buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from verify.denoiser import Denoiser
from verify.layout import SequenceLayout
from verify.ranked import RankedBlocks
from verify.ranking import gather_blocks, rank_rows


class EngineError(ValueError):
    """An engine that does not fit what it is to run."""


@dataclass(frozen=True, eq=False)
class BatchLogits:
    """Logits of the masked positions that one forward over several slots computed.

    Attributes:
        logits: [n, V], on the device; slot after slot, in it unit after unit, offsets ascending.
        unit: int [n], 0 for the root, ``1 + d`` for draft ``d`` of its slot, then the next blocks of its bridges.
        offset: int [n], offsets in the block.
        bounds: the ``k``-th slot of the call owns rows ``bounds[k]:bounds[k + 1]``.
        units: root, drafts and bridges per slot.
        query_tokens: rows that each slot paid for, padding left out.
        lengths: positions of each slot's blocks, ``L``.
    """

    logits: torch.Tensor
    unit: np.ndarray
    offset: np.ndarray
    bounds: list[int]
    units: list[int]
    query_tokens: list[int]
    lengths: list[int]

    def rank(
        self, mask_token_id: int, top_j: int, keep_logits: bool = True, entropies: bool = False
    ) -> list[RankedBlocks]:
        """Rank all rows with one transfer to the host; one :class:`RankedBlocks` per slot. Errors as in ``ranking``.

        ``keep_logits``: whether they refer to the logits, which then stay on the device as long as one of them is kept.
        ``entropies``: whether they hold the entropies.
        """
        token, probability, entropy = rank_rows(self.logits, mask_token_id, top_j, entropies)
        ranked = []
        for k, units in enumerate(self.units):
            part = slice(self.bounds[k], self.bounds[k + 1])
            ranked.append(
                gather_blocks(
                    (token[part], probability[part], None if entropy is None else entropy[part]),
                    self.logits[part] if keep_logits else None,
                    self.unit[part],
                    self.offset[part],
                    units,
                    self.lengths[k],
                )
            )
        return ranked


def no_bridges(states: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For every slot of ``states`` int64 [1 + D, L] the bridges int64 [0, 2, L]."""
    return [np.zeros((0, 2, state.shape[1]), dtype=np.int64) for state in states]


def masked_rows(states: Sequence[np.ndarray], mask_token_id: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """``unit``, ``offset`` and ``bounds`` of :class:`BatchLogits` for the states int64 [1 + D, L] of every slot."""
    found = [np.nonzero(state == mask_token_id) for state in states]
    bounds = np.cumsum([0, *(len(unit) for unit, _ in found)]).tolist()
    return np.concatenate([unit for unit, _ in found]), np.concatenate([offset for _, offset in found]), bounds


class Engine(Protocol):
    """Runs the forwards of the sequences that stand in its slots."""

    def check(self, denoiser: Denoiser, cache: str, backend: str, drafts: int, bridges: int) -> None:
        """Raise :class:`EngineError` unless this engine runs ``denoiser`` so, with that many drafts and bridges."""
        ...

    def open(self, slot: int, prompt_index: int, layout: SequenceLayout) -> None:
        """A new sequence, prompt number ``prompt_index``, takes ``slot``; whatever stood there is forgotten.

        Raises:
            EngineError: there is no such slot, or no room for a sequence of this layout.
        """
        ...

    def move(self, source: int, target: int) -> None:
        """The sequence in slot ``source`` goes on in ``target``, so that slots in use stay gapless from 0."""
        ...

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> BatchLogits:
        """Refresh forwards: ``sequences`` int64 [N], later blocks masked; ``starts`` the first positions of blocks.

        They give the logits of all positions that the block may have (:meth:`SequenceLayout.reach`).
        """
        ...

    def narrow(self, slot: int, length: int) -> None:
        """A schedule made the block that was begun by the last refresh of ``slot`` ``length`` positions long.

        What was computed of the positions behind it is cached, in cache mode dual, as that of other later blocks is.
        """
        ...

    def cross(self, slot: int, sequence: np.ndarray, start: int) -> None:
        """The sequence in ``slot`` begins the block at ``start`` without a refresh, as a bridge computed it already.

        Its next step also caches the finished block before it; a held copy (``verify.engines.copies``) has done so.
        """
        ...

    def step(
        self, slots: Sequence[int], states: Sequence[np.ndarray], bridges: Sequence[np.ndarray] | None = None
    ) -> BatchLogits:
        """Forwards of blocks that have begun: ``states`` int64 [1 + D, L] per slot, the real block first.

        ``bridges``, int64 [K, 2, L] per slot (None: no slot has any), are evaluated beside them; the logits of their
        second blocks follow those of the drafts.
        """
        ...
