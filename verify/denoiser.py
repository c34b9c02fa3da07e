"""What the runtime asks of a model, and nothing more.

A denoiser maps rows (a token at a position, and the rows it may look at) to logits. Everything the runtime knows of
attention is in the visibility it passes: prefix caching, dual caching, block-causal models and packed drafts are all
rows, visibility and a frozen context. An implementation for Hugging Face models is in ``calibrate.hugging_face``.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Denoiser(Protocol):
    """One call is one forward pass.

    Attributes:
        mask_token_id: the id that stands for "not yet decided".
        vocabulary_size: the width of the logits.
        device: where inputs are expected and logits come back.
    """

    mask_token_id: int
    vocabulary_size: int
    device: torch.device

    def __call__(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        visibility: torch.Tensor,
        context: Any | None = None,
        logit_rows: torch.Tensor | None = None,
        freeze_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Any | None]:
        """Compute logits for some rows and, where asked, freeze the keys and values of some rows.

        Args:
            tokens: int64 [B, R].
            positions: int64 [B, R], position ids; not necessarily ascending, rows of two drafts share positions.
            visibility: bool [1 or B, R, C + R]; column ``c < C`` is the c-th frozen row, column ``C + r`` is row
                ``r`` of this call. True means "may look at".
            context: a frozen context of ``C`` rows from an earlier call, or None (``C = 0``). A context of batch 1
                serves any ``B``.
            logit_rows: int64 [K], the rows whose logits are wanted; None means all.
            freeze_rows: int64 [F]; the returned context then holds the ``C`` old rows followed by these.

        Returns:
            Logits [B, K, V] (row ``r`` predicts the token *of* row ``r``; models that predict the next token are
            shifted by their adapter), and the new context, or None when ``freeze_rows`` is None.
        """
        ...


def context_length(context: Any | None) -> int:
    """The number of frozen rows ``C``; a context has a length, None has none."""
    return 0 if context is None else len(context)
