"""Replay: walk recorded decodes with a draft graph and count the forward passes.

A forward at an anchor accepts the longest prefix of the anchor's chain that lies in the graph, m states, and
the decode goes on at the anchor 1 + m steps later. Step 1 of a block is its refresh forward, which drafts
nothing (there is no distribution to fill drafts from), so forwards of a block = 1 + anchors visited.

The count equals, forward for forward, what the runtime verifier measures on the same prompts in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drafting.anchors import AnchorTable
from drafting.codes import formula_codes
from drafting.counts import DecodeCounts, ReplayError, check_paired, pad_last, sum_padded, width_counts
from drafting.ragged import ranges
from drafting.values import accepted_per_anchor
from verify.graph.formulas import Formula

#: A file holds counts per prompt and node as long as they are not more than this: they would be most of it.
MAX_NODE_COUNTS = 1 << 16


@dataclass(frozen=True, eq=False)
class ReplayResult(DecodeCounts):
    """What a graph costs on recorded decodes.

    Attributes:
        anchors_per_prompt: [M], anchors; a prompt may have none.
        accepted_per_prompt: [M], accepted drafts summed over the prompt's anchors, visited or not.
        accepted_histogram: entry m counts the anchors, visited or not, that accept m drafts.

    The other counts are those of :class:`drafting.counts.DecodeCounts`; see :meth:`mean` for floats among them.
    """

    anchors_per_prompt: np.ndarray
    accepted_per_prompt: np.ndarray
    accepted_histogram: np.ndarray

    @classmethod
    def mean(cls, parts: Iterable[ReplayResult]) -> ReplayResult:
        """The mean over several graphs on the same decodes: what a graph drawn from them is expected to cost.

        Raises:
            ReplayError: no graph, other prompts, or other decodes of them.
        """
        every = list(parts)
        if not every:
            raise ReplayError("a mean needs the replay of at least one graph, got none")
        for other in every[1:]:
            check_paired(every[0], other)
        return cls(
            prompt_indices=every[0].prompt_indices,
            plain_per_prompt=every[0].plain_per_prompt,
            forwards_per_prompt=np.mean([part.forwards_per_prompt for part in every], axis=0),
            tokens_per_prompt=every[0].tokens_per_prompt,
            anchors_per_prompt=every[0].anchors_per_prompt,
            accepted_per_prompt=np.mean([part.accepted_per_prompt for part in every], axis=0),
            accepted_histogram=sum_padded([part.accepted_histogram for part in every]) / len(every),
            visited_histogram=sum_padded([part.visited_histogram for part in every]) / len(every),
            refreshes_per_prompt=every[0].refreshes_per_prompt,
            widths_per_prompt=sum_padded([part.widths_per_prompt for part in every]) / len(every),
        )

    @classmethod
    def concatenate(cls, parts: Iterable[ReplayResult]) -> ReplayResult:
        """Replays of disjoint prompts as one, for example the held-out parts of all folds.

        Raises:
            ReplayError: a prompt stands in two parts, or there is no part.
        """
        every = list(parts)
        if not every:
            raise ReplayError("a concatenation needs at least one replay, got none")
        prompt_indices = np.concatenate([part.prompt_indices for part in every])
        if len(np.unique(prompt_indices)) != len(prompt_indices):
            raise ReplayError("a prompt stands in two parts; the parts must be disjoint")
        order = np.argsort(prompt_indices, kind="stable")

        def column(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in every])[order]

        return cls(
            prompt_indices=prompt_indices[order],
            plain_per_prompt=column("plain_per_prompt"),
            forwards_per_prompt=column("forwards_per_prompt"),
            tokens_per_prompt=column("tokens_per_prompt"),
            anchors_per_prompt=column("anchors_per_prompt"),
            accepted_per_prompt=column("accepted_per_prompt"),
            accepted_histogram=sum_padded([part.accepted_histogram for part in every]),
            visited_histogram=sum_padded([part.visited_histogram for part in every]),
            refreshes_per_prompt=column("refreshes_per_prompt"),
            widths_per_prompt=np.concatenate(pad_last([part.widths_per_prompt for part in every]))[order],
        )

    @property
    def accepted_drafts(self) -> float:
        """Mean accepted drafts (the root excluded) over all anchors: the path value. 0.0 without any anchor."""
        return float(self.accepted_per_prompt.sum() / max(self.anchors_per_prompt.sum(), 1))

    def row(self) -> dict[str, Any]:
        """The totals, with the accepted drafts of all anchors."""
        return {"accepted_drafts": self.accepted_drafts, **super().row()}


def replay(nodes: Iterable[Formula], anchors: AnchorTable) -> ReplayResult:
    """Count the forward passes of the recorded decodes under the graph ``nodes``.

    Args:
        nodes: formulas; the root and repeats are ignored.
        anchors: a table from traces.

    Complexity: O(N log |nodes|) for N chain states, and a pass over all blocks per forward of the slowest one.

    Raises:
        ValueError: a table of literal chains, which knows no blocks.
        drafting.values.DepthError: the graph reaches deeper than the chains of the table were kept.
    """
    _check_blocks(anchors)
    distinct = list({node for node in nodes if node})
    return result_of(accepted_per_anchor(distinct, anchors), filled_drafts(distinct, anchors.masked), anchors)


def filled_drafts(nodes: Iterable[Formula], masked: np.ndarray) -> np.ndarray:
    """How many drafts anchors with ``masked`` masked positions (int [A]) fill: int64 [A].

    As many as the runtime (``verify.drafts``), where enough vocabulary ranks are known. The root is left out.
    """
    needed = sorted(max(len(node) + 1, max(i for i, _ in node)) for node in nodes if node)
    return np.searchsorted(np.array(needed, dtype=np.int64), masked, side="right")


def result_of(accepted: np.ndarray, drafts: np.ndarray, anchors: AnchorTable) -> ReplayResult:
    """The count for drafts that were accepted at every anchor (int64 [A]) of those evaluated there (int64 [A]),
    however they were proposed.
    """
    visited = visited_anchors(accepted[None, :], anchors.block_ptr)[0]
    prompt_indices, of_block = np.unique(anchors.block_prompt, return_inverse=True)
    of_anchor = np.searchsorted(prompt_indices, anchors.prompt_index)

    def per_prompt(place: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(place, weights=values, minlength=len(prompt_indices)).astype(np.int64)

    return ReplayResult(
        prompt_indices=prompt_indices,
        plain_per_prompt=per_prompt(of_block, anchors.block_steps),
        forwards_per_prompt=per_prompt(of_block) + per_prompt(of_anchor, visited),
        tokens_per_prompt=per_prompt(of_block, anchors.block_tokens),
        anchors_per_prompt=per_prompt(of_anchor),
        accepted_per_prompt=per_prompt(of_anchor, accepted),
        accepted_histogram=np.bincount(accepted, minlength=1),
        visited_histogram=np.bincount(accepted[visited], minlength=1),
        refreshes_per_prompt=per_prompt(of_block),
        widths_per_prompt=width_counts(of_anchor[visited], drafts[visited], len(prompt_indices)),
    )


def walk(nodes: Iterable[Formula], anchors: AnchorTable) -> tuple[np.ndarray, np.ndarray]:
    """Every anchor under the graph ``nodes``: accepted drafts (int64 [A]), and whether a forward starts there
    (bool [A]). Arguments, complexity and errors are those of :func:`replay`.
    """
    _check_blocks(anchors)
    accepted = accepted_per_anchor(nodes, anchors)
    return accepted, visited_anchors(accepted[None, :], anchors.block_ptr)[0]


def node_visits(nodes: Sequence[Formula], anchors: AnchorTable) -> np.ndarray:
    """At how many of the anchors visited each node is accepted, per prompt: int64 [M, D], as a runtime counts it.

    Args:
        nodes: ``D`` distinct formulas, the root left out.
        anchors: a table from traces, its ``M`` prompts ascending.

    Errors are those of :func:`replay`.
    """
    accepted, visited = walk(nodes, anchors)
    prompts = np.unique(anchors.block_prompt)
    owner, state = ranges(anchors.chain_ptr[:-1][visited], accepted[visited])
    codes = formula_codes(nodes)
    order = np.argsort(codes)
    node = order[np.searchsorted(codes[order], anchors.code[state])]
    prompt = np.searchsorted(prompts, anchors.prompt_index[visited][owner])
    flat = np.bincount(prompt * len(codes) + node, minlength=len(prompts) * len(codes))
    return flat.reshape(len(prompts), len(codes))


def per_prompt(nodes: Sequence[Formula], anchors: AnchorTable) -> dict[str, Any]:
    """``per_prompt`` of the values of a graph file (docs/graph-format.md): what served requests are compared with.

    Arguments and errors are those of :func:`node_visits`; ``nodes`` in the order of the file.
    """
    found = replay(nodes, anchors)
    counts: dict[str, Any] = {
        "anchors": found.anchors_visited.tolist(),
        "accepted_drafts": found.accepted_visited.tolist(),
    }
    if len(nodes) * found.prompts <= MAX_NODE_COUNTS:
        counts["accepted_nodes"] = node_visits(nodes, anchors).tolist()
    return counts


def _check_blocks(anchors: AnchorTable) -> None:
    if anchors.n_anchors and not anchors.n_blocks:
        raise ValueError("literal chains have no blocks to replay; build the table with AnchorTable.from_traces")


def visited_anchors(accepted: np.ndarray, block_ptr: np.ndarray) -> np.ndarray:
    """At which anchors a forward starts, for several graphs together; all blocks of all graphs step at once.

    Args:
        accepted: int64 [graphs, A], accepted drafts at every anchor.
        block_ptr: int64 [B + 1], of the anchor table.

    Returns:
        bool [graphs, A]; a block needs one forward for each of its anchors visited, and one to begin with.
    """
    graphs, anchors = accepted.shape
    offset = np.repeat(np.arange(graphs) * anchors, len(block_ptr) - 1)
    # The next anchor of each block; at the end of its range the block is complete.
    position = offset + np.tile(block_ptr[:-1], graphs)
    end = offset + np.tile(block_ptr[1:], graphs)
    jump = accepted.ravel() + 1
    visited = np.zeros(graphs * anchors, dtype=bool)
    keep = position < end
    position, end = position[keep], end[keep]
    while len(position):
        visited[position] = True
        position = position + jump[position]
        keep = position < end
        position, end = position[keep], end[keep]
    return visited.reshape(graphs, anchors)
