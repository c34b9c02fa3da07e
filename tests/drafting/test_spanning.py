"""A spanning tree of a draft graph: what it accepts, counted on traces by a naive walk, and bounded without them."""

from itertools import product

import numpy as np
import pytest

from calibrate.traces.table import Traces
from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.replay import replay
from drafting.searching import search
from drafting.spanning import (
    AcceptanceLost,
    SpanningTreeError,
    acceptance_lost,
    replay_tree,
    spanning_tree,
    tree_accepted,
    tree_paths,
)
from drafting.trie import PrefixTrie
from tests.support.toy import naive_blocks, toy_traces
from verify.graph.file import GraphFile, Validity
from verify.graph.formulas import ROOT, Formula

A, B = ((1, 1),), ((2, 1),)
AB, ABC = ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))
VALIDITY = Validity("toy", None, "static:1", block_length=8, cache="dual", temperature=0.0, top_j=4)


def diamond() -> DraftGraph:
    """Ten anchors: six begin with a, two of them go on to ab; four begin with b, three of them go on to ab and abc."""
    chains = [[A, AB], [A], [B, AB, ABC], [B]]
    trie = PrefixTrie.from_chains(chains, weights=[2, 4, 3, 1])
    return DraftGraph.from_formulas([A, B, AB, ABC], step_size=1).annotate(trie)


def drafts_of(seed: int, budget: int = 9) -> tuple[Traces, PrefixTrie, DraftGraph]:
    traces = toy_traces(seed, prompts=10, noise=0.4)
    traces = Traces(**{**vars(traces), "metadata": {**traces.metadata, **vars(VALIDITY), "prompts": 10}})
    graph = DraftGraph.from_formulas(_nodes(traces, budget), step_size=1)
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, max_depth=None))
    return traces, trie, graph.annotate(trie)


def _nodes(traces: Traces, budget: int) -> list[Formula]:
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, max_depth=None))
    counts: dict[Formula, int] = {}
    for chain in trie.anchors.chains():
        for state in chain:
            counts[state] = counts.get(state, 0) + 1
    chosen: list[Formula] = []
    for state in sorted(counts, key=lambda node: (-counts[node], len(node), node)):
        known = len(state) == 1 or any(set(other) < set(state) and len(other) == len(state) - 1 for other in chosen)
        if known and len(chosen) < budget:
            chosen.append(state)
    return chosen


def naive_tree_accepted(tree: dict[Formula, Formula], chain: list[Formula]) -> int:
    accepted, before = 0, ROOT
    for state in chain:
        if tree.get(state) != before:
            break
        accepted, before = accepted + 1, state
    return accepted


def test_a_node_keeps_the_parent_over_which_more_is_accepted() -> None:
    graph = diamond()
    tree = spanning_tree(graph, graph.graph["trie"])
    assert tree == {A: ROOT, B: ROOT, AB: B, ABC: AB}


def test_without_traces_the_parent_of_the_highest_reach_is_kept() -> None:
    file = diamond().to_graph_file(VALIDITY)
    assert spanning_tree(DraftGraph.from_graph_file(file)) == {A: ROOT, B: ROOT, AB: A, ABC: AB}


@pytest.mark.parametrize("seed", range(6))
def test_what_a_tree_accepts_is_what_a_naive_walk_accepts(seed: int) -> None:
    traces, trie, graph = drafts_of(seed)
    tree = spanning_tree(graph, trie)
    assert set(tree) == set(graph) - {ROOT} and all((parent, node) in graph.edges for node, parent in tree.items())
    accepted = tree_accepted(tree, trie).tolist()
    assert accepted == [naive_tree_accepted(tree, chain) for chain in trie.anchors.chains()]
    forwards = 0
    for block in naive_blocks(traces):
        forwards, at = forwards + 1, 0
        while at < len(block["chains"]):
            forwards, at = forwards + 1, at + 1 + naive_tree_accepted(tree, block["chains"][at])
    found = replay_tree(tree, trie)
    assert found.forwards == forwards >= replay(graph, trie.anchors).forwards


def test_no_tree_of_a_small_graph_is_better() -> None:
    """Against all trees. Greedy is not the best one always; here it is."""
    for seed in range(6):
        _, trie, graph = drafts_of(seed, budget=7)
        nodes = graph.draft_nodes()
        every = product(*(list(graph.predecessors(node)) for node in nodes))
        best = max(int(tree_accepted(dict(zip(nodes, parents, strict=True)), trie).sum()) for parents in every)
        assert int(tree_accepted(spanning_tree(graph, trie), trie).sum()) == best


def test_the_bounds_without_traces_hold_the_value_on_the_traces() -> None:
    wide = 0
    for seed in range(8):
        _, trie, graph = drafts_of(seed)
        file = graph.to_graph_file(VALIDITY)
        tree = spanning_tree(DraftGraph.from_graph_file(file))
        bounds, counted = acceptance_lost(file, tree), acceptance_lost(file, tree, trie)
        assert bounds.counted_on == "values.search" and counted.counted_on == "traces"
        assert bounds.accepted_drafts_graph == pytest.approx(counted.accepted_drafts_graph)
        low, high = bounds.accepted_drafts_tree or (0, 0)
        exact = (counted.accepted_drafts_tree or (0, 0))[0]
        assert low - 1e-9 <= exact <= high + 1e-9
        wide += high - low > 1e-9
    assert wide  # else the test would not see bounds that hold nothing


def test_a_tree_already_loses_nothing() -> None:
    trie = PrefixTrie.from_chains([[A, AB, ABC], [A]], weights=[3, 1])
    file = DraftGraph.from_formulas([A, AB, ABC], step_size=1).annotate(trie).to_graph_file(VALIDITY)
    lost = acceptance_lost(file, spanning_tree(DraftGraph.from_graph_file(file)))
    assert lost.accepted_drafts_tree == pytest.approx((lost.accepted_drafts_graph,) * 2)
    assert "loses between 0.0 and 0.0 %" in lost.sentence()


def test_what_is_lost_is_said() -> None:
    graph = diamond()
    trie = graph.graph["trie"]
    tree = spanning_tree(graph, trie)
    # The graph accepts 10 + 5 + 3 drafts at ten anchors, the tree not the two at which ab follows a.
    assert tree_accepted(tree, trie) @ np.array([2, 4, 3, 1]) == 16
    file = GraphFile.from_nodes(graph.draft_nodes(), VALIDITY)
    assert acceptance_lost(file, tree) == AcceptanceLost()
    assert "not known: the graph file states no node_reach; give --traces" in AcceptanceLost().sentence()
    counted = AcceptanceLost("traces", 1.8, (1.6, 1.6), 40, 20, 22)
    assert "accepts 1.600 drafts per anchor, the graph 1.800: 11.1 % are lost" in counted.sentence()
    assert "22 forward passes, 20 with the graph, 40 without drafts" in counted.sentence()


def test_paths_number_candidates_position_rank_by_position_rank() -> None:
    tree = {A: ROOT, B: ROOT, AB: B, ((1, 1), (2, 1), (3, 4)): AB, ((2, 3),): ROOT}
    assert tree_paths(tree, 4) == [[0], [4], [6], [4, 0], [4, 0, 11]]


def test_a_step_of_several_tokens_is_refused() -> None:
    graph = DraftGraph.from_formulas([A, AB])
    with pytest.raises(SpanningTreeError, match=r"edge \{\} -> \{1:1, 2:1\} adds 2 tokens, but a step of a path"):
        spanning_tree(graph)
    with pytest.raises(SpanningTreeError, match="no drafts"):
        spanning_tree(DraftGraph())


def test_a_searched_graph_spans_too() -> None:
    traces, trie, _ = drafts_of(3)
    graph = search(traces, method="greedy", budget=6)
    tree = spanning_tree(graph, trie)
    lost = acceptance_lost(graph.to_graph_file(), tree, trie)
    assert lost.forwards_plain is not None and lost.forwards_graph is not None and lost.forwards_tree is not None
    assert lost.forwards_graph <= lost.forwards_tree < lost.forwards_plain
