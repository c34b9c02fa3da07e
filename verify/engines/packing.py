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
        carried: how many live rows before the block are to be cached by the next forward: the finished block before
            this one, where its refresh forward was saved. They do not see the block.
        unseen: how many of the last cached rows nobody sees: those of the block, cached before its end was known.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    block_offset: int
    block_length: int
    cache: Any | None
    carried: int = 0
    unseen: int = 0
    _packed_attention_mask: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    @property
    def block_rows(self) -> slice:
        return slice(self.block_offset, self.block_offset + self.block_length)

    def packed_attention_mask(self, drafts: int, bridges: int = 0) -> torch.Tensor:
        """bool [1, r, C + r] of ``r = R + D * L + K * 2 L`` rows; kept, as the anchors of a block repeat it."""
        if (drafts, bridges) not in self._packed_attention_mask:
            live, cached, length = len(self.tokens), cached_rows(self.cache), self.block_length
            own = [torch.ones(length, length)] * drafts + [_bridge_mask(length)] * bridges
            rows = live + (drafts + 2 * bridges) * length
            visible = torch.zeros(rows, cached + rows, dtype=torch.bool, device=self.tokens.device)
            visible[:, : cached + live] = True  # everyone sees the cached rows and, at first, all live rows
            visible[:, cached - self.unseen : cached] = False
            block = slice(cached + self.block_offset, cached + self.block_offset + length)
            visible[live:, block] = False  # but a draft stands in place of the real block
            visible[: self.carried, block] = False
            if own:
                visible[live:, cached + live :] = torch.block_diag(*own).bool().to(visible.device)
            self._packed_attention_mask[drafts, bridges] = visible[None]
        return self._packed_attention_mask[drafts, bridges]

    def copied_attention_mask(self, bridged: bool) -> torch.Tensor:
        """bool [1, r, C + r] of one copy in the batch: the live rows and, where ``bridged``, a next block behind."""
        if not bridged:
            return self.packed_attention_mask(0)
        alone = self.packed_attention_mask(0)[0]
        rows, length = len(self.tokens), self.block_length
        visible = torch.ones(rows + length, alone.shape[1] + length, dtype=torch.bool, device=alone.device)
        visible[:rows, : alone.shape[1]], visible[:rows, alone.shape[1] :] = alone, False
        return visible[None]


def _bridge_mask(length: int) -> torch.Tensor:
    """[2 L, 2 L]: a block that is complete sees itself, the next one sees both."""
    visible = torch.ones(2 * length, 2 * length)
    visible[:length, length:] = 0
    return visible


@dataclass(frozen=True, eq=False)
class BlockLogits:
    """Logits of the root, its drafts and the next blocks of its bridges, [1 + D + K, L, V].

    Attributes:
        logits: as above.
        query_tokens: rows that the forward had.
        cache: the cache with the rows that were carried, None where none were.
    """

    logits: torch.Tensor
    query_tokens: int
    cache: Any | None = None


def forward_packed(
    denoiser: Denoiser, frame: Frame, states: torch.Tensor, bridges: torch.Tensor | None = None
) -> BlockLogits:
    """One forward over the live rows, then ``D`` draft blocks, then ``K`` pairs of blocks: R + (D + 2 K) L rows.

    Args:
        denoiser: the model.
        frame: the block's surroundings.
        states: int64 [1 + D, L], the real block first.
        bridges: int64 [K, 2, L], this block as it may end and a state of the next one; None for none.
    """
    bridges = states.new_zeros((0, 2, states.shape[1])) if bridges is None else bridges
    drafts, length = len(states) - 1, frame.block_length
    live = len(frame.tokens)
    tokens = torch.cat([frame.tokens, states[1:].reshape(-1), bridges.reshape(-1)])
    tokens[frame.block_rows] = states[0]
    block = frame.positions[frame.block_rows]
    positions = torch.cat(
        [frame.positions, block.repeat(drafts), torch.cat([block, block + length]).repeat(len(bridges))]
    )
    number = torch.arange(len(tokens), device=tokens.device)
    next_blocks = number[live + drafts * length :].view(-1, 2, length)[:, 1].reshape(-1)
    logit_rows = torch.cat([number[frame.block_rows], number[live : live + drafts * length], next_blocks])
    logits, cache = denoiser(
        tokens[None],
        positions[None],
        frame.packed_attention_mask(drafts, len(bridges)),
        frame.cache,
        logit_rows=logit_rows,
        cache_rows=number[: frame.carried] if frame.carried else None,
    )
    return BlockLogits(logits.reshape(1 + drafts + len(bridges), length, -1), len(tokens), cache)


def forward_expanded(
    denoiser: Denoiser, frame: Frame, states: torch.Tensor, bridges: torch.Tensor | None = None
) -> BlockLogits:
    """One forward with a copy of the live rows per unit in the batch; arguments as in :func:`forward_packed`.

    With bridges every copy has a next block behind it, (1 + D + K) (R + L) rows, else (1 + D) R.
    """
    bridges = states.new_zeros((0, 2, states.shape[1])) if bridges is None else bridges
    batch, live, length = len(states) + len(bridges), len(frame.tokens), frame.block_length
    tokens = frame.tokens.repeat(batch, 1)
    tokens[:, frame.block_rows] = torch.cat([states, bridges[:, 0]])
    positions = frame.positions
    logit_rows = torch.arange(live, device=tokens.device)[frame.block_rows]
    if len(bridges):
        tokens = torch.cat([tokens, torch.cat([states, bridges[:, 1]])], dim=1)
        positions = torch.cat([positions, positions[frame.block_rows] + length])
        logit_rows = torch.cat([logit_rows, live + torch.arange(length, device=tokens.device)])
    logits, cache = denoiser(
        tokens,
        positions.expand(batch, len(positions)),
        frame.copied_attention_mask(len(bridges) > 0),
        frame.cache,
        logit_rows=logit_rows,
        cache_rows=torch.arange(frame.carried, device=tokens.device) if frame.carried else None,
    )
    if len(bridges):
        logits = torch.cat([logits[: len(states), :length], logits[len(states) :, length:]])
    return BlockLogits(logits, batch * len(positions), cache.first() if cache is not None else None)


FORWARDS = {"packed": forward_packed, "expanded": forward_expanded}
