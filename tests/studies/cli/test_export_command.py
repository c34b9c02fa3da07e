"""``export`` in every notation, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest

from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.notations import csv_text, dot_text
from drafting.replay import replay
from drafting.spanning import replay_tree, spanning_tree
from drafting.trie import PrefixTrie
from studies.cli.commands.export import FORMATS
from tests.support.command_line import run
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.graph.file import load_graph, save_graph


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = toy_traces(3, prompts=12, noise=0.4)
    return write_folder(found, tmp_path_factory.mktemp("toy") / "traces")


@pytest.fixture(scope="module")
def graph(traces: Path) -> Path:
    path = traces.parent / "graph.json"
    run("search", traces, "--budget", 7, "--out", path)
    return path


def test_every_format_is_written(graph: Path, tmp_path: Path) -> None:
    file = load_graph(graph)
    for name in FORMATS[:-1]:
        run("export", graph, "--format", name, "--out", tmp_path / f"graph.{name}")
    assert load_graph(tmp_path / "graph.json") == file
    assert (tmp_path / "graph.dot").read_text() == dot_text(file)
    assert (tmp_path / "graph.csv").read_text() == csv_text(file)
    assert len(nx.read_graphml(tmp_path / "graph.graphml")) == 8
    assert len(json.loads((tmp_path / "graph.medusa").read_text())["medusa_choices"]) == 7


def test_sglang_takes_graphs_of_its_own_decode_only(graph: Path, tmp_path: Path) -> None:
    assert FORMATS[-1] == "sglang"
    file, out = load_graph(graph), tmp_path / "server.yaml"
    assert "block_causal" in run("export", graph, "--format", "sglang", "--out", out, code=1)
    assert not out.exists()
    mine = replace(file, validity=replace(file.validity, cache="block_causal", policy="static:1"))
    save_graph(mine, tmp_path / "mine.json")
    run("export", tmp_path / "mine.json", "--format", "sglang", "--out", out)
    written = out.read_text(encoding="utf-8")
    assert f"block_size: {file.validity.block_length}\n" in written and str(tmp_path / "mine.json") in written


def test_paths_say_what_is_lost_on_traces(graph: Path, traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "paths.json"
    said = run("export", graph, "--format", "medusa", "--traces", traces, "--out", out)
    from calibrate.traces.table import read_traces

    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(read_traces(traces), max_depth=None))
    file = load_graph(graph)
    tree = replay_tree(spanning_tree(DraftGraph.from_graph_file(file), trie), trie)
    lost = json.loads(out.read_text())["acceptance"]
    assert lost["counted_on"] == "traces" and lost["forwards_tree"] == tree.forwards
    assert lost["forwards_graph"] == replay(file.nodes[1:], trie.anchors).forwards < tree.forwards
    assert f"are lost (replayed on the traces: {tree.forwards} forward passes, {lost['forwards_graph']} with" in said


def test_paths_without_traces_say_so(graph: Path, tmp_path: Path) -> None:
    said = run("export", graph, "--format", "medusa", "--out", tmp_path / "paths.json")
    assert "bounded by the node_reach of the graph file; --traces FOLDER counts it" in said


def test_steps_of_several_tokens_have_no_path(tmp_path: Path) -> None:
    traces = write_folder(toy_traces(3, prompts=12, rule="static:2"), tmp_path / "traces")
    graph, out = tmp_path / "graph.json", tmp_path / "paths.json"
    run("search", traces, "--budget", 4, "--out", graph)
    said = run("export", graph, "--format", "medusa", "--out", out, code=1)
    assert "adds 2 tokens, but a step of a path is one token" in said and "dot, graphml and csv hold every edge" in said
    assert not out.exists()


def test_what_is_refused(graph: Path, traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "graph.dot"
    assert "unknown format 'svg', expected one of json" in run("export", graph, "--format", "svg", "--out", out, code=1)
    said = run("export", graph, "--format", "dot", "--traces", traces, "--out", out, code=1)
    assert "--traces belongs to --format medusa, got --format dot" in said
    other = write_folder(toy_traces(3, prompts=3), tmp_path / "other", model="another")
    said = run("export", graph, "--format", "medusa", "--traces", other, "--out", out, code=1)
    assert "does not fit the traces in" in said and "another" in said
    assert not out.exists()
