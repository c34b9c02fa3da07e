"""Models whose numbers depend on the shape of a forward, as low precision makes them, but as much as a test wants."""

from __future__ import annotations

from typing import Any

import torch

from calibrate.models.hugging_face import HuggingFaceDenoiser
from tests.support.models import MASK_ID, tiny_llama
from verify.denoiser import SlotRows


class ShapedNoise(HuggingFaceDenoiser):
    """Adds fixed noise to the logits: one for every number of sequences above 1, one for every number of rows.

    Args:
        of_batch: its size when a forward holds several sequences.
        of_rows: its size when a sequence has more rows than the block length.
    """

    def __init__(self, of_batch: float = 0.0, of_rows: float = 0.0, block_length: int = 8, seed: int = 3) -> None:
        super().__init__(tiny_llama(seed), MASK_ID)
        self.of_batch, self.of_rows, self.block_length = of_batch, of_rows, block_length

    def forward_slots(self, memory: Any, rows: SlotRows) -> torch.Tensor:
        logits = super().forward_slots(memory, rows)
        sequences, length = rows.tokens.shape
        if sequences > 1:
            logits = logits + self.of_batch * self._noise(logits, sequences)
        if rows.cache_rows is None and length > self.block_length:
            logits = logits + self.of_rows * self._noise(logits, 1000 + length)
        return logits

    @staticmethod
    def _noise(logits: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed), dtype=logits.dtype)
