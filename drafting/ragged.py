"""Ragged arrays: rows of different lengths in one flat array, with pointers to where each row begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ptr_of(lengths: np.ndarray | Sequence[int]) -> np.ndarray:
    """Pointers from lengths: int64 [n + 1], beginning with 0."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def join(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    """Concatenate parts, of which there may be none."""
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype=dtype)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``starts[r], starts[r] + 1, ...``, ``lengths[r]`` of them, per r: (owner r, value), both int64."""
    owner = np.repeat(np.arange(len(starts)), lengths)
    offset = np.arange(len(owner)) - (ptr_of(lengths)[:-1])[owner]
    return owner, starts[owner] + offset
