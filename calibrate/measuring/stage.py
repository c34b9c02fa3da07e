"""A cached context and a block in every slot, set up once: what latency and memory are measured on.

The forwards are those of the engine that decodes (``verify.decoding.make_engine``), over random tokens, for no number
depends on what they say. A step is taken in a block that is half solved, as it is on average: positions that are
solved need no logits, which for a large vocabulary is worth some percent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from calibrate.models.checkpoint import Checkpoint, check_attention
from verify.decoding import DecodeConfig, make_engine
from verify.engines.contract import Engine
from verify.engines.rows import RowEngine
from verify.engines.slots import SlotEngine
from verify.layout import LayoutError, SequenceLayout

_TOP_J = 8
_TOKENS = 1 << 10  # prompts are drawn from this many ids at most; which ones costs nothing


class Stage:
    """``batch`` sequences with a cached context each, and their forwards.

    Args:
        checkpoint: the model, on its device.
        block_length: ``L``.
        context_length: cached rows; under block-causal attention brought up to whole blocks.
        batch: sequences per forward, each with its own tokens.
        backend: ``packed`` or ``expanded``.
        drafts: the most drafts of a step.
        engine: ``slots`` or ``rows``; by default whichever the runtime would choose.
        clock: seconds; on a CPU that others use too, ``time.process_time`` is steadier.

    Attributes:
        cache: ``block_causal`` for a checkpoint of that attention alone, else ``dual``.
        context_length: cached rows, as they came out.
        engine_name: ``slots`` or ``rows``; ``slots, compiled`` and the like where steps are not run eagerly.

    Raises:
        torch.OutOfMemoryError: it does not fit (on a CPU, a RuntimeError or MemoryError).
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        block_length: int,
        context_length: int,
        batch: int,
        backend: str,
        drafts: int,
        engine: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
        cache: str | None = None,
    ) -> None:
        self.clock = clock
        self.denoiser, self.batch, self.length = checkpoint.denoiser, batch, block_length
        self.cache = cache or ("block_causal" if checkpoint.attention == ("block_causal",) else "dual")
        if self.cache not in ("dual", "block_causal"):
            raise LayoutError(f"latency is measured with cache dual or block_causal, not {self.cache!r}")
        check_attention(checkpoint, self.cache)
        prompt, blocks = context_length, 1
        if self.cache == "block_causal":
            context_length = -(-context_length // block_length) * block_length
            # The block before the timed one is generated too: its refresh is what a decode pays per block.
            if context_length > block_length:
                prompt, blocks = context_length - block_length, 2
            else:
                prompt = context_length
        self.context_length = context_length
        self._layout = SequenceLayout.make(prompt, blocks * block_length, block_length, self.cache)
        config = DecodeConfig(block_length, blocks * block_length, self.cache, backend)
        if engine == "rows":
            self.engine: Engine = RowEngine(self.denoiser, self.cache, backend)
        else:
            self.engine = make_engine(self.denoiser, config, [self._layout], batch, drafts)
        self.engine_name = "slots" if isinstance(self.engine, SlotEngine) else "rows"
        if self.engine_name == "slots" and self.denoiser.step_forwards != "eager":
            self.engine_name += f", {self.denoiser.step_forwards}"
        drawn = np.random.default_rng(0).integers(
            0, min(_TOKENS, self.denoiser.vocabulary_size), (batch, self._layout.length)
        )
        drawn[drawn == self.denoiser.mask_token_id] = (self.denoiser.mask_token_id + 1) % self.denoiser.vocabulary_size
        self._tokens = drawn.astype(np.int64)
        self._slots = range(batch)

    def refresh(self) -> float:
        """Milliseconds of a refresh forward of all sequences, and its ranking.

        Blocks before the timed one are refreshed first, untimed; one step follows untimed, as the first step of a block
        makes the mask of all of them.
        """
        with torch.inference_mode():
            for slot in self._slots:
                self.engine.open(slot, slot, self._layout)
            for start in self._layout.block_starts[:-1]:
                self._refresh(start)
            spent = self._timed(lambda: self._refresh(self._layout.block_starts[-1]))
            self._step(0, self.length)
        return spent

    def step(self, drafts: int, masked: int | None = None) -> float:
        """Milliseconds of a step forward with ``drafts`` drafts per sequence, and its ranking.

        Args:
            drafts: ``D``; each differs from the block in one more position.
            masked: masked positions of the block, by default half of it.
        """
        with torch.inference_mode():
            return self._timed(lambda: self._step(drafts, masked or max(1, self.length // 2)))

    def states(self, drafts: int, masked: int) -> list[np.ndarray]:
        """int64 [1 + D, L] per sequence: the block, of which the first ``masked`` positions are masked, and drafts."""
        start = self._layout.block_starts[-1]
        made = []
        for tokens in self._tokens:
            state = np.repeat(tokens[None, start : start + self.length], 1 + drafts, axis=0)
            state[:, :masked] = self.denoiser.mask_token_id
            draft = np.arange(drafts)
            if masked > 1:
                state[1 + draft, draft % masked] = tokens[start + draft % masked]
            made.append(state)
        return made

    def _refresh(self, start: int) -> None:
        sequences = self._tokens.copy()
        sequences[:, start:] = self.denoiser.mask_token_id
        result = self.engine.refresh(self._slots, list(sequences), [start] * self.batch)
        result.rank(self.denoiser.mask_token_id, _TOP_J)

    def _step(self, drafts: int, masked: int) -> None:
        self.engine.step(self._slots, self.states(drafts, masked)).rank(self.denoiser.mask_token_id, _TOP_J)

    def _timed(self, forward: Callable[[], Any]) -> float:
        synchronize(self.denoiser.device)
        start = self.clock()
        forward()
        synchronize(self.denoiser.device)
        return 1e3 * (self.clock() - start)


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done what it was asked for; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
