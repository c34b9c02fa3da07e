"""Where to put the nodes of a layered graph: few crossings, short edges, never overlapping.

The scheme of Sugiyama, Tagawa and Toda (1981): edges over several layers get invisible nodes on the way, the order
within layers is improved by sweeps of the barycentre rule, and places are least-squares fits to the neighbours under
a minimum distance. Draft graphs have tens of nodes, so plain Python is quick enough (D = 64 in under a second).
"""

from __future__ import annotations

from collections.abc import Sequence

SWEEPS = 24

Edge = tuple[int, int]


def spread(targets: Sequence[float], gap: float) -> list[float]:
    """The places nearest to ``targets`` (least squares) that keep its order and are at least ``gap`` apart.

    Args:
        targets: in ascending or any other order; place n stays before place n + 1.
        gap: the minimum distance.

    Pool adjacent violators on ``targets[n] - n * gap``; linear time.
    """
    blocks: list[tuple[float, int]] = []  # (sum, size)
    for index, value in enumerate(targets):
        total, size = value - index * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / size:
            above = blocks.pop()
            total, size = total + above[0], size + above[1]
        blocks.append((total, size))
    places: list[float] = []
    for total, size in blocks:
        places += [total / size + (len(places) + offset) * gap for offset in range(size)]
    return places


def count_crossings(layers: Sequence[Sequence[int]], edges: Sequence[Edge]) -> int:
    """Pairs of edges between the same two neighbouring layers that cross."""
    level, place = _index(layers)
    found = 0
    for upper in range(len(layers) - 1):
        ends = sorted((place[a], place[b]) for a, b in edges if level[a] == upper)
        for number, (_, first) in enumerate(ends):
            found += sum(second < first for _, second in ends[number + 1 :])
        # Edges from one node never cross, and sorting has put them in ascending order of their ends.
    return found


def place_in_layers(layer_of: Sequence[int], edges: Sequence[Edge], gap: float = 1.0) -> list[float]:
    """A place across the layers for every node.

    Args:
        layer_of: per node its layer, from 0; every layer up to the last holds a node.
        edges: (from, to) with ``layer_of[from] < layer_of[to]``.
        gap: the minimum distance of two nodes in a layer.

    Returns:
        per node its place; the middle of all places is 0. The same input gives the same places.

    Raises:
        ValueError: an edge that does not lead to a later layer, or an empty layer.
    """
    for a, b in edges:
        if layer_of[a] >= layer_of[b]:
            raise ValueError(f"an edge must lead to a later layer, got {layer_of[a]} -> {layer_of[b]}")
    layers: list[list[int]] = [[] for _ in range(max(layer_of, default=-1) + 1)]
    for node, level in enumerate(layer_of):
        layers[level].append(node)
    if not all(layers):
        raise ValueError(f"every layer must hold a node, layer {layers.index([])} is empty")
    short = _split_long_edges(layers, layer_of, edges)
    real = len(layer_of)
    layers = _fewest_crossings(layers, short)
    places = _fit_places(layers, short, real, gap)
    own = places[:real]
    middle = (min(own) + max(own)) / 2 if own else 0.0
    return [value - middle for value in own]


def _index(layers: Sequence[Sequence[int]]) -> tuple[dict[int, int], dict[int, int]]:
    level = {node: number for number, layer in enumerate(layers) for node in layer}
    place = {node: number for layer in layers for number, node in enumerate(layer)}
    return level, place


def _split_long_edges(layers: list[list[int]], layer_of: Sequence[int], edges: Sequence[Edge]) -> list[Edge]:
    """Replace every edge over several layers by a path of new nodes, which are added to ``layers``."""
    short: list[Edge] = []
    fresh = len(layer_of)
    for a, b in edges:
        before = a
        for level in range(layer_of[a] + 1, layer_of[b]):
            layers[level].append(fresh)
            short.append((before, fresh))
            before, fresh = fresh, fresh + 1
        short.append((before, b))
    return short


def _neighbours(edges: Sequence[Edge]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    parents: dict[int, list[int]] = {}
    children: dict[int, list[int]] = {}
    for a, b in edges:
        parents.setdefault(b, []).append(a)
        children.setdefault(a, []).append(b)
    return parents, children


def _fewest_crossings(layers: list[list[int]], edges: Sequence[Edge]) -> list[list[int]]:
    """Sweep down and up, sorting each layer by the mean place of its neighbours; keep the best order met."""
    parents, children = _neighbours(edges)
    best, fewest = [list(layer) for layer in layers], count_crossings(layers, edges)
    current = [list(layer) for layer in layers]
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        others = parents if down else children
        order = range(1, len(current)) if down else range(len(current) - 2, -1, -1)
        for level in order:
            beside = current[level - 1 if down else level + 1]
            place = {node: number for number, node in enumerate(beside)}
            here = {node: number for number, node in enumerate(current[level])}
            centre = {
                node: sum(place[other] for other in others[node]) / len(others[node]) if node in others else here[node]
                for node in current[level]
            }
            # Every second pair of sweeps reverses ties, which gets out of orders that the rule alone keeps.
            sign = -1 if sweep % 4 >= 2 else 1
            current[level].sort(key=lambda node: (centre[node], sign * here[node]))
        crossings = count_crossings(current, edges)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in current], crossings
    return _swap_neighbours(best, edges)


def _swap_neighbours(layers: list[list[int]], edges: Sequence[Edge]) -> list[list[int]]:
    """Exchange adjacent nodes as long as one exchange saves a crossing."""
    parents, children = _neighbours(edges)

    def cost(first: int, second: int, place: dict[int, int]) -> int:
        """Crossings between the edges of two nodes when ``first`` stands before ``second``."""
        return sum(
            place[b] < place[a]
            for others in (parents, children)
            for a in others.get(first, ())
            for b in others.get(second, ())
        )

    improved = True
    while improved:
        improved = False
        _, place = _index(layers)
        for layer in layers:
            for number in range(len(layer) - 1):
                first, second = layer[number], layer[number + 1]
                if cost(second, first, place) < cost(first, second, place):
                    layer[number], layer[number + 1] = second, first
                    place[first], place[second] = number + 1, number
                    improved = True
    return layers


def _fit_places(layers: list[list[int]], edges: Sequence[Edge], real: int, gap: float) -> list[float]:
    """Pull every node towards the mean of its neighbours, keep the order and the distance; repeat."""
    parents, children = _neighbours(edges)
    places = [0.0] * sum(map(len, layers))
    for layer in layers:
        for number, node in enumerate(layer):
            places[node] = (number - (len(layer) - 1) / 2) * gap
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            targets = []
            for node in layer:
                near = (parents if down else children).get(node) or (children if down else parents).get(node, [])
                targets.append(sum(places[other] for other in near) / len(near) if near else places[node])
            for node, place in zip(layer, spread(targets, gap), strict=True):
                places[node] = place
    return places
