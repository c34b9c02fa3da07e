"""``watch`` and ``decode --counts``: from a served graph to one sentence and an exit code."""

import json
from pathlib import Path

import numpy as np
import pytest

from calibrate.traces.table import Traces, read_traces
from drafting.anchors import AnchorTable
from drafting.replay import node_visits, replay
from tests.support.command_line import run
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.counting import AcceptanceCounts, load_counts, save_counts
from verify.graph.file import load_graph, save_graph

SIZES = ["--block-length", "8", "--generation-length", "16", "--top-j", "4"]
PROMPTS = 40


def decoded(seed: int, noise: float) -> Traces:
    return toy_traces(seed, prompts=PROMPTS, blocks=3, noise=noise)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of prompts whose ranks hardly move, and traces of more such prompts."""
    folder = tmp_path_factory.mktemp("watch")
    write_folder(decoded(1, noise=0.1), folder / "search")
    write_folder(decoded(2, noise=0.1), folder / "held-out")
    run("search", folder / "search", "--budget", 6, "--out", folder / "graph.json")
    return folder


def served(folder: Path, seed: int, noise: float, by: str = "node", **changes: object) -> Path:
    """Counts of made-up requests, as a runtime that serves the graph would write them."""
    file, table = load_graph(folder / "graph.json"), AnchorTable.from_traces(decoded(seed, noise), max_depth=None)
    found, accepted = replay(file.nodes[1:], table), node_visits(file.nodes[1:], table)
    if by == "depth":
        depths = np.array(file.depths[1:])
        accepted = np.stack([accepted[:, depths == d].sum(axis=1) for d in range(1, depths.max() + 1)], axis=1)
    facts = dict(validity=file.validity, by=by, forwards=found.forwards_per_prompt, anchors=found.anchors_visited,
                 accepted=accepted, nodes=file.nodes)  # fmt: skip
    path = folder / f"counts-{seed}-{noise}-{by}.json"
    save_counts(AcceptanceCounts(**{**facts, **changes}), path)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("by", ["node", "depth"])
def test_requests_like_the_prompts_raise_no_alarm(folder: Path, by: str) -> None:
    counts = served(folder, 3, 0.1, by)
    said = run("watch", counts, folder / "graph.json", "--traces", folder / "held-out")
    assert f"No sign of a drift: {PROMPTS} requests (" in said and "of the 200 that an alarm takes" in said
    assert "at most 1 % of watches without a drift ever raise an alarm" in said


@pytest.mark.parametrize("by", ["node", "depth"])
def test_other_requests_do(folder: Path, by: str, tmp_path: Path) -> None:
    counts, out = served(folder, 4, 0.8, by), tmp_path / "watch.json"
    said = run("watch", counts, folder / "graph.json", "--traces", folder / "held-out", "--out", out, code=3)
    found = json.loads(out.read_text())["rows"][0]
    assert found["sentence"] in said and "Calibrate again: since about request" in said
    assert "fewer: the graph was made for other requests (seen at request" in said
    assert found["alarm"] <= 15 and found["since"] <= 4 and found["direction"] == "lower"
    assert found["forwards_to_alarm"] == load_counts(counts).forwards[: found["alarm"]].sum()
    assert max(found["capital"]) >= 200 > max(found["capital"][: found["alarm"] - 1], default=0)
    table = AnchorTable.from_traces(read_traces(folder / "held-out"), max_depth=None)
    promised = replay(load_graph(folder / "graph.json").nodes[1:], table)
    assert found["accepted_drafts_promised"] == pytest.approx(promised.accepted_drafts_visited)


def test_requests_that_accept_more_are_a_drift_too(folder: Path) -> None:
    promised = write_folder(decoded(9, 0.8), folder / "wild")
    said = run("watch", served(folder, 3, 0.1, "depth"), folder / "graph.json", "--traces", promised, code=3)
    assert "more: it keeps its promise, but a graph made for these requests may win more" in said


def test_another_profile_is_seen_where_as_much_is_accepted(folder: Path, tmp_path: Path) -> None:
    """What was accepted of each node is turned round, the sums stay."""
    counts = load_counts(served(folder, 3, 0.1))
    turned = served(folder, 3, 0.1, accepted=counts.accepted[:, ::-1].copy())
    said = run("watch", turned, folder / "graph.json", "--traces", folder / "held-out", code=3)
    assert "Calibrate again: other drafts are accepted than promised ({" in said
    assert "so the requests are others and another graph may win more (seen at request 8, after" in said


def test_a_graph_file_states_the_promise(folder: Path) -> None:
    counts = served(folder, 4, 0.8)
    said = run("watch", counts, folder / "graph.json", code=3)
    assert "per anchor: search prompts of the graph file" in said
    assert "the promise is from the prompts that chose the graph, and so too good" in said


def test_a_held_out_promise_comes_first(folder: Path, tmp_path: Path) -> None:
    file = load_graph(folder / "graph.json")
    values = {**file.values, "test": {"per_prompt": {"anchors": [5, 4, 0], "accepted_drafts": [2, 3, 0]}}}
    save_graph(type(file)(**{**vars(file), "values": values}), tmp_path / "graph.json")
    said = run("watch", served(folder, 3, 0.1), tmp_path / "graph.json")
    assert "per anchor: test prompts of the graph file" in said
    assert "with 2 reference prompts only a large drift can be seen" in said and "too good" not in said


def test_a_file_without_a_promise_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    file = load_graph(folder / "graph.json")
    save_graph(type(file)(**{**vars(file), "values": {}}), tmp_path / "graph.json")
    said = run("watch", served(folder, 3, 0.1), tmp_path / "graph.json", code=1)
    assert "states no values per prompt" in said and "give --traces FOLDER" in said


def test_counts_of_something_else_are_refused(folder: Path, tmp_path: Path) -> None:
    graph, file = folder / "graph.json", load_graph(folder / "graph.json")
    other = type(file.validity)(**{**vars(file.validity), "model": "another"})
    assert "is not of a decode that" in run("watch", served(folder, 3, 0.1, validity=other), graph, code=1)
    nodes = (*file.nodes[:-1], ((8, 1),))
    assert "is of another graph than" in run("watch", served(folder, 3, 0.1, nodes=nodes), graph, code=1)
    few = served(folder, 3, 0.1, nodes=None, accepted=np.zeros((PROMPTS, 2), int))
    assert f"counts 2 nodes, but {graph} has 6" in run("watch", few, graph, code=1)
    silent = served(folder, 3, 0.1, nodes=None, validity=None)
    assert "does not say what was served" in run("watch", silent, graph, "--traces", folder / "held-out")
    (tmp_path / "counts.json").write_text("{}")
    assert 'expected "draftgraph-counts"' in run("watch", tmp_path / "counts.json", graph, code=1)


def test_decode_writes_what_a_watch_reads(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    common = ["--model", checkpoint, "--prompts", prompts]
    run("record", *common, "--policy", "static:1", *SIZES, "--out", tmp_path / "traces")
    graph, counts = tmp_path / "graph.json", tmp_path / "counts.json"
    run("search", tmp_path / "traces", "--budget", 4, "--out", graph)
    decode = ["decode", *common, "--generation-length", 16, "--out", tmp_path / "out.jsonl"]
    run(*decode, "--graph", graph, "--counts", counts, "--batch-size", 3)
    found, table = load_counts(counts), AnchorTable.from_traces(read_traces(tmp_path / "traces"), max_depth=None)
    assert found.nodes == load_graph(graph).nodes
    assert np.array_equal(found.accepted, node_visits(found.nodes[1:], table))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found.forwards.tolist() == [line["forwards"] for line in lines]
    assert "No sign of a drift: 8 requests" in run("watch", counts, graph)
    said = run(*decode, "--overwrite", "--policy", "static:1", "--counts", tmp_path / "none.json", code=1)
    assert "--counts counts the nodes of a graph; give --graph" in said
    said = run(*decode, "--graph", graph, "--counts", counts, "--out", tmp_path / "new.jsonl", code=1)
    assert "counts.json exists" in said
