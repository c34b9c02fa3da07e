"""Counter-based noise: a draft and the real decode meet the same noise, whatever was computed between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepRandom:
    """The noise of one denoising step of one block, addressed by position.

    Philox is a counter-based generator: its output is a function of (key, counter) alone, so nothing needs to be
    drawn in order, and a step gives the same noise in a plain decode, a speculative one and a resumed one.
    """

    seed: int
    prompt_index: int
    block: int
    step: int

    def after(self) -> StepRandom:
        """The noise of the step after this one."""
        return StepRandom(self.seed, self.prompt_index, self.block, self.step + 1)

    def next_block(self) -> StepRandom:
        """The noise of the first step of the block after this one."""
        return StepRandom(self.seed, self.prompt_index, self.block + 1, 1)

    def generator(self, position: int) -> np.random.Generator:
        """A fresh generator for one offset of the block; the same arguments always give the same stream."""
        return self._stream(position, 0)

    def _stream(self, position: int, first: int) -> np.random.Generator:
        mask = (1 << 64) - 1
        key = (self.seed & mask) << 64 | (self.prompt_index & mask)
        counter = (self.block & mask) << 192 | (self.step & mask) << 128 | (position & mask) << 64 | first
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def uniforms(self, positions: np.ndarray) -> np.ndarray:
        """Noise from 0 to 1 (left out), float64 [n], of ``positions`` (int [n]): another than the Gumbel noise there.

        One stream for the whole block, whose p-th number belongs to position p; it lies where no Gumbel noise reaches.
        """
        if not len(positions):
            return np.zeros(0)
        return self._stream(0, 1 << 63).random(int(np.max(positions)) + 1)[positions]

    def gumbel(self, position: int, size: int) -> np.ndarray:
        """Standard Gumbel noise, float64 [size]: argmax(logits / T + noise) samples softmax(logits / T)."""
        return self.generator(position).gumbel(size=size)
