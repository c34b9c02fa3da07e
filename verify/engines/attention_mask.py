"""Who sees whom among the padded rows of several sequences in a refresh forward of ``verify.engines.slots``."""

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
