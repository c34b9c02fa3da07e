from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from figures.canvas.layered_layout import count_crossings, place_in_layers, spread


def order_of(places: list[float], layer_of: list[int]) -> list[list[int]]:
    layers: list[list[int]] = [[] for _ in range(max(layer_of) + 1)]
    for node in sorted(range(len(places)), key=lambda n: places[n]):
        layers[layer_of[node]].append(node)
    return layers


def test_spread_leaves_what_is_far_apart() -> None:
    assert spread([0.0, 5.0, 9.0], 1.0) == [0.0, 5.0, 9.0]


def test_spread_moves_two_equal_places_symmetrically() -> None:
    assert spread([2.0, 2.0], 1.0) == [1.5, 2.5]


def test_spread_moves_a_neighbour_only_as_far_as_it_must() -> None:
    assert spread([0.0, 0.0, 10.0], 2.0) == [-1.0, 1.0, 10.0]
    assert spread([], 1.0) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-8, 8), min_size=1, max_size=5))
def test_spread_is_the_least_squares_fit(wanted: list[int]) -> None:
    gap = 1.0
    places = spread([float(value) for value in wanted], gap)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(places))

    def cost(values: list[float]) -> float:
        return sum((a - b) ** 2 for a, b in zip(values, wanted, strict=True))

    # A convex problem: no feasible point nearby may be better, in any direction that moves a stretch of nodes.
    for first in range(len(places)):
        for last in range(first, len(places)):
            for move in (-0.01, 0.01):
                moved = [v + move * (first <= n <= last) for n, v in enumerate(places)]
                if all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(moved)):
                    assert cost(moved) >= cost(places) - 1e-9


def test_count_crossings_of_small_graphs() -> None:
    assert count_crossings([[0, 1], [2, 3]], [(0, 3), (1, 2)]) == 1
    assert count_crossings([[0, 1], [2, 3]], [(0, 2), (1, 3)]) == 0
    assert count_crossings([[0], [1, 2, 3]], [(0, 3), (0, 1), (0, 2)]) == 0
    complete = [(a, b) for a in (0, 1, 2) for b in (3, 4, 5)]
    assert count_crossings([[0, 1, 2], [3, 4, 5]], complete) == 9


def test_a_tangled_ladder_is_untangled() -> None:
    layer_of = [0, 1, 1, 1, 1, 2, 2, 2, 2]
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 8), (2, 7), (3, 6), (4, 5)]
    assert count_crossings([[0], [1, 2, 3, 4], [5, 6, 7, 8]], edges) == 6
    places = place_in_layers(layer_of, edges)
    assert count_crossings(order_of(places, layer_of), edges) == 0


def test_random_graphs_get_fewer_crossings_and_keep_the_distance() -> None:
    generator = random.Random(5)
    saved = 0
    for _ in range(20):
        layer_of = [0] + [1 + n % 4 for n in range(24)]
        edges = [
            (a, b) for a in range(25) for b in range(25) if layer_of[b] == layer_of[a] + 1 and generator.random() < 0.25
        ]
        before = count_crossings([[n for n in range(25) if layer_of[n] == k] for k in range(5)], edges)
        places = place_in_layers(layer_of, edges, gap=2.0)
        layers = order_of(places, layer_of)
        after = count_crossings(layers, edges)
        assert after <= before
        saved += before - after
        for layer in layers:
            for a, b in itertools.pairwise(layer):
                assert places[b] - places[a] >= 2.0 - 1e-9
        assert max(places) == pytest.approx(-min(places))
        assert places == place_in_layers(layer_of, edges, gap=2.0)
    assert saved > 100


def test_an_edge_over_several_layers_goes_round_the_nodes_between() -> None:
    # 0 -> 1 -> 2 and 0 -> 2: the long edge needs a lane of its own beside node 1.
    places = place_in_layers([0, 1, 2], [(0, 1), (1, 2), (0, 2)])
    assert places[1] != pytest.approx(places[0])


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="an edge must lead to a later layer, got 1 -> 1"):
        place_in_layers([0, 1, 1], [(1, 2)])
    with pytest.raises(ValueError, match="every layer must hold a node, layer 1 is empty"):
        place_in_layers([0, 2], [(0, 1)])
    assert place_in_layers([], []) == []
