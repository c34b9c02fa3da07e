"""Replay for another runtime: the forwards that it will count, where it adds some or never counts fewer than so many.

The drafts are accepted as everywhere; only the books differ, block by block (``verify.runtimes.profiles``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from drafting.anchors import AnchorTable
from drafting.chains import block_starts, derive_chains
from drafting.ragged import ptr_of
from drafting.replay import walk
from verify.graph.formulas import Formula, formula
from verify.runtimes.profiles import RuntimeProfile

if TYPE_CHECKING:
    from calibrate.traces.table import Traces


@dataclass(frozen=True, eq=False)
class RuntimeCount:
    """What a runtime counts on recorded decodes. ``M`` prompts, ascending.

    Attributes:
        prompt_indices: int32 [M].
        plain_per_prompt: int64 [M], forwards of its plain loop.
        forwards_per_prompt: int64 [M], forwards with the drafts.
    """

    prompt_indices: np.ndarray
    plain_per_prompt: np.ndarray
    forwards_per_prompt: np.ndarray

    @property
    def plain_forwards(self) -> int:
        """Forwards of plain decoding, all prompts."""
        return int(self.plain_per_prompt.sum())

    @property
    def forwards(self) -> int:
        """Forwards with the drafts, all prompts."""
        return int(self.forwards_per_prompt.sum())


def runtime_count(
    nodes: Iterable[Formula], traces: Traces, profile: RuntimeProfile, anchors: AnchorTable | None = None
) -> RuntimeCount:
    """The forwards that the runtime of ``profile`` counts for the recorded decodes under the graph ``nodes``.

    Whether the recording is of a rule and a cache mode of that runtime is not known here; ask ``profile.check``.

    Args:
        nodes: formulas; the root and repeats are ignored.
        traces: of plain decoding.
        profile: how it counts.
        anchors: the whole chains of these traces, where they are at hand.

    Complexity and errors are those of :func:`drafting.replay.replay`.
    """
    distinct = {node for node in nodes if node}
    anchors = AnchorTable.from_traces(traces, max_depth=None) if anchors is None else anchors
    _, visited = walk(distinct, anchors)
    # A block's first forward is no anchor: nothing of the block is known before it.
    per_block = 1 + np.diff(np.concatenate([[0], np.cumsum(visited)])[anchors.block_ptr])
    adopted = _completed_by_a_draft(distinct, traces, anchors, visited) if profile.adopts_complete else False
    prompt_indices, of_block = np.unique(anchors.block_prompt, return_inverse=True)

    def per_prompt(counted: np.ndarray) -> np.ndarray:
        return np.bincount(of_block, weights=counted, minlength=len(prompt_indices)).astype(np.int64)

    return RuntimeCount(
        prompt_indices,
        per_prompt(profile.forwards(anchors.block_steps)),
        per_prompt(profile.forwards(per_block, adopted)),
    )


def _completed_by_a_draft(nodes: set[Formula], traces: Traces, anchors: AnchorTable, visited: np.ndarray) -> np.ndarray:
    """bool [B]: blocks whose last forward, by accepting all up to it, reaches the complete block in a draft.

    Chains end before the complete block, so that state is derived here, for the last visited anchor of each block.
    """
    at, adopted = np.flatnonzero(visited), np.zeros(len(anchors.block_ptr) - 1, dtype=bool)
    if not len(at):
        return adopted
    of_anchor = np.searchsorted(anchors.block_ptr, at, side="right") - 1
    last = np.append(np.flatnonzero(np.diff(of_anchor)), len(at) - 1)
    chosen = at[last]
    starts = block_starts(traces)
    is_anchor = np.ones(traces.n_steps, dtype=bool)
    is_anchor[starts[1:] - 1] = False  # the last step of a block leads to no state that is masked
    left = anchors.steps_left[chosen].astype(np.int64)
    lengths, sizes, ranks_i, ranks_j = derive_chains(traces, np.flatnonzero(is_anchor)[chosen], left)
    pairs = np.split(np.stack([ranks_i, ranks_j], axis=1), ptr_of(sizes)[ptr_of(lengths)[1:-1]])
    for block, whole, found in zip(of_anchor[last].tolist(), lengths == left, pairs, strict=True):
        adopted[block] = bool(whole) and formula(found.tolist()) in nodes
    return adopted
