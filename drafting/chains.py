"""Chains from traces: what the steps after an anchor committed, as ranks under the anchor's distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from drafting.ragged import ptr_of, ranges

if TYPE_CHECKING:
    from calibrate.traces.table import Traces

_MAX_RANK = int(np.iinfo(np.int16).max)


def block_starts(traces: Traces) -> np.ndarray:
    """First row of each block, and the number of rows at the end: int64 [B + 1].

    Raises:
        ValueError: steps of a block that are not numbered 1, 2, ... in order.
    """
    n = traces.n_steps
    if n == 0:
        return np.zeros(1, dtype=np.int64)
    change = (np.diff(traces.prompt_index) != 0) | (np.diff(traces.block) != 0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1, [n]]).astype(np.int64)
    expected = np.arange(n) - np.repeat(starts[:-1], np.diff(starts)) + 1
    wrong = np.flatnonzero(traces.step != expected)
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"trace row {row} (prompt {traces.prompt_index[row]}, block {traces.block[row]}) is step "
            f"{traces.step[row]}, expected step {expected[row]}: the steps of a block must be numbered "
            "1, 2, ... in order; record again"
        )
    return starts


def masked_at_anchors(traces: Traces, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The masked positions at the anchors after the steps ``rows`` [R], in position-rank order anchor by anchor.

    These are the positions that were masked before the step, without those that it committed itself: ranks skip them.

    Returns:
        Per position the index of its anchor in ``rows``, its entry in ``traces.masked_position``, and its rank.
    """
    masked_lengths = traces.masked_ptr[rows + 1] - traces.masked_ptr[rows]
    owner, entry = ranges(traces.masked_ptr[rows], masked_lengths)
    position = traces.masked_position[entry].astype(np.int64)
    own, own_commit = ranges(traces.commit_ptr[rows], traces.commit_ptr[rows + 1] - traces.commit_ptr[rows])
    commits = traces.commit_position[own_commit]
    width = 1 + int(max(position.max(initial=0), commits.max(initial=0)))
    committed = np.zeros((len(rows), width), dtype=bool)
    committed[own, commits] = True
    free = ~committed[owner, position]
    running = np.concatenate([[0], np.cumsum(free)])
    rank = running[1:] - running[ptr_of(masked_lengths)[:-1]][owner]
    return owner[free], entry[free], rank[free]


def derive_chains(
    traces: Traces, rows: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chains of the anchors at trace rows ``rows`` [R], at most ``kept`` [R] states of each.

    Returns:
        Chain lengths [R], pairs added by each chain state, their position ranks and vocabulary ranks.

    Raises:
        ValueError: a commit at a position that was not masked at the anchor, or more ranks than int16 holds.
    """
    if traces.top_j > _MAX_RANK:
        raise ValueError(f"the traces hold {traces.top_j} vocabulary ranks, at most {_MAX_RANK} have a formula")
    owner, entry, rank = masked_at_anchors(traces, rows)
    position = traces.masked_position[entry].astype(np.int64)
    width = 1 + int(max(traces.masked_position.max(initial=0), traces.commit_position.max(initial=0)))
    rank_at = np.zeros((len(rows), width), dtype=np.int16)
    rank_at[owner, position] = rank
    entry_at = np.zeros((len(rows), width), dtype=np.int64)
    entry_at[owner, position] = entry

    # Chain state d of an anchor adds what the step d rows later committed.
    state_owner, state_row = ranges(rows + 1, kept)
    state_size = traces.commit_ptr[state_row + 1] - traces.commit_ptr[state_row]
    state, commit = ranges(traces.commit_ptr[state_row], state_size)
    anchor = state_owner[state]
    where = traces.commit_position[commit].astype(np.int64)
    pair_i = rank_at[anchor, where]
    if len(pair_i) and pair_i.min() < 1:
        bad = int(np.argmin(pair_i))
        row = int(rows[anchor[bad]])
        raise ValueError(
            f"prompt {traces.prompt_index[row]}, block {traces.block[row]}: a step after step {traces.step[row]} "
            f"commits offset {where[bad]}, which was not masked then; chains need a policy that never "
            "commits a position twice"
        )
    hit = traces.top_token[entry_at[anchor, where]] == traces.commit_token[commit][:, None]
    named = hit.any(axis=1)
    pair_j = (hit.argmax(axis=1) + 1).astype(np.int16)

    unnamed = np.bincount(state[~named], minlength=len(state_owner)) > 0
    cut = np.concatenate([[0], np.cumsum(unnamed | (state_size == 0))])
    alive = cut[1:] == cut[ptr_of(kept)[:-1]][state_owner]
    length = np.bincount(state_owner[alive], minlength=len(rows))
    return length, state_size[alive], pair_i[alive[state]], pair_j[alive[state]]
