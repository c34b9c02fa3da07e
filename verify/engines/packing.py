"""Drafts beside the real block in one forward pass: the two back-ends.

``packed`` appends every draft block as further rows of the same sequence and keeps the blocks apart by the attention
mask. ``expanded`` copies the real rows once per draft in the batch dimension; it needs no special mask, costs a copy of
the live rows per draft, and is the reference that ``packed`` is tested against.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from verify.denoiser import Denoiser, cached_rows


@dataclass(eq=False)
class Frame:
    """What stays as it is while one block is solved.

    ``R`` live rows are computed anew in every forward; ``C`` cached rows are keys and values only. All live rows see
    all cached and all live rows.

    Attributes:
        tokens: int64 [R], live rows; the block's own part is replaced in every forward.
        positions: int64 [R], position ids of the live rows.
        block_offset: where the block begins among the live rows.
        block_length: ``L``.
        cache: the cached rows, or None.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    block_offset: int
    block_length: int
    cache: Any | None
    _packed_attention_mask: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def block_rows(self) -> slice:
        return slice(self.block_offset, self.block_offset + self.block_length)

    def packed_attention_mask(self, drafts: int) -> torch.Tensor:
        """bool [1, R + D * L, C + R + D * L]; kept per number of drafts, as anchors of a block repeat it."""
        if drafts not in self._packed_attention_mask:
            live, cached, length = len(self.tokens), cached_rows(self.cache), self.block_length
            rows = live + drafts * length
            visible = torch.zeros(rows, cached + rows, dtype=torch.bool, device=self.tokens.device)
            visible[:, : cached + live] = True  # everyone sees the cached rows and, at first, all live rows
            block = slice(cached + self.block_offset, cached + self.block_offset + length)
            visible[live:, block] = False  # but a draft stands in place of the real block
            own = torch.block_diag(*[torch.ones(length, length, device=visible.device)] * drafts) if drafts else None
            if own is not None:
                visible[live:, cached + live :] = own.bool()
            self._packed_attention_mask[drafts] = visible[None]
        return self._packed_attention_mask[drafts]


@dataclass(frozen=True, eq=False)
class BlockLogits:
    """Logits of the root and its drafts, [1 + D, L, V], and how many query tokens (rows) the forward had."""

    logits: torch.Tensor
    query_tokens: int


def forward_packed(denoiser: Denoiser, frame: Frame, states: torch.Tensor) -> BlockLogits:
    """One forward over the live rows followed by ``D`` draft blocks; rows = R + D * L.

    Args:
        denoiser: the model.
        frame: the block's surroundings.
        states: int64 [1 + D, L], the real block first.
    """
    drafts, length = len(states) - 1, frame.block_length
    live = len(frame.tokens)
    tokens = torch.cat([frame.tokens, states[1:].reshape(-1)])
    tokens[frame.block_rows] = states[0]
    block_positions = frame.positions[frame.block_rows]
    positions = torch.cat([frame.positions, block_positions.repeat(drafts)])
    row_numbers = torch.arange(len(tokens), device=tokens.device)
    logit_rows = torch.cat([row_numbers[frame.block_rows], row_numbers[live:]])
    logits, _ = denoiser(
        tokens[None], positions[None], frame.packed_attention_mask(drafts), frame.cache, logit_rows=logit_rows
    )
    return BlockLogits(logits.reshape(1 + drafts, length, -1), len(tokens))


def forward_expanded(denoiser: Denoiser, frame: Frame, states: torch.Tensor) -> BlockLogits:
    """One forward with the batch ``[real, draft 1, ...]``; rows = (1 + D) * R. Arguments as in ``forward_packed``."""
    batch, live = len(states), len(frame.tokens)
    tokens = frame.tokens.repeat(batch, 1)
    tokens[:, frame.block_rows] = states
    logit_rows = torch.arange(live, device=tokens.device)[frame.block_rows]
    logits, _ = denoiser(
        tokens,
        frame.positions.expand(batch, live),
        frame.packed_attention_mask(0),
        frame.cache,
        logit_rows=logit_rows,
    )
    return BlockLogits(logits, batch * live)


FORWARDS = {"packed": forward_packed, "expanded": forward_expanded}
