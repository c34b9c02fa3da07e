"""Who sees whom among the padded rows of several sequences: the attention masks of ``verify.engines.slots``."""

from __future__ import annotations

import torch


def refresh_attention_mask(
    rows: torch.Tensor, cached: torch.Tensor, columns: int, blocks: torch.Tensor, block_causal: bool
) -> torch.Tensor:
    """Of a refresh: every row sees the rows of its sequence, in block-causal mode only up to its own block.

    Args:
        rows: int64 [b], rows of each sequence; behind them stands padding, which nobody sees.
        cached: int64 [b], cached rows that the slots hold already.
        columns: cached columns that are read, 0 where the refresh computes everything anew.
        blocks: int64 [b, r], the block that each row belongs to.
        block_causal: whether later blocks are hidden. Cached rows belong to earlier blocks, so everyone sees them.

    Returns:
        bool [b, r, columns + r].
    """
    width = blocks.shape[1]
    seen = (torch.arange(width, device=blocks.device) < rows[:, None])[:, None, :].expand(-1, width, -1)
    if block_causal:
        seen = seen & (blocks[:, None, :] <= blocks[:, :, None])
    held = torch.arange(columns, device=blocks.device) < cached[:, None]
    return torch.cat([held[:, None, :].expand(-1, width, -1), seen], dim=2)


def step_attention_mask(
    cached: torch.Tensor, live: torch.Tensor, columns: int, width: int, drafts: int, length: int, packed: bool
) -> torch.Tensor:
    """Of a step with drafts; the first rows of it are those of a step with fewer drafts.

    Packed rows are ``width`` live rows, the block's first, followed by the drafts' blocks; a draft sees itself, the
    cached rows and the live rows that are not the block. Expanded rows are ``1 + drafts`` copies of the live rows, each
    of which sees itself and the cached rows.

    Args:
        cached: int64 [b], cached rows of each slot.
        live: int64 [b], live rows of each slot, of which ``width`` are laid out; the others are padding.
        columns: cached columns that are read.
        width: live rows of the widest slot.
        drafts: how many drafts there is room for.
        length: ``L``.
        packed: the back-end.

    Returns:
        bool [b, rows, columns + rows].
    """
    device = cached.device
    held = torch.arange(columns, device=device) < cached[:, None, None]
    live = live[:, None, None]
    if packed:
        row = torch.arange(width + drafts * length, device=device)
        unit = torch.where(row < width, 0, 1 + (row - width) // length)
        own = unit[:, None] == unit[None, :]
        beside = (unit[:, None] > 0) & (row >= length) & (row < width)
        seen = (own | beside) & ((row < live) | (row >= width))
    else:
        row = torch.arange((1 + drafts) * width, device=device)
        unit = row // width
        seen = (unit[:, None] == unit[None, :]) & (row % width < live)
    return torch.cat([held.expand(-1, len(row), -1), seen], dim=2)
