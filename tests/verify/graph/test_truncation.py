"""Cutting a graph: an order whose every beginning is a graph, and what beginnings are worth."""

import numpy as np

from tests.support.models import random_formulas
from verify.graph.file import GraphFile, Validity
from verify.graph.truncation import truncation

STATIC = Validity("toy", None, "static:1", 8, "dual", 0.0, 4)
BOLD = Validity("toy", None, "threshold:0.9", 8, "dual", 0.0, 4)
A, B, AB, ABC = ((1, 1),), ((2, 1),), ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))


def cut(nodes, reach=None, counts=None, validity=STATIC, split="search"):
    given = {"node_reach": reach, "node_counts": counts}
    values = {split: {name: stated for name, stated in given.items() if stated is not None}}
    graph = GraphFile.from_nodes(nodes, validity, values=values)
    order, value, found = truncation(graph)
    assert (order.dtype, value.dtype) == (np.int32, np.float32)
    return [graph.nodes[node] for node in order[1:]], value.tolist(), found


def test_the_largest_share_comes_first_once_its_parents_are_there():
    """ab is accepted most often, but through a and through b, so without b its share would be a guess."""
    nodes, value, split = cut([A, B, AB, ABC], [1.0, 0.5, 0.25, 0.75, 0.5])
    assert nodes == [A, B, AB, ABC] and value == [0.0, 0.5, 0.75, 1.5, 2.0] and split == "search"
    assert cut([B, A, AB], [1.0, 0.25, 0.5, 0.5])[0] == [A, B, AB]


def test_a_parent_that_was_never_accepted_is_not_waited_for():
    nodes, value, _ = cut([A, B, AB], [1.0, 0.5, 0.0, 0.25])
    assert nodes == [A, AB, B] and value == [0.0, 0.5, 0.75, 0.75]


def test_a_child_of_such_parents_alone_waits_for_one():
    assert cut([AB, B, A], [1.0, 0.0, 0.0, 0.0])[0] == [B, AB, A]


def test_equal_shares_keep_the_order_of_the_file():
    assert cut([B, A], [1.0, 0.5, 0.5])[0] == [B, A]


def test_without_shares_counts_decide_and_nothing_is_said_of_worth():
    nodes, value, split = cut([A, B, AB], counts=[9, 1, 5, 2])
    assert nodes == [B, A, AB] and split is None and np.isnan(value).all()
    assert cut([AB, B, A])[0] == [B, AB, A]


def test_the_search_split_is_asked_before_the_others():
    assert cut([A, B], [1.0, 0.5, 0.5], split="test")[2] == "test"
    graph = GraphFile.from_nodes(
        [A, B], STATIC, values={"test": {"node_reach": [1, 0, 1]}, "search": {"node_reach": [1, 1, 0]}}
    )
    assert truncation(graph)[0].tolist() == [0, 1, 2] and truncation(graph)[2] == "search"


def test_the_root_alone():
    assert cut([], [1.0]) == ([], [0.0], "search")


def test_every_beginning_of_random_graphs_is_a_graph():
    for seed in range(30):
        bold = seed % 2 == 1
        nodes = random_formulas(seed, 14, step_size=None if bold else 1, ranks=6, top_j=3)
        rng = np.random.default_rng(seed)
        reach = [1.0, *rng.choice([0.0, 0.25, 0.5], size=len(nodes)).tolist()] if seed % 3 else None
        order, _, _ = cut(nodes, reach, validity=BOLD if bold else STATIC)
        assert sorted(order) == sorted(nodes)
        for size in range(len(order)):
            GraphFile.from_nodes(order[:size], BOLD if bold else STATIC)  # refuses a node without a path
