"""The plain engine: one call of the denoiser per sequence and forward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from verify.denoiser import Denoiser
from verify.engines.cache import CacheKeeper
from verify.engines.contract import BatchLogits, EngineError, masked_rows, no_bridges
from verify.engines.packing import FORWARDS, Frame
from verify.layout import SequenceLayout


class RowEngine:
    """One call of the denoiser per sequence and forward; caches are values. The reference for every other engine.

    Attributes:
        bridged_cache: the cache mode in which it runs bridges.
    """

    bridged_cache = "block_causal"

    def __init__(self, denoiser: Denoiser, cache: str, backend: str) -> None:
        self.denoiser, self.cache, self.backend = denoiser, cache, backend
        self.forward = FORWARDS[backend]
        self._keepers: dict[int, CacheKeeper] = {}
        self._frames: dict[int, Frame] = {}

    def check(self, denoiser: Denoiser, cache: str, backend: str, drafts: int, bridges: int) -> None:
        """See :meth:`Engine.check`; any number of drafts and, where it has bridges, of bridges will do."""
        if denoiser is not self.denoiser or (cache, backend) != (self.cache, self.backend):
            raise EngineError(
                f"the engine was made for another model, or for {self.cache}, {self.backend} and not {cache}, "
                f"{backend}; make one with verify.decoding.make_engine"
            )
        if bridges and cache != self.bridged_cache:
            raise EngineError(
                f"up to {bridges} bridges in cache mode {cache}, but the engine has them in {self.bridged_cache} mode; "
                "make one with verify.decoding.make_engine"
            )

    def open(self, slot: int, prompt_index: int, layout: SequenceLayout) -> None:
        self._keepers[slot] = CacheKeeper(self.denoiser, layout, self.cache)

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
            states.append(sequence[None, start : start + keeper.layout.reach(start)])
            rows.append(result.query_tokens)
        return self._collect(logits, states, rows)

    def narrow(self, slot: int, length: int) -> None:
        self._frames[slot] = self._keepers[slot].narrowed(self._frames[slot], length)

    def cross(self, slot: int, sequence: np.ndarray, start: int) -> None:
        tokens = torch.from_numpy(sequence.copy()).to(self.denoiser.device)
        self._frames[slot] = self._keepers[slot].cross(tokens, start)

    def step(
        self, slots: Sequence[int], states: Sequence[np.ndarray], bridges: Sequence[np.ndarray] | None = None
    ) -> BatchLogits:
        bridges = no_bridges(states) if bridges is None else bridges
        results = []
        for slot, state, bridge in zip(slots, states, bridges, strict=True):
            frame, device = self._frames[slot], self.denoiser.device
            result = self.forward(
                self.denoiser, frame, torch.from_numpy(state).to(device), torch.from_numpy(bridge).to(device)
            )
            results.append(result)
            if frame.carried:
                self._frames[slot] = self._keepers[slot].carried(frame, result.cache)
        ranked = [np.concatenate([state, bridge[:, 1]]) for state, bridge in zip(states, bridges, strict=True)]
        return self._collect([result.logits for result in results], ranked, [result.query_tokens for result in results])

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
            [state.shape[1] for state in states],
        )
