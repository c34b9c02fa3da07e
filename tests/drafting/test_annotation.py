"""What traces say about nodes and edges, on literal graphs whose answers can be counted by hand."""

from itertools import pairwise

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph, DraftGraphError
from drafting.trie import PrefixTrie
from drafting.values import DepthError, path_value
from tests.support.toy import naive_accepted, naive_blocks, random_nodes, toy_traces
from verify.graph.formulas import ROOT

A, B, C = ((1, 1),), ((2, 1),), ((3, 1),)
AB, ABC = ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))

#: 20 anchors: a comes first at 10 of them, b at 6; ab follows a 4 times and b 5 times; abc follows ab once.
CHAINS = [[A, AB, ABC]] + [[A, AB]] * 3 + [[A]] * 6 + [[B, AB]] * 5 + [[B]] + [[]] * 4


def annotated(*nodes: tuple, step_size: int | None = 1) -> DraftGraph:
    return DraftGraph.from_formulas(nodes, step_size).annotate(PrefixTrie.from_chains(CHAINS))


def test_a_diamond_counted_by_hand() -> None:
    graph = annotated(A, B, AB)
    assert graph.nodes[ROOT] == {"count": 20, "reach": 1.0, "marginal_value": 0.0, "acceptance": 1.0}
    assert graph.nodes[A] == {"count": 10, "reach": 10 / 20, "marginal_value": 14 / 20, "acceptance": 10 / 20}
    assert graph.nodes[B] == {"count": 6, "reach": 6 / 20, "marginal_value": 11 / 20, "acceptance": 6 / 20}
    # 16 anchors accept a or b, the parents of ab, and 9 of them ab.
    assert graph.nodes[AB] == {"count": 9, "reach": 9 / 20, "marginal_value": 9 / 20, "acceptance": 9 / 16}
    assert graph.edges[ROOT, A] == {"count": 10, "reach": 10 / 20, "marginal_value": 14 / 20, "acceptance": 10 / 20}
    assert graph.edges[A, AB] == {"count": 4, "reach": 4 / 20, "marginal_value": 4 / 20, "acceptance": 4 / 10}
    assert graph.edges[B, AB] == {"count": 5, "reach": 5 / 20, "marginal_value": 5 / 20, "acceptance": 5 / 6}
    assert graph.expected_accepted_length() == 25 / 20


def test_a_state_whose_other_parent_is_missing_is_counted_but_not_reached() -> None:
    graph = annotated(A, AB, ABC)
    assert graph.nodes[AB] == {"count": 9, "reach": 4 / 20, "marginal_value": 5 / 20, "acceptance": 4 / 10}
    assert graph.nodes[ABC] == {"count": 1, "reach": 1 / 20, "marginal_value": 1 / 20, "acceptance": 1 / 4}
    assert graph.edges[AB, ABC]["acceptance"] == 1 / 4


def test_a_state_that_never_comes_is_worth_nothing() -> None:
    graph = annotated(A, C, step_size=None)
    assert graph.nodes[C] == {"count": 0, "reach": 0.0, "marginal_value": 0.0, "acceptance": 0.0}
    assert graph.edges[ROOT, C] == {"count": 0, "reach": 0.0, "marginal_value": 0.0, "acceptance": 0.0}


def test_under_a_varying_step_size_the_root_offers_every_node() -> None:
    graph = annotated(A, AB, step_size=None)
    assert graph.nodes[AB]["acceptance"] == graph.nodes[AB]["reach"] == 4 / 20
    assert graph.edges[ROOT, AB] == {"count": 0, "reach": 0.0, "marginal_value": 0.0, "acceptance": 0.0}


@pytest.mark.parametrize("rule", ["static:1", "static:2", "threshold:0.4"])
@pytest.mark.parametrize("seed", range(3))
def test_attributes_are_those_of_their_definitions(rule: str, seed: int) -> None:
    traces = toy_traces(seed, prompts=8, rule=rule)
    blocks = naive_blocks(traces)
    chains = [chain for block in blocks for chain in block["chains"]]
    step_size = int(rule[-1]) if rule.startswith("static") else None
    chosen = random_nodes(blocks, np.random.default_rng(seed), 40) - {((99, 1),)}
    nodes: set = set()
    for state in sorted(chosen, key=len):  # only what a path leads to
        if any(set(p) < set(state) and (step_size is None or len(state) - len(p) == step_size) for p in {(), *nodes}):
            nodes.add(state)
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, None))
    graph = DraftGraph.from_formulas(nodes, step_size).annotate(trie)
    accepted = [[ROOT, *chain[: naive_accepted(nodes, chain)]] for chain in chains]
    whole = path_value(nodes, trie)
    assert graph.expected_accepted_length() == whole
    assert sum(graph.nodes[node]["reach"] for node in nodes) == pytest.approx(whole)
    for node in nodes:
        found = graph.nodes[node]
        reached = sum(node in path for path in accepted)
        offered = sum(any(parent in path for parent in graph.predecessors(node)) for path in accepted)
        assert found["count"] == sum(node in chain for chain in chains)
        assert found["reach"] == pytest.approx(reached / len(chains))
        assert found["marginal_value"] == pytest.approx(whole - path_value(nodes - {node}, trie))
        assert found["acceptance"] == pytest.approx(reached / offered if offered else 0.0)
    for a, b in graph.edges:
        steps = [path.index(b) for path in accepted if (a, b) in pairwise(path)]
        found = graph.edges[a, b]
        assert found["count"] == sum((a, b) in zip([ROOT, *chain], chain, strict=False) for chain in chains)
        assert found["reach"] == pytest.approx(len(steps) / len(chains))
        assert found["acceptance"] == pytest.approx(found["reach"] / graph.nodes[a]["reach"] if steps else 0.0)
        behind = [len(path) - path.index(b) for path in accepted if (a, b) in pairwise(path)]
        assert found["marginal_value"] == pytest.approx(sum(behind) / len(chains))


def test_a_subgraph_is_valued_on_the_same_traces() -> None:
    part = annotated(A, B, AB).subgraph([ROOT, A, AB])
    assert part.expected_accepted_length() == 14 / 20
    assert part.copy().annotate(part.graph["trie"]).nodes[AB]["reach"] == 4 / 20


def test_other_traces_are_named() -> None:
    graph = annotated(A, B, AB)
    assert graph.expected_accepted_length(AnchorTable.from_chains([[A, AB], [C]])) == 1.0
    with pytest.raises(DraftGraphError, match=r"knows no traces; call annotate\(trie\) first"):
        DraftGraph.from_formulas([A], 1).expected_accepted_length()


def test_no_anchor_and_chains_that_were_cut() -> None:
    empty = DraftGraph.from_formulas([A], 1).annotate(PrefixTrie.from_chains([]))
    assert empty.nodes[A] == {"count": 0, "reach": 0.0, "marginal_value": 0.0, "acceptance": 0.0}
    cut = PrefixTrie.from_anchors(AnchorTable.from_chains(CHAINS), max_depth=1)
    with pytest.raises(DepthError, match="cut at depth 1"):
        DraftGraph.from_formulas([A, AB], 1).annotate(cut)
