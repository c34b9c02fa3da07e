"""What the runtime asks of a model, and nothing more.

A denoiser maps rows (a token at a position, and the rows it may look at) to logits. Everything the runtime knows of
attention is in the attention mask it passes: prefix caching, dual caching, block-causal models and packed drafts are
all query tokens, an attention mask and a cache. An implementation for Hugging Face models is in
``verify.runtimes.transformers_model``.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        attention_mask: torch.Tensor,
        cache: Any | None = None,
        logit_rows: torch.Tensor | None = None,
        cache_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Any | None]:
        """Compute logits for some rows and, where asked, cache the keys and values of some rows.

        Args:
            tokens: int64 [B, R].
            positions: int64 [B, R], position ids; not necessarily ascending, rows of two drafts share positions.
            attention_mask: bool [1 or B, R, C + R]; column ``c < C`` is the c-th cached row, column ``C + r`` is row
                ``r`` of this call. True means "may look at".
            cache: ``C`` cached rows from an earlier call, or None (``C = 0``). One of batch 1 serves any ``B``; the
                method ``first()`` of a larger one gives that of its first sequence.
            logit_rows: int64 [K], the rows whose logits are wanted; None means all.
            cache_rows: int64 [F]; the returned cache then holds the ``C`` old rows followed by these.

        Returns:
            Logits [B, K, V] (row ``r`` predicts the token *of* row ``r``; models that predict the next token are
            shifted by their adapter), and the new cache, or None when ``cache_rows`` is None.
        """
        ...


def offers_copies(denoiser: Denoiser) -> bool:
    """Whether ``denoiser`` can hold a copy of a whole sequence beside what is cached (``verify.engines.copies``).

    A model says so by an attribute ``offers_copies`` that is true. Its caches then have a method ``last(count)``, the
    last ``count`` rows alone, and where it offers slots, it has :meth:`SlotDenoiser.move_columns`.
    """
    return bool(getattr(denoiser, "offers_copies", False))


def cached_rows(cache: Any | None) -> int:
    """The number of cached rows ``C``; a cache has a length, None has none."""
    return 0 if cache is None else len(cache)


@dataclass(frozen=True, eq=False)
class SlotRows:
    """The rows of one forward over several slots; ``b`` sequences of ``r`` rows each, the shorter ones padded.

    Attributes:
        tokens: int64 [b, r].
        positions: int64 [b, r].
        mask: what :meth:`SlotDenoiser.prepare_mask` made of an attention mask bool [b, r, columns + r].
        columns: how many columns of the slots' buffers are read before the rows' own; 0 reads none.
        slots: int64 [b], whose rows these are; None means slots 0 to b - 1, whose buffers are then read in place.
        logit_rows: int64 [n], rows whose logits are wanted, as ``k * r + row``.
        before: int64 [n], for each of them the row at the position before its own, -1 where that row is cached.
        cache_rows: int64 [b, f], rows whose keys and values are kept; None keeps none.
        cache_columns: int64 [b, f], the columns they go to.
        edge_rows: int64 [b], the row before the block, whose last hidden state a shifted model keeps; -1, and None for
            all, where it keeps the one it has.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    columns: int
    slots: torch.Tensor | None
    logit_rows: torch.Tensor
    before: torch.Tensor
    cache_rows: torch.Tensor | None = None
    cache_columns: torch.Tensor | None = None
    edge_rows: torch.Tensor | None = None


class SlotDenoiser(Denoiser, Protocol):
    """A model that keeps the cached keys and values of many sequences in static buffers (``verify.engines.slots``).

    Attributes:
        offers_slots: False in a class that has these methods but cannot serve this model with them.
        few_shapes: step forwards should come in few shapes, as each shape costs something once.
        logits_shift: 1 when a row's token is predicted in the row before it, else 0.
    """

    logits_shift: int

    @property
    def offers_slots(self) -> bool: ...

    @property
    def few_shapes(self) -> bool: ...

    def make_slots(self, slots: int, cached_rows: int, live_rows: int) -> Any:
        """Make buffers for ``slots`` sequences of up to ``cached_rows`` cached and ``live_rows`` live rows each."""
        ...

    def move_slot(self, memory: Any, source: int, target: int) -> None:
        """Copy what slot ``source`` holds to slot ``target``."""
        ...

    def move_columns(self, memory: Any, slot: int, source: int, target: int, count: int) -> None:
        """Copy ``count`` cached columns of ``slot`` from column ``source`` on to column ``target`` on; for copies."""
        ...

    def clear_slot(self, memory: Any, slot: int) -> None:
        """Forget what slot ``slot`` holds; columns that nobody may look at must still hold numbers."""
        ...

    def prepare_mask(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """The model's own form of an attention mask bool [b, r, c]; its last two axes stay [r, c], so it can be cut."""
        ...

    def forward_slots(self, memory: Any, rows: SlotRows) -> torch.Tensor:
        """One forward pass; logits [n, V] of the wanted rows, shifted already where the model is."""
        ...
