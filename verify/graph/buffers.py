"""Arrays for kernels, derived from a graph and never stored in it: one source of truth, the formulas."""

from __future__ import annotations

import numpy as np

from verify.graph.file import GraphFile


def static_buffers(graph: GraphFile) -> dict[str, np.ndarray]:
    """The graph as flat int32 arrays; ``N`` nodes with the root at 0, ``E`` edges, ``S`` the largest formula.

    Returns:
        formulas: [N, S, 2], (position rank, vocabulary rank) pairs, padded with 0, which is no rank. ``S`` is
            at least 1, because many kernels refuse an empty axis.
        lengths: [N], pairs in each formula.
        depth: [N], fewest edges from the root.
        parent_ptr: [N + 1], parent_index: [E]; the parents of node ``n`` are
            ``parent_index[parent_ptr[n]:parent_ptr[n + 1]]``, ascending.
        child_ptr: [N + 1], child_index: [E]; its children, likewise.
    """
    lengths = np.array([len(node) for node in graph.nodes], dtype=np.int32)
    formulas = np.zeros((len(graph.nodes), max(1, int(lengths.max())), 2), dtype=np.int32)
    for index, node in enumerate(graph.nodes):
        if node:
            formulas[index, : len(node)] = node
    edges = np.array(graph.edges, dtype=np.int32).reshape(-1, 2)
    parent_ptr, parent_index = _rows(edges[:, 1], edges[:, 0], len(graph.nodes))
    child_ptr, child_index = _rows(edges[:, 0], edges[:, 1], len(graph.nodes))
    return {
        "formulas": formulas,
        "lengths": lengths,
        "depth": np.array(graph.depths, dtype=np.int32),
        "parent_ptr": parent_ptr,
        "parent_index": parent_index,
        "child_ptr": child_ptr,
        "child_index": child_index,
    }


def _rows(key: np.ndarray, value: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Compressed sparse rows: ``value`` grouped by ``key`` in 0..n-1, ascending within a group."""
    pointer = np.zeros(n + 1, dtype=np.int32)
    pointer[1:] = np.cumsum(np.bincount(key, minlength=n))
    return pointer, np.ascontiguousarray(value[np.lexsort((value, key))])
