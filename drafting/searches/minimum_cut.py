"""Minimum cuts with 64-bit capacities, exact, on top of the 32-bit maximum flow of scipy.

``scipy.sparse.csgraph.maximum_flow`` counts in int32. Prices are rationals: to make them whole, capacities grow past
that. So the flow is found digit by digit (capacity scaling; Gabow, "Scaling algorithms for network problems", 1985,
with digits of many bits in place of one):

1. Solve for the leading digits of the capacities, few enough for int32.
2. Append the next s binary digits. The flow found so far, times 2^s, is feasible, and the old minimum cut has less
   than 2^s left on each of its edges; so at most E * 2^s more can flow, E edges. Larger residual capacities can never
   be used up, and are clipped there. Take s so that this stays below 2^30 (capacity and opposite flow are added up on
   the way), and augment.

The result is a maximum flow of the capacities, whatever their size up to 2^61.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

_INT32 = int(np.iinfo(np.int32).max)


@dataclass(frozen=True, eq=False)
class Cut:
    """A maximum flow and what its residual network says. ``N`` vertices, ``E`` edges.

    Attributes:
        flow: int64 [E], flow on each edge.
        value: of the flow, which is the capacity of the minimum cut.
        residual: csr [N, N], 1 where more can flow from row to column.
        smallest: bool [N], source side of the minimum cut with the fewest vertices.
        largest: bool [N], source side of the minimum cut with the most.
    """

    flow: np.ndarray
    value: int
    residual: sparse.csr_array
    smallest: np.ndarray
    largest: np.ndarray


def minimum_cut(size: int, tail: np.ndarray, head: np.ndarray, capacity: np.ndarray, source: int, sink: int) -> Cut:
    """Both extreme minimum cuts between two vertices.

    Args:
        size: vertices ``N``.
        tail, head: int [E], edges; no two of them join the same two vertices.
        capacity: int64 [E], not negative; negative means unbounded.
        source, sink: vertices. No unbounded path may lead from one to the other.

    Raises:
        ValueError: capacities at the source sum to 2^61 or more.
    """
    leaving = capacity[tail == source]
    if (leaving < 0).any():
        raise ValueError("edges at the source must be bounded")
    total = int(leaving.sum())
    if total >= 1 << 61:
        raise ValueError(f"capacities at the source sum to {total}, the limit is 2^61")
    capacity = np.where(capacity < 0, total + 1, np.minimum(capacity, total + 1))
    flow = np.zeros(len(tail), dtype=np.int64)
    shift = max(0, (total + 1).bit_length() - 30)
    ceiling = _INT32 - 1
    while True:
        room = (capacity >> shift) - flow
        flow += _augment(size, tail, head, np.minimum(room, ceiling), np.minimum(flow, ceiling), source, sink)
        if not shift:
            break
        digits = min(shift, max(1, 30 - (len(tail) + 1).bit_length()))
        shift -= digits
        flow <<= digits
        ceiling = min(_INT32 - 1, (len(tail) + 1) << digits)
    forward, backward = capacity > flow, flow > 0
    residual = _matrix(
        size,
        np.concatenate([tail[forward], head[backward]]),
        np.concatenate([head[forward], tail[backward]]),
        np.ones(int(forward.sum() + backward.sum()), dtype=np.int32),
    )
    smallest, to_sink = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    smallest[breadth_first_order(residual, source, return_predecessors=False)] = True
    to_sink[breadth_first_order(residual.T.tocsr(), sink, return_predecessors=False)] = True
    return Cut(flow, int(flow[tail == source].sum() - flow[head == source].sum()), residual, smallest, ~to_sink)


def _augment(
    size: int,
    tail: np.ndarray,
    head: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    source: int,
    sink: int,
) -> np.ndarray:
    """Maximum flow over residual capacities: int64 [E], net flow added to each edge."""
    open_forward, open_backward = forward > 0, backward > 0
    graph = _matrix(
        size,
        np.concatenate([tail[open_forward], head[open_backward]]),
        np.concatenate([head[open_forward], tail[open_backward]]),
        np.concatenate([forward[open_forward], backward[open_backward]]).astype(np.int32),
    )
    flow = maximum_flow(graph, source, sink).flow.tocsr()
    flow.sort_indices()
    # Net flows stand in the matrix at (tail, head), with the opposite sign at (head, tail).
    row = np.repeat(np.arange(size, dtype=np.int64), np.diff(flow.indptr))
    key = row * size + flow.indices
    edge = np.asarray(tail, dtype=np.int64) * size + head
    at = np.minimum(np.searchsorted(key, edge), max(len(key) - 1, 0))
    if not len(key):
        return np.zeros(len(tail), dtype=np.int64)
    return np.where(key[at] == edge, flow.data[at], 0).astype(np.int64)


def _matrix(size: int, row: np.ndarray, column: np.ndarray, data: np.ndarray) -> sparse.csr_array:
    graph = sparse.csr_array((data, (row, column)), shape=(size, size))
    graph.indices, graph.indptr = graph.indices.astype(np.int32), graph.indptr.astype(np.int32)
    return graph
