"""Which nodes of a large graph are kept: by hand, and against the rule in plain Python."""

import math
from typing import get_args

import numpy as np
import pytest

from tests.support.models import random_formulas
from verify.graph.formulas import FormulaError
from verify.graph.pruning import GraphPruner, Score

A, B, C = ((1, 1),), ((2, 1),), ((3, 1),)
AB, AC, ABC = ((1, 1), (2, 1)), ((1, 1), (3, 1)), ((1, 1), (2, 1), (3, 1))
# Position ranks 1 to 4; two vocabulary ranks each.
ANCHOR = np.array([[0.9, 0.05], [0.8, 0.1], [0.3, 0.2], [0.1, 0.1]])


def kept(pruner, probability=ANCHOR):
    found = pruner.kept(probability, np.zeros(1, dtype=int), np.array([len(probability)]))
    return [node for node, there in zip(pruner.formulas, found[0], strict=True) if there]


def test_the_geometric_mean_of_a_drafts_tokens_decides():
    """a 0.9, ab sqrt(0.72) = 0.85, b 0.8, ac sqrt(0.27) = 0.52, c 0.3."""
    nodes = [C, B, A, AC, AB]
    assert kept(GraphPruner(nodes, 1, 1)) == [A]
    assert kept(GraphPruner(nodes, 2, 1)) == [A, AB]
    assert kept(GraphPruner(nodes, 3, 1)) == [B, A, AB]
    assert kept(GraphPruner(nodes, 4, 1)) == [B, A, AC, AB]
    assert kept(GraphPruner(nodes, 9, 1)) == nodes
    assert kept(GraphPruner(nodes, 0, 1)) == []


def test_a_node_waits_for_a_kept_parent():
    """ab would be the second best, but it follows b (0.3), which comes after c (0.5)."""
    probability = np.array([[0.9], [0.3], [0.5], [0.1]])
    nodes = [B, C, AB]
    assert kept(GraphPruner(nodes, 1, 1), probability) == [C]
    assert kept(GraphPruner(nodes, 2, 1), probability) == [B, C]
    # Without a step size the root is a parent of every node, and ab (0.52) may come alone.
    assert kept(GraphPruner(nodes, 1, None), probability) == [AB]


def test_any_kept_parent_will_do():
    probability = np.array([[0.2], [0.9], [0.1], [0.1]])
    assert kept(GraphPruner([A, B, AB], 2, 1), probability) == [B, AB]


def test_of_equal_scores_the_earlier_node_is_kept():
    equal = np.full((4, 1), 0.5)
    assert kept(GraphPruner([B, A, C], 2, 1), equal) == [B, A]
    assert kept(GraphPruner([C, B, A], 2, 1), equal) == [C, B]
    # 1 - 1e-9 and 1 are one number in float32, as in a trace.
    assert kept(GraphPruner([B, A], 1, 1), np.array([[1.0], [1 - 1e-9], [0.5]])) == [B]


@pytest.mark.parametrize("score", ["mean_child", "best_child", "pooled"])
def test_with_children_a_node_is_worth_what_follows_it(score):
    """A rare token scores 0.15. d scores 0.1, but cd scores sqrt(0.95 * 0.1) = 0.31, so d rises to 0.18."""
    probability = np.array([[0.5, 0.15], [0.8, 0.1], [0.95, 0.01], [0.1, 0.01]])
    rare, d, cd = ((1, 2),), ((4, 1),), ((3, 1), (4, 1))
    assert kept(GraphPruner([rare, d, cd], 1, 1, "own"), probability) == [rare]
    assert kept(GraphPruner([rare, d, cd], 1, 1, score), probability) == [d]
    assert kept(GraphPruner([rare, d], 1, 1, score), probability) == [rare]


def test_how_several_children_count():
    """Another token has no child; a 0.5 has a good one (0.63) and two of 0.22.

    Best child: sqrt(0.5 * 0.63) = 0.56. Mean child: sqrt(0.5 * 0.32) = 0.40. Pooled: the fourth root of
    0.5 * 0.63 * 0.22 * 0.22, which is 0.35.
    """
    probability = np.array([[0.5, 0.0], [0.8, 0.1], [0.1, 0.1], [0.1, 0.1]])
    children = [AB, AC, ((1, 1), (4, 1))]
    for other, best in ((0.57, []), (0.5, ["best_child"]), (0.37, ["best_child", "mean_child"])):
        probability[0, 1] = other
        for score in ("best_child", "mean_child", "pooled"):
            found = kept(GraphPruner([((1, 2),), A, *children], 1, 1, score), probability)
            assert found == ([A] if score in best else [((1, 2),)]), (other, score)


def test_what_cannot_be_filled_is_neither_kept_nor_counted():
    """Two positions are masked: no rank 3, and ab would complete the block. Rank (1, 3) was not recorded."""
    nodes = [A, B, AB, C, ((1, 3),)]
    for score in get_args(Score):
        assert kept(GraphPruner(nodes, 5, 1, score), ANCHOR[:2]) == [A, B]
        assert kept(GraphPruner(nodes, 5, 1, score), ANCHOR[:1]) == []


def test_a_probability_of_nothing_is_a_low_score_not_an_error():
    probability = np.array([[0.5], [0.0], [1e-60]])
    assert kept(GraphPruner([B, A, C, AB], 2, 1), probability) == [A, AB]
    assert kept(GraphPruner([B, A, C], 3, 1), probability) == [B, A, C]


def naive(nodes, keep, step_size, score, probability):
    """The rule in plain Python."""
    depth = probability.shape[1]
    masked = len(probability)
    usable = [node for node in nodes if len(node) < masked and all(i <= masked and j <= depth for i, j in node)]

    def follows(child, parent):
        more = len(child) - len(parent)
        return set(parent) < set(child) and (step_size is None or more == step_size)

    def value(node):
        own = sum(math.log(np.float32(probability[i - 1, j - 1])) for i, j in node) / len(node)
        below = [] if score == "own" else [value(child) for child in usable if follows(child, node)]
        if not below:
            return own
        if score == "pooled":
            return (own + sum(below)) / (1 + len(below))
        return (own + (max(below) if score == "best_child" else sum(below) / len(below))) / 2

    chosen = [()]
    while len(chosen) <= keep:
        open_nodes = [n for n in usable if n not in chosen and any(follows(n, parent) for parent in chosen)]
        if not open_nodes:
            break
        chosen.append(max(open_nodes, key=lambda node: (value(node), -nodes.index(node))))
    return [node for node in nodes if node in chosen]


@pytest.mark.parametrize("score", get_args(Score))
@pytest.mark.parametrize("step_size", [1, 2, None])
def test_random_graphs_against_the_rule_in_plain_python(step_size, score):
    rng = np.random.default_rng(7)
    for seed in range(12):
        nodes = random_formulas(seed, 14, step_size, ranks=6, top_j=3)
        rng.shuffle(nodes)
        nodes = [tuple(map(tuple, node)) for node in nodes]
        anchors = [np.sort(rng.random((int(rng.integers(1, 8)), 3)))[:, ::-1] for _ in range(4)]
        start = np.cumsum([0, *map(len, anchors)])
        pruner = GraphPruner(nodes, 5, step_size, score)
        together = pruner.kept(np.concatenate(anchors), start[:-1], np.diff(start))
        for row, probability in zip(together, anchors, strict=True):
            found = [node for node, there in zip(pruner.formulas, row, strict=True) if there]
            assert found == kept(pruner, probability)
            assert found == naive(nodes, 5, step_size, score, probability)


@pytest.mark.parametrize(
    ("nodes", "keep", "step_size", "score", "message"),
    [
        ([A], -1, 1, "own", "keep is a number of draft nodes, at least 0, got -1"),
        ([A], 1, 0, "own", "step_size must be at least 1 or None, got 0"),
        ([A], 1, 1, "best", "score must be one of own, mean_child, best_child, pooled, got 'best'"),
        ([A, A], 1, 1, "own", "must be distinct"),
        ([A, ()], 1, 1, "own", "the root"),
        ([A, B, ABC], 1, 1, "own", r"node \{1:1, 2:1, 3:1\} has no path from the root by steps of 1 pairs"),
        ([A], 1, 2, "own", r"node \{1:1\} has no path from the root by steps of 2 pairs"),
    ],
)
def test_what_is_no_large_graph_is_refused(nodes, keep, step_size, score, message):
    with pytest.raises(ValueError, match=message):
        GraphPruner(nodes, keep, step_size, score)


def test_a_node_that_is_no_formula_is_refused():
    with pytest.raises(FormulaError, match="at least 1"):
        GraphPruner([[(0, 1)]], 1, 1)


def test_no_nodes_keep_nothing():
    assert kept(GraphPruner([], 3, 1)) == []
    assert GraphPruner([], 3, 1).max_vocabulary_rank == 1
