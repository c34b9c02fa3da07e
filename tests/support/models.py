"""Tiny random models of real architectures, for tests that need a model but no competence."""

from __future__ import annotations

from typing import Any

import torch

from calibrate.models.hugging_face import HuggingFaceDenoiser
from studies.conformance.drafters import random_formulas
from studies.conformance.stage import END_ID, MASK_ID, tiny_checkpoint, tiny_denoiser, tiny_llama

__all__ = [
    "END_ID", "MASK_ID", "CountingDenoiser", "random_formulas", "tiny_checkpoint", "tiny_denoiser", "tiny_llama",
]  # fmt: skip


class CountingDenoiser:
    """Counts calls and rows of another denoiser, so that a decode's own books can be checked against it."""

    def __init__(self, inner: HuggingFaceDenoiser) -> None:
        self.inner, self.calls, self.rows = inner, 0, 0
        self.mask_token_id, self.vocabulary_size, self.device = inner.mask_token_id, inner.vocabulary_size, inner.device

    def __call__(self, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        self.rows += tokens.numel()
        return self.inner(tokens, *args, **kwargs)
