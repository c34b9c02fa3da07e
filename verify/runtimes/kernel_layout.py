"""The rows of a packed forward as segment lists, for attention kernels that take no dense mask.

Where a block and its drafts see a cached context and themselves (block-causal models, and bidirectional ones with the
dual cache), who sees whom is two lists of segments. In the first pass all rows of a sequence look at its prefix; in the
second every unit of rows (the block, a draft, a bridge's block) looks at a run of new keys, as a rule its own. Both are
what variable-length attention kernels take, without a causal mask, and the two results are merged by their
log-sum-exps (docs/runtime-core.md). ``verify.engines.packing`` says the same as a dense mask, and tests compare them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SequenceRows:
    """What one sequence of a packed forward computes.

    Attributes:
        cached: keys that are cached and seen by all its rows, ``C``.
        start: position id of the block's first row.
        drafts: usable drafts beside the block, ``D``.
        bridges: blocks as this one may end, each with a state of the next block behind it, ``K``; of block-causal
            models, which see both.
        carried: rows before the block whose keys this forward computes and caches, ``F``: the finished block before
            this one, where a bridge saved its refresh forward.
    """

    cached: int
    start: int
    drafts: int
    bridges: int = 0
    carried: int = 0


@dataclass(frozen=True, eq=False)
class KernelLayout:
    """Rows and segments of a packed forward; ``R`` rows, ``B`` sequences, ``U`` units, ``n`` wanted rows; int32 all.

    The rows of a sequence are those carried, the block, its drafts, and of each bridge the complete block and the next
    one. Each of these is a unit.

    Attributes:
        positions: [R], position ids; every draft repeats those of the block.
        cu_rows: [B + 1], the rows of sequence ``b`` are ``cu_rows[b]:cu_rows[b + 1]``: the queries of the first pass.
        cu_prefix: [B + 1], its keys of the first pass, cached and carried ones, as counted over the batch. Carried rows
            must be in the cache before attention runs; they see no other new keys.
        cu_self: [U + 1], the rows of unit ``u`` are ``cu_self[u]:cu_self[u + 1]``: the queries of the second pass.
        self_begin, self_end: [U], the rows whose keys they see there. Without bridges and carried rows that is
            ``cu_self`` again; the next block of a bridge also sees the complete one before it, and carried rows see
            none.
        kept_rows: [F of all], rows whose keys stay cached. Those of the block and its drafts never do: they change.
        kept_keys: [F of all], which keys of the first pass they are.
        logit_rows: [n], rows whose logits are wanted, block by block: the block, its drafts, the next blocks of
            bridges.
        before: [n], of a model that predicts a row's token in the row before it: the row that each of ``logit_rows`` is
            predicted in. -1 is the row before the block, which is cached. Keep its last hidden state with its keys; the
            block and all its drafts take their first logit there.
    """

    positions: np.ndarray
    cu_rows: np.ndarray
    cu_prefix: np.ndarray
    cu_self: np.ndarray
    self_begin: np.ndarray
    self_end: np.ndarray
    kept_rows: np.ndarray
    kept_keys: np.ndarray
    logit_rows: np.ndarray
    before: np.ndarray


def kernel_layout(sequences: Sequence[SequenceRows], block_length: int) -> KernelLayout:
    """Lay out one packed forward over ``sequences``, each with a block of ``block_length`` positions.

    Raises:
        ValueError: a negative number, or no block length.

    Complexity: O(R).
    """
    if block_length < 1 or any(min(vars(one).values()) < 0 for one in sequences):
        raise ValueError(f"got {list(sequences)} and a block length of {block_length}, expected no negative number")
    inside = np.arange(block_length)
    positions: list[np.ndarray] = []
    units: list[tuple[int, int, int]] = []  # rows, and where the keys that they see begin and end
    wanted: list[tuple[int, int]] = []  # the first row of a block with logits, and the row before it
    kept: list[tuple[int, int]] = []
    row_counts, key_counts = [0], [0]
    for one in sequences:
        row, carried = sum(row_counts), one.carried
        if carried:
            units.append((carried, row, row))
            positions.append(one.start - carried + np.arange(carried))
            kept += [(row + number, sum(key_counts) + one.cached + number) for number in range(carried)]
        edge = row + carried - 1 if carried else -1
        row += carried
        for _ in range(1 + one.drafts):
            units.append((block_length, row, row + block_length))
            positions.append(one.start + inside)
            wanted.append((row, edge))
            row += block_length
        for _ in range(one.bridges):
            last = row + block_length
            units += [(block_length, row, last), (block_length, row, last + block_length)]
            positions += [one.start + inside, one.start + block_length + inside]
            wanted.append((last, last - 1))
            row = last + block_length
        row_counts.append(row - sum(row_counts))
        key_counts.append(one.cached + carried)
    sizes, begins, ends = np.array(units, dtype=np.int32).reshape(-1, 3).T
    first, before_first = np.array(wanted, dtype=np.int32).reshape(-1, 2).T
    logit_rows = first[:, None] + inside
    before = np.where(inside > 0, logit_rows - 1, before_first[:, None])
    kept_rows, kept_keys = np.array(kept, dtype=np.int32).reshape(-1, 2).T
    whole = KernelLayout(
        np.concatenate([*positions, inside[:0]]),
        np.cumsum(row_counts),
        np.cumsum(key_counts),
        np.cumsum([0, *sizes]),
        begins,
        ends,
        kept_rows,
        kept_keys,
        logit_rows.reshape(-1),
        before.reshape(-1),
    )
    return KernelLayout(**{name: array.astype(np.int32) for name, array in vars(whole).items()})
