"""DraftGraph: edges by proper subset and step size, depths, refusals, and the way to a graph file and back."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafting.graph import DraftGraph, DraftGraphError
from drafting.trie import PrefixTrie
from drafting.values import path_value
from verify.graph.file import GraphFileError, Validity, load_graph, save_graph
from verify.graph.formulas import ROOT, Formula, formula

A, B, C = ((1, 1),), ((2, 1),), ((3, 1),)
AB, AC, ABC = ((1, 1), (2, 1)), ((1, 1), (3, 1)), ((1, 1), (2, 1), (3, 1))
ABCD = ((1, 1), (2, 1), (3, 1), (4, 1))

FORMULAS = st.sets(
    st.dictionaries(st.integers(1, 4), st.integers(1, 2), min_size=1, max_size=4).map(lambda d: formula(d.items())),
    max_size=12,
)


def validity(**changes: object) -> Validity:
    facts = dict(
        model="toy",
        model_revision=None,
        policy="static:1",
        block_length=8,
        cache="dual",
        temperature=0.0,
        top_j=4,
    )
    return Validity(**{**facts, **changes})


def test_a_diamond() -> None:
    graph = DraftGraph.from_formulas([AB, A, B, A, ABC], step_size=1)
    assert set(graph.edges) == {(ROOT, A), (ROOT, B), (A, AB), (B, AB), (AB, ABC)}
    assert graph.draft_nodes() == (A, B, AB, ABC)
    assert graph.budget == 4
    assert graph.depths() == {ROOT: 0, A: 1, B: 1, AB: 2, ABC: 3} == graph.layers()
    assert set(graph.predecessors(AB)) == {A, B}


def test_any_step_size_draws_every_superset_edge() -> None:
    graph = DraftGraph.from_formulas([A, AB, ABC])
    assert set(graph.edges) == {(ROOT, A), (ROOT, AB), (ROOT, ABC), (A, AB), (A, ABC), (AB, ABC)}
    assert graph.depths() == {ROOT: 0, A: 1, AB: 1, ABC: 1}
    assert graph.layers() == {ROOT: 0, A: 1, AB: 2, ABC: 3}


def test_one_position_with_two_tokens_is_no_subset() -> None:
    graph = DraftGraph.from_formulas([A, ((1, 2),), ((1, 2), (2, 1))], step_size=1)
    assert set(graph.predecessors(((1, 2), (2, 1)))) == {((1, 2),)}


@settings(deadline=None)
@given(FORMULAS, st.sampled_from([None, 1, 2]))
def test_edges_are_those_of_the_definition_or_the_graph_is_refused(formulas: set[Formula], step: int | None) -> None:
    nodes = [*formulas, ROOT]
    edges = {(a, b) for a in nodes for b in nodes if set(a) < set(b) and (step is None or len(b) - len(a) == step)}
    reachable = {ROOT}
    for node in sorted(nodes, key=len):
        if any(a in reachable for a, b in edges if b == node):
            reachable.add(node)
    if reachable != set(nodes):
        with pytest.raises(DraftGraphError, match="no path from the root"):
            DraftGraph.from_formulas(formulas, step)
        return
    graph = DraftGraph.from_formulas(formulas, step)
    assert set(graph.edges) == edges
    assert nx.is_directed_acyclic_graph(graph)
    order = {node: n for n, node in enumerate((ROOT, *graph.draft_nodes()))}
    assert all(order[a] < order[b] for a, b in graph.edges)


def test_no_formulas_is_the_root_alone() -> None:
    graph = DraftGraph.from_formulas([])
    assert list(graph) == [ROOT]
    assert (graph.budget, graph.draft_nodes(), graph.depths()) == (0, (), {ROOT: 0})


@pytest.mark.parametrize(
    ("formulas", "step", "message"),
    [
        ([AB], 1, r"1 of 1 nodes have no path .* steps of 1 pairs, first \{1:1, 2:1\}"),
        ([A, ABCD], 2, r"2 of 2 nodes"),
        ([A], 0, "step_size must be at least 1"),
        ([((1, 1), (1, 2))], None, "position rank 1 comes twice"),
        ([((0, 1),)], None, "at least 1, got 0"),
    ],
)
def test_what_is_no_draft_graph_is_refused(formulas: list, step: int | None, message: str) -> None:
    with pytest.raises(DraftGraphError, match=message):
        DraftGraph.from_formulas(formulas, step)


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        ((B, A), "must lead to a proper superset"),
        ((ROOT, AB), "adds 2 pairs, one denoising step adds 1"),
        ((A, "word"), "is not a draft formula"),
        ((A, ((2, 1), (1, 1))), "canonical form"),
    ],
)
def test_validate_finds_what_was_broken_by_hand(edge: tuple, message: str) -> None:
    graph = DraftGraph.from_formulas([A, B, AB], step_size=1)
    graph.validate()
    graph.add_edge(*edge)
    with pytest.raises(DraftGraphError, match=message):
        graph.validate()


def test_validate_misses_the_root() -> None:
    graph = DraftGraph.from_formulas([A], step_size=1)
    graph.remove_node(ROOT)
    with pytest.raises(DraftGraphError, match="needs the root"):
        graph.validate()


def test_it_is_a_networkx_graph() -> None:
    graph = DraftGraph.from_formulas([A, B, AB, ABC], step_size=1)
    copy = graph.copy()
    assert isinstance(copy, DraftGraph)
    assert copy.step_size == 1
    assert nx.utils.graphs_equal(copy, graph)
    part = graph.subgraph([ROOT, A, AB])
    assert part.budget == 2
    part.validate()
    assert nx.ancestors(graph, ABC) == {ROOT, A, B, AB}
    trie = PrefixTrie.from_chains([[A, AB], [B]])
    assert path_value(graph, trie) == path_value(graph.draft_nodes(), trie) == 1.5


@pytest.mark.parametrize(("policy", "step"), [("static:1", 1), ("threshold:0.9", None)])
def test_to_a_graph_file_and_back(policy: str, step: int | None, tmp_path) -> None:
    graph = DraftGraph.from_formulas([A, B, AB, ABC], step)
    file = graph.to_graph_file(validity(policy=policy), provenance={"search": "test"})
    assert file.nodes == (ROOT, *graph.draft_nodes())
    assert {(file.nodes[a], file.nodes[b]) for a, b in file.edges} == set(graph.edges)
    assert dict(zip(file.nodes, file.depths, strict=True)) == graph.depths()
    save_graph(file, tmp_path / "graph.json")
    back = DraftGraph.from_graph_file(load_graph(tmp_path / "graph.json"))
    assert nx.utils.graphs_equal(back, graph)
    assert back.step_size == step


def test_a_file_for_another_step_size_is_refused() -> None:
    graph = DraftGraph.from_formulas([A, AB], step_size=None)
    with pytest.raises(DraftGraphError, match="policy 'static:1' has step size 1, the graph was built with None"):
        graph.to_graph_file(validity())


def test_a_rank_beyond_the_recorded_ones_is_refused() -> None:
    graph = DraftGraph.from_formulas([((1, 9),)], step_size=1)
    with pytest.raises(GraphFileError, match="vocabulary rank"):
        graph.to_graph_file(validity())


def test_numpy_integers_are_named_in_the_error() -> None:
    with pytest.raises(DraftGraphError, match="must be an integer"):
        DraftGraph.from_formulas([((np.int64(1), 1),)])
