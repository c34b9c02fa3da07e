"""Cutting a graph to fewer nodes than it has, as a server must that captured forwards of a few sizes only."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from verify.graph.file import GraphFile

#: The splits whose values are looked at, in this order.
SPLITS = ("search", "validation", "test")


def truncation(graph: GraphFile) -> tuple[np.ndarray, np.ndarray, str | None]:
    """An order of the nodes of which every beginning is a graph, and what each beginning is worth.

    The graph file says at which share of the anchors a node is accepted (``node_reach``). A beginning that holds, with
    a node, every parent that was ever accepted, loses none of that node's acceptances; so its worth is the sum of its
    nodes' shares, and no estimate. The order keeps to such beginnings: of the nodes whose accepted parents are all
    taken, the one with the largest share comes next, of equal ones the one that stands earlier in the file. A
    beginning need not be the best graph of its size; a search for that size finds that.

    Without ``node_reach`` the order goes by ``node_counts``, else by the file alone, and nothing is said of worth.

    Returns:
        int32 [N], node indices, the root first; float32 [N], the accepted drafts to expect of the nodes up to there,
        NaN where nothing is known; and the split of :data:`SPLITS` that says so, or None.

    Complexity: O((N + E) log N).
    """
    split, reach = _stated(graph.values, "node_reach")
    weight = reach if reach is not None else _stated(graph.values, "node_counts")[1] or [0.0] * len(graph.nodes)
    children: list[list[int]] = [[] for _ in graph.nodes]
    missing = [0] * len(graph.nodes)
    for parent, child in graph.edges:
        children[parent].append(child)
        missing[child] += parent > 0 and weight[parent] > 0
    offered = [(0.0, 0)]
    seen = [node == 0 for node in range(len(graph.nodes))]
    order = []
    while offered:
        _, node = heapq.heappop(offered)
        order.append(node)
        for child in children[node]:
            missing[child] -= node > 0 and weight[node] > 0
            if not seen[child] and not missing[child]:
                seen[child] = True
                heapq.heappush(offered, (-weight[child], child))
    taken = np.array(order, dtype=np.int32)
    if reach is None:
        return taken, np.full(len(taken), np.nan, dtype=np.float32), None
    worth = np.array(reach, dtype=np.float64)
    worth[0] = 0.0
    return taken, np.cumsum(worth[taken]).astype(np.float32), split


def _stated(values: dict[str, Any], name: str) -> tuple[str | None, list[float] | None]:
    """The first split that states ``name``, and what it states; None and None without one."""
    for split in SPLITS:
        if name in values.get(split, {}):
            return split, values[split][name]
    return None, None
