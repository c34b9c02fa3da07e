"""Log-driven decoding: one model pays the time, the state log of another says what drafts that learn get to see.

What an informed drafter proposes depends on every state that its forwards evaluated, so plain traces cannot drive it
(``benchmarks/trace_driven.py`` drives graphs). A log of the states that the same drafter evaluated on the recorded
model can. Here a forward of the model is run and its logits are ranked, as in any decode; then the ranks are thrown
away, and the loop sees those of the log. Proposals, acceptance, tokens and forward passes are those of the recorded
decode, and the time is that of the model that was run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.trace_driven import recorded_config
from calibrate.traces.state_log import StateLog
from calibrate.traces.table import TraceError
from drafting.state_replay import ranked_blocks
from verify.denoiser import Denoiser
from verify.engines.contract import BatchLogits, Engine, EngineError, no_bridges
from verify.layout import SequenceLayout
from verify.ranked import RankedBlocks


@dataclass(frozen=True, eq=False)
class DrivenRanks:
    """What a forward gives the loop: it was paid for by one model, and its ranks are those of another.

    Attributes:
        paid: the forward that was run.
        known: the ranks of the log, one per slot.
    """

    paid: BatchLogits
    known: list[RankedBlocks]

    @property
    def query_tokens(self) -> list[int]:
        """Of the forward that was run."""
        return self.paid.query_tokens

    def rank(
        self, mask_token_id: int, top_j: int, keep_logits: bool = True, entropies: bool = False
    ) -> list[RankedBlocks]:
        """Rank the logits that were computed, for the time that takes, and give the recorded ranks."""
        self.paid.rank(mask_token_id, top_j, keep_logits, entropies)
        return self.known


class LogDrivenEngine:
    """An engine whose ranks come from a state log; may be passed for the denoiser too, of which only facts are asked.

    Args:
        log: recorded with the very drafter that is to be driven; see ``calibrate.recording.states``.
        inner: runs the real forwards.
        mask_token_id, vocabulary_size: of the model that runs.
        device: of the model that runs.

    Raises:
        TraceError: recorded tokens that the model's vocabulary has not or that are its mask. While decoding: a state
            that the log does not know.
    """

    def __init__(
        self,
        log: StateLog,
        inner: Engine,
        *,
        mask_token_id: int,
        vocabulary_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = recorded_config(log)
        self.log, self.inner, self.device = log, inner, torch.device(device)
        self.mask_token_id, self.vocabulary_size = mask_token_id, vocabulary_size
        self._recorded_mask = int(log.metadata["mask_token_id"])
        self._slots: dict[int, tuple[int, SequenceLayout, int]] = {}  # slot -> prompt_index, layout, block number
        for block in log.blocks.values():
            tokens = block.token[~np.isnan(block.probability)]
            if tokens.max() >= vocabulary_size or (tokens == mask_token_id).any():
                raise TraceError(
                    f"the log holds tokens up to {tokens.max()}; the model that is to be driven has a vocabulary of "
                    f"{vocabulary_size}, in which {mask_token_id} is the mask"
                )

    def check(self, denoiser: Denoiser, cache: str, backend: str, drafts: int, bridges: int) -> None:
        """See :meth:`verify.engines.contract.Engine.check`."""
        if cache != self.config.cache:
            raise EngineError(f"the log was recorded with {self.config.cache} cache, it cannot drive {cache}")
        self.inner.check(getattr(self.inner, "denoiser", denoiser), cache, backend, drafts, bridges)

    def open(self, slot: int, prompt_index: int, layout: SequenceLayout) -> None:
        if prompt_index not in self.log.first:
            raise TraceError(f"the log holds no prompt number {prompt_index}, only {self.log.prompt_indices}")
        self._slots[slot] = prompt_index, layout, 0
        self.inner.open(slot, prompt_index, layout)

    def move(self, source: int, target: int) -> None:
        self._slots[target] = self._slots.pop(source)
        self.inner.move(source, target)

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> DrivenRanks:
        paid = self.inner.refresh(slots, sequences, starts)
        states = []
        for slot, sequence, start in zip(slots, sequences, starts, strict=True):
            self._begin(slot, start)
            states.append(sequence[None, start : start + self.config.block_length])
        return self._driven(paid, slots, states, no_bridges(states))

    def narrow(self, slot: int, length: int) -> None:
        raise EngineError("a log drives blocks of one length")

    def cross(self, slot: int, sequence: np.ndarray, start: int) -> None:
        self._begin(slot, start)
        self.inner.cross(slot, sequence, start)

    def step(
        self, slots: Sequence[int], states: Sequence[np.ndarray], bridges: Sequence[np.ndarray] | None = None
    ) -> DrivenRanks:
        bridges = no_bridges(states) if bridges is None else bridges
        return self._driven(self.inner.step(slots, states, bridges), slots, states, bridges)

    def _begin(self, slot: int, start: int) -> None:
        prompt_index, layout, _ = self._slots[slot]
        self._slots[slot] = prompt_index, layout, layout.block_starts.index(start)

    def _driven(
        self, paid: BatchLogits, slots: Sequence[int], states: Sequence[np.ndarray], bridges: Sequence[np.ndarray]
    ) -> DrivenRanks:
        known = []
        for slot, state, pairs in zip(slots, states, bridges, strict=True):
            prompt_index, _, number = self._slots[slot]
            here, ahead = self._as_recorded(state), self._as_recorded(pairs)
            if number == 0:  # the prompt of the decode is another one than that of the log, and so is its tail
                given = self.log.first[prompt_index] != self._recorded_mask
                here[:, given] = self.log.first[prompt_index][given]
                ahead[:, 0, given] = self.log.first[prompt_index][given]
            found = self.log.find(prompt_index, number, here, ahead)
            if None in found:
                raise TraceError(
                    f"the log does not know {found.count(None)} of {len(found)} states that are evaluated in prompt "
                    f"{prompt_index}, block {number}; record it with the drafter that is driven"
                )
            known.append(ranked_blocks([one for one in found if one is not None]))
        return DrivenRanks(paid, known)

    def _as_recorded(self, states: np.ndarray) -> np.ndarray:
        """``states`` with the mask token of the recorded model, a copy."""
        return np.where(states == self.mask_token_id, self._recorded_mask, states)
