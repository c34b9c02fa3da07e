"""Ranks of logits that are at hand, without a forward."""

import numpy as np
import torch

from verify.ranked import RankedBlocks
from verify.ranking import gather_blocks, rank_rows


def rank_logits(logits: torch.Tensor, mask_token_id: int, top_j: int) -> RankedBlocks:
    """Rank every row of whole blocks, ``logits`` [B, L, V]; arguments and errors as in :func:`rank_rows`."""
    blocks, length, vocabulary = logits.shape
    unit, offset = np.divmod(np.arange(blocks * length), length)
    rows = logits.reshape(-1, vocabulary)
    return gather_blocks(rank_rows(rows, mask_token_id, top_j), rows, unit, offset, blocks, length)
