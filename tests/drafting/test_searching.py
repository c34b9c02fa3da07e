"""From traces to a graph in one call: what it carries, what it saves, what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from calibrate.traces.table import Traces
from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph, DraftGraphError
from drafting.replay import replay
from drafting.searches.methods import MethodError
from drafting.searching import NothingToDraftError, search
from drafting.trie import PrefixTrie
from drafting.values import path_value
from tests.support.toy import toy_traces
from verify.graph.file import load_graph
from verify.graph.formulas import ROOT

FACTS = {
    "model": "toy",
    "model_revision": None,
    "cache": "dual",
    "temperature": 0.0,
    "dtype": "float32",
    "prompts": 4,
    "prompt_hashes": [f"hash of prompt {n}" for n in range(4)],
}


def recorded(seed: int, **options: object) -> Traces:
    traces = toy_traces(seed, **options)  # type: ignore[arg-type]
    return replace(traces, metadata=traces.metadata | FACTS)


def test_the_graph_carries_what_the_search_proved_and_its_file_says_it(tmp_path: Path) -> None:
    traces = recorded(1)
    anchors = AnchorTable.from_traces(traces, None)
    graph = search(traces, method="exact", budget=6)
    assert isinstance(graph, DraftGraph) and graph.budget == 6
    assert graph.value == graph.bound == path_value(graph, anchors) and graph.gap == 0.0
    graph.save(tmp_path / "graph.json")
    file = load_graph(tmp_path / "graph.json")
    assert file.nodes == (ROOT, *graph.draft_nodes())
    assert (file.validity.policy, file.validity.block_length) == ("static:1", 8)
    assert file.provenance["search"] == "exact" and file.provenance["trace_hash"] == traces.trace_hash()
    assert len(file.provenance["searched_prompts"]) == 4
    stated = file.values["search"]
    assert {name: stated[name] for name in replay(graph, anchors).row()} == replay(graph, anchors).row()
    assert (stated["bound"], stated["gap"]) == (graph.bound, 0.0)
    assert stated["node_reach"] == [graph.nodes[node]["reach"] for node in file.nodes]
    assert DraftGraph.from_graph_file(file).nodes[ROOT] == {"count": anchors.n_anchors, "reach": 1.0}


def test_every_method_is_bounded_and_none_beats_the_bound() -> None:
    traces = recorded(2)
    best = search(traces, method="exact", budget=4)
    for method in ("chain", "greedy", "published", "cut"):
        graph = search(traces, method=method, budget=4)
        assert graph.bound is not None and graph.gap is not None
        assert graph.value <= best.value <= graph.bound + 1e-12
        assert graph.gap == pytest.approx((graph.bound - graph.value) / graph.bound, abs=1e-12)


def test_a_changed_graph_is_valued_anew() -> None:
    graph = search(recorded(1), method="exact", budget=6)
    leaf = graph.draft_nodes()[-1]
    part = graph.subgraph(set(graph) - {leaf})
    assert part.value == pytest.approx(graph.value - graph.nodes[leaf]["marginal_value"])
    assert part.bound == graph.bound and part.gap is not None and part.gap > 0
    larger = graph.copy()
    larger.add_edge(ROOT, ((7, 3),))
    assert larger.bound is None and larger.gap is None


def test_a_bound_does_not_outlive_the_traces_it_was_proved_on() -> None:
    graph, other = search(recorded(1), method="exact", budget=6), recorded(9)
    again = graph.copy().annotate(graph.graph["trie"])
    assert again.bound == graph.bound
    graph.annotate(PrefixTrie.from_anchors(AnchorTable.from_traces(other, None)))
    assert graph.value == graph.expected_accepted_length(other) and graph.bound is None and graph.gap is None


def test_held_out_traces_value_a_graph() -> None:
    graph, other = search(recorded(1), method="greedy", budget=5), recorded(9)
    assert graph.expected_accepted_length(other) == path_value(graph, AnchorTable.from_traces(other, None))


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="unknown method 'best', expected one of chain"):
        search(recorded(1), method="best")
    with pytest.raises(ValueError, match="at least 0, got -1"):
        search(recorded(1), budget=-1)
    with pytest.raises(NothingToDraftError, match="hold no anchor"):
        search(recorded(1).select([]))
    with pytest.raises(NothingToDraftError, match="no draft was ever possible under static:4"):
        search(recorded(1, rule="static:4"), method="greedy")
    with pytest.raises(DraftGraphError, match=r"pass validity=Validity\(...\), or take the graph from drafting.search"):
        DraftGraph.from_formulas([((1, 1),)], 1).save(tmp_path / "graph.json")


def test_budget_zero_is_the_root_alone() -> None:
    graph = search(recorded(1), method="greedy", budget=0)
    assert (graph.budget, graph.value, graph.bound, graph.gap) == (0, 0.0, 0.0, 0.0)
