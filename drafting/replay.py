"""Replay: walk recorded decodes with a draft graph and count the forward passes.

A forward at an anchor accepts the longest prefix of the anchor's chain that lies in the graph, m states, and
the decode goes on at the anchor 1 + m steps later. Step 1 of a block is its refresh forward, which drafts
nothing (there is no distribution to fill drafts from), so forwards of a block = 1 + anchors visited.

The count equals, forward for forward, what the runtime verifier measures on the same prompts in float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from drafting.anchors import AnchorTable
from drafting.values import accepted_per_anchor
from verify.graph.formulas import Formula


@dataclass(frozen=True, eq=False)
class ReplayResult:
    """What a graph costs on recorded decodes. ``A`` anchors, ``B`` blocks, ``M`` prompts.

    Attributes:
        forwards: forward passes with the graph.
        plain_forwards: forward passes of the recorded plain decode, one per denoising step.
        prompt_indices: int32 [M], the prompts, ascending.
        forwards_per_prompt, plain_per_prompt: int64 [M].
        forwards_per_block: int64 [B], in the order of the anchor table.
        visited: bool [A], anchors at which a forward starts.
        accepted: int64 [A], accepted drafts at every anchor, visited or not.
        visited_histogram: int64, entry m counts the visited anchors that accept m drafts.
    """

    forwards: int
    plain_forwards: int
    prompt_indices: np.ndarray
    forwards_per_prompt: np.ndarray
    plain_per_prompt: np.ndarray
    forwards_per_block: np.ndarray
    visited: np.ndarray
    accepted: np.ndarray
    visited_histogram: np.ndarray

    @property
    def nfe_reduction(self) -> float:
        """Plain forwards / forwards. NaN without any step."""
        return self.plain_forwards / self.forwards if self.forwards else float("nan")

    @property
    def accepted_drafts(self) -> float:
        """Mean accepted drafts over all anchors: the path_value of the graph. NaN without any anchor."""
        return float(self.accepted.mean()) if len(self.accepted) else float("nan")

    @property
    def accepted_drafts_visited(self) -> float:
        """Mean accepted drafts over the anchors really visited. NaN without any anchor."""
        return float(self.accepted[self.visited].mean()) if self.visited.any() else float("nan")


def replay(nodes: Iterable[Formula], anchors: AnchorTable) -> ReplayResult:
    """Count the forward passes of the recorded decodes under the graph ``nodes``.

    All blocks are walked at once, so the loop runs as often as the slowest block needs forwards.
    O(N log |nodes| + forwards).

    Args:
        nodes: formulas; the root and repeats are ignored.
        anchors: a table from traces.

    Raises:
        ValueError: a table of literal chains, which knows no blocks.
        drafting.values.DepthError: the graph reaches deeper than the chains of the table were kept.
    """
    if anchors.n_anchors and not anchors.n_blocks:
        raise ValueError("literal chains have no blocks to replay; build the table with AnchorTable.from_traces")
    accepted = accepted_per_anchor(nodes, anchors)
    forwards_per_block = np.ones(anchors.n_blocks, dtype=np.int64)
    visited = np.zeros(anchors.n_anchors, dtype=bool)
    # The next anchor of each block; at the end of its range the block is complete.
    position = anchors.block_ptr[:-1].copy()
    end = anchors.block_ptr[1:]
    active = np.flatnonzero(position < end)
    while len(active):
        here = position[active]
        visited[here] = True
        forwards_per_block[active] += 1
        position[active] = here + 1 + accepted[here]
        active = active[position[active] < end[active]]

    prompt_indices, row = np.unique(anchors.block_prompt, return_inverse=True)
    return ReplayResult(
        forwards=int(forwards_per_block.sum()),
        plain_forwards=int(anchors.block_steps.sum()),
        prompt_indices=prompt_indices,
        forwards_per_prompt=_sums(row, forwards_per_block, len(prompt_indices)),
        plain_per_prompt=_sums(row, anchors.block_steps, len(prompt_indices)),
        forwards_per_block=forwards_per_block,
        visited=visited,
        accepted=accepted,
        visited_histogram=np.bincount(accepted[visited], minlength=1),
    )


def _sums(row: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(row, weights=values, minlength=size).astype(np.int64)
