"""What makes formulas a draft graph: which node can follow which, and how far each lies from the root.

Node sets are Python integers used as bit sets (bit ``n`` stands for node ``n``): intersecting two of them
takes ``N / 64`` machine words, which checks tens of thousands of nodes in seconds without a matrix of ``N *
N``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from verify.files.strict_json import Words, expect_integer, expect_list, fail
from verify.graph.formulas import Formula, format_formula

Edge = tuple[int, int]


def read_nodes(value: object, block_length: int, top_j: int, max_nodes: int) -> tuple[Formula, ...]:
    """Check a list of ``[[i, j], ...]`` nodes and make formulas of them.

    Raises:
        StrictJsonError: no list, too long, the root missing or not first, a rank out of range, position ranks
            unsorted or repeated, a node that would fill the block, or a node that comes twice.
    """
    rows = expect_list(value, "nodes")
    if not 1 <= len(rows) <= max_nodes:
        fail("nodes", f"1 to {max_nodes} nodes, the root first", Words(f"{len(rows)} nodes"))
    nodes: list[Formula] = []
    index_of: dict[Formula, int] = {}
    for index, row in enumerate(rows):
        where = f"nodes[{index}]"
        node = _read_node(row, where, block_length, top_j)
        if index == 0 and node:
            fail(where, "the root, []", Words(format_formula(node)))
        if node in index_of:
            found = Words(f"{format_formula(node)[:200]}, which is nodes[{index_of[node]}] too")
            fail(where, "a node that stands once", found)
        index_of[node] = index
        nodes.append(node)
    return tuple(nodes)


def _read_node(row: object, where: str, block_length: int, top_j: int) -> Formula:
    pairs = expect_list(row, where, "a list of [position rank, vocabulary rank] pairs")
    if len(pairs) >= block_length:
        # A draft that fills the block is worthless: no distribution of a full block is needed.
        fail(where, f"fewer than {block_length} pairs (the block length)", Words(f"{len(pairs)} pairs"))
    node: list[tuple[int, int]] = []
    for number, pair in enumerate(pairs):
        place = f"{where}[{number}]"
        ranks = expect_list(pair, place, "a pair [position rank, vocabulary rank]")
        if len(ranks) != 2:
            fail(place, "a pair [position rank, vocabulary rank]", Words(f"{len(ranks)} items"))
        i = expect_integer(ranks[0], f"{place}, position rank", 1, block_length)
        j = expect_integer(ranks[1], f"{place}, vocabulary rank", 1, top_j)
        if node and i == node[-1][0]:
            fail(where, "every position rank once", Words(f"position rank {i} twice"))
        if node and i < node[-1][0]:
            fail(where, "position ranks in ascending order", Words(f"{node[-1][0]} before {i}"))
        node.append((i, j))
    return tuple(node)


def followers(nodes: Sequence[Formula], step_size: int | None) -> Iterator[int]:
    """Per node, the bit set of the nodes that can follow it in one denoising step.

    B follows A when A is a proper subset of B and B has ``step_size`` pairs more (any number when that is
    None).
    """
    holding: dict[tuple[int, int], int] = {}
    of_size: dict[int, int] = {}
    for index, node in enumerate(nodes):
        bit = 1 << index
        of_size[len(node)] = of_size.get(len(node), 0) | bit
        for pair in node:
            holding[pair] = holding.get(pair, 0) | bit
    larger: dict[int, int] = {}
    rest = 0
    for size in sorted(of_size, reverse=True):
        larger[size] = rest
        rest |= of_size[size]
    for node in nodes:
        size = len(node)
        found = larger[size] if step_size is None else of_size.get(size + step_size, 0)
        for pair in node:
            if not found:
                break
            found &= holding[pair]
        yield found


def members(bits: int) -> Iterator[int]:
    """The node indices in a bit set, ascending."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def all_edges(nodes: Sequence[Formula], step_size: int | None, max_edges: int) -> tuple[Edge, ...]:
    """Every (parent, child) pair of indices such that the child can follow the parent in one step, in order.

    Raises:
        StrictJsonError: there are more than ``max_edges``.
    """
    edges: list[Edge] = []
    for parent, bits in enumerate(followers(nodes, step_size)):
        if len(edges) + bits.bit_count() > max_edges:
            fail("edges", f"at most {max_edges} edges", Words(f"more, from {len(nodes)} nodes"))
        edges.extend((parent, child) for child in members(bits))
    return tuple(edges)


def read_edges(value: object, nodes: Sequence[Formula], step_size: int | None, max_edges: int) -> tuple[Edge, ...]:
    """Check a list of ``[parent, child]`` edges: each allowed, none twice, none left out.

    All of them must be there because a runtime that walks edges and one that looks states up must accept the
    same drafts. A cycle cannot pass: every edge leads to a larger formula.
    """
    rows = expect_list(value, "edges")
    if len(rows) > max_edges:
        fail("edges", f"at most {max_edges} edges", Words(f"{len(rows)} edges"))
    sets = [frozenset(node) for node in nodes]
    children: list[set[int]] = [set() for _ in nodes]
    edges: list[Edge] = []
    for number, row in enumerate(rows):
        where = f"edges[{number}]"
        ends = expect_list(row, where, "a pair [parent, child]")
        if len(ends) != 2:
            fail(where, "a pair [parent, child]", Words(f"{len(ends)} items"))
        parent = expect_integer(ends[0], f"{where}, parent", 0, len(nodes) - 1)
        child = expect_integer(ends[1], f"{where}, child", 0, len(nodes) - 1)
        arrow = f"{format_formula(nodes[parent])[:100]} -> {format_formula(nodes[child])[:100]}"
        if not sets[parent] < sets[child]:
            fail(where, "a child that is a proper superset of its parent (else: a cycle)", Words(arrow))
        added = len(sets[child]) - len(sets[parent])
        if step_size is not None and added != step_size:
            fail(
                where,
                f"{step_size} more pairs in the child, as the policy commits",
                Words(f"{added}, {arrow}"),
            )
        if child in children[parent]:
            fail(where, "every edge once", Words(f"[{parent}, {child}] twice"))
        children[parent].add(child)
        edges.append((parent, child))
    for parent, bits in enumerate(followers(nodes, step_size)):
        if bits.bit_count() != len(children[parent]):
            child = next(child for child in members(bits) if child not in children[parent])
            fail(
                "edges",
                "every edge that the policy allows",
                Words(f"none from nodes[{parent}] to nodes[{child}]"),
            )
    return tuple(edges)


def fewest_steps(nodes: Sequence[Formula], edges: Sequence[Edge]) -> tuple[int, ...]:
    """Per node, the fewest edges from the root. Linear in nodes and edges.

    Raises:
        StrictJsonError: a node has no path from the root, so no decode could ever accept it.
    """
    children: list[list[int]] = [[] for _ in nodes]
    for parent, child in edges:
        children[parent].append(child)
    depths = {0: 0}
    queue = [0]
    for node in queue:
        for child in children[node]:
            if child not in depths:
                depths[child] = depths[node] + 1
                queue.append(child)
    for index in range(len(nodes)):
        if index not in depths:
            found = Words(f"none to {format_formula(nodes[index])[:200]}")
            fail(f"nodes[{index}]", "a path from the root by the policy's steps", found)
    return tuple(depths[index] for index in range(len(nodes)))


def check_depths(value: object, depths: Sequence[int]) -> None:
    """Compare the depths that a file states with the true ones."""
    stated = expect_list(value, "depths")
    if len(stated) != len(depths):
        fail("depths", f"one depth per node, {len(depths)}", Words(str(len(stated))))
    for index, (found, true) in enumerate(zip(stated, depths, strict=True)):
        if type(found) is not int or found != true:
            fail(f"depths[{index}]", f"{true}, the fewest edges from the root", found)
