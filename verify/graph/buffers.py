"""Arrays for kernels, derived from a graph and never stored in it: one source of truth, the formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verify.graph.file import GraphFile
from verify.graph.formulas import Formula
from verify.graph.truncation import truncation

BUFFERS_FORMAT = "draftgraph-buffers"
BUFFERS_VERSION = 2
#: The largest file of them that is written or read.
MAX_BUFFER_BYTES = 2**26


def pad_formulas(formulas: Sequence[Formula]) -> tuple[np.ndarray, np.ndarray]:
    """``N`` formulas as one array: their pairs, int32 [N, S, 2], and how many each has, int32 [N].

    Pairs stand in the order of the formula and are padded with 0, which is no rank. ``S`` is the largest formula, at
    least 1, because many kernels refuse an empty axis.
    """
    lengths = np.array([len(value) for value in formulas], dtype=np.int32)
    pairs = np.zeros((len(lengths), int(lengths.max(initial=1)), 2), dtype=np.int32)
    for index, value in enumerate(formulas):
        if value:
            pairs[index, : len(value)] = value
    return pairs, lengths


@dataclass(frozen=True, eq=False)
class FillLimits:
    """What an anchor must offer before a formula can be filled, for ``D`` formulas.

    Attributes:
        size: int [D], pairs.
        position_rank, vocabulary_rank: int [D], the highest that the formula names.
    """

    size: np.ndarray
    position_rank: np.ndarray
    vocabulary_rank: np.ndarray

    @classmethod
    def of(cls, formulas: Sequence[Formula]) -> FillLimits:
        """The limits of ``formulas``, in their order."""
        pairs, lengths = pad_formulas(formulas)
        return cls(lengths, pairs[:, :, 0].max(axis=1), pairs[:, :, 1].max(axis=1))

    def usable(self, masked: int | np.ndarray, depth: int, complete: bool = False) -> np.ndarray:
        """Which formulas are worth filling: bool [D], or [A, D] for ``masked`` of shape [A, 1].

        Left out are formulas that name a rank the anchor has not, and those that would complete the block: nobody needs
        the distribution of a full block. Who leads on from a full block asks for them by ``complete``.

        Args:
            masked: positions masked at the anchor.
            depth: vocabulary ranks that are known there.
            complete: keep also those that complete the block.
        """
        return (self.size < masked + complete) & (self.position_rank <= masked) & (self.vocabulary_rank <= depth)


def static_buffers(graph: GraphFile) -> dict[str, np.ndarray]:
    """The graph as flat arrays; ``N`` nodes with the root at 0, ``E`` edges, ``S`` the largest formula.

    Returns:
        int32 arrays, but for the last one.

        formulas: [N, S, 2], (position rank, vocabulary rank) pairs, padded as :func:`pad_formulas` says.
        lengths: [N], pairs in each formula.
        depth: [N], fewest edges from the root.
        parent_ptr: [N + 1], parent_index: [E]; the parents of node ``n`` are
            ``parent_index[parent_ptr[n]:parent_ptr[n + 1]]``, ascending.
        child_ptr: [N + 1], child_index: [E]; its children, likewise.
        max_i, max_j: [N], the highest position rank and vocabulary rank of each formula, 0 for the root.
        min_masked: [N], the fewest masked positions at which the node is worth filling: more than it has pairs, and
            as many as its highest position rank.
        completes_at: [N], the number of masked positions at which it completes the block: its pairs.
        truncation: [N], an order of the nodes, root first, of which every beginning is a graph.
        truncation_value: float32 [N], the accepted drafts to expect of the nodes up to there; NaN where the graph's
            values do not tell (:func:`verify.graph.truncation.truncation`).
    """
    formulas, lengths = pad_formulas(graph.nodes)
    edges = np.array(graph.edges, dtype=np.int32).reshape(-1, 2)
    parent_ptr, parent_index = _rows(edges[:, 1], edges[:, 0], len(graph.nodes))
    child_ptr, child_index = _rows(edges[:, 0], edges[:, 1], len(graph.nodes))
    max_i, max_j = formulas[:, :, 0].max(axis=1), formulas[:, :, 1].max(axis=1)
    order, value, _ = truncation(graph)
    return {
        "formulas": formulas,
        "lengths": lengths,
        "depth": np.array(graph.depths, dtype=np.int32),
        "parent_ptr": parent_ptr,
        "parent_index": parent_index,
        "child_ptr": child_ptr,
        "child_index": child_index,
        "max_i": max_i,
        "max_j": max_j,
        "min_masked": np.maximum(lengths + 1, max_i).astype(np.int32),
        "completes_at": lengths.copy(),
        "truncation": order,
        "truncation_value": value,
    }


def buffer_metadata(graph: GraphFile) -> dict[str, str]:
    """What is written beside the static buffers: the format, for whom the graph is valid, and scalars; texts all.

    ``max_formula`` is the number of pairs of the largest formula, 0 where the graph is its root; ``truncation_split``,
    where the graph states it, the split that ``truncation_value`` is of. What is None in the graph is left out.
    """
    _, _, split = truncation(graph)
    stated = {
        "format": BUFFERS_FORMAT,
        "version": BUFFERS_VERSION,
        "rank_origin": graph.rank_origin,
        "tie_rule": graph.tie_rule,
        "max_formula": max(map(len, graph.nodes)),
        "truncation_split": split,
        **graph.validity.stated(),
    }
    return {name: str(value) for name, value in stated.items() if value is not None}


def _rows(key: np.ndarray, value: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Compressed sparse rows: ``value`` grouped by ``key`` in 0..n-1, ascending within a group."""
    pointer = np.zeros(n + 1, dtype=np.int32)
    pointer[1:] = np.cumsum(np.bincount(key, minlength=n))
    return pointer, np.ascontiguousarray(value[np.lexsort((value, key))])
