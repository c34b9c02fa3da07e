"""``evaluate --runtime``: the forwards that another runtime counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibrate.traces.table import read_traces
from drafting.runtime_replay import runtime_count
from tests.support.command_line import run
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.graph.file import load_graph
from verify.runtimes.profiles import FAST_DLLM


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(toy_traces(0, prompts=12, blocks=2, length=10), tmp_path_factory.mktemp("runtime") / "traces")


@pytest.fixture(scope="module")
def graph(traces: Path) -> Path:
    path = traces.parent / "graph.json"
    run("search", traces, "--method", "exact", "--budget", 4, "--out", path)
    return path


def test_what_it_counts_stands_beside_our_own_count(traces: Path, graph: Path) -> None:
    count = runtime_count(load_graph(graph).nodes[1:], read_traces(traces), FAST_DLLM)
    said = run("evaluate", graph, "--traces", traces, "--runtime", "fast-dllm", "--json")
    shown, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])  # the notes follow
    assert shown["runtime"] == "fast-dllm"
    row = shown["rows"][0]
    assert row["runtime"] == {"forwards_plain": count.plain_forwards, "forwards_predicted": count.forwards}
    assert row["forwards_predicted"] <= count.forwards < count.plain_forwards
    said = run("evaluate", graph, "--traces", traces, "--runtime", "fast-dllm")
    assert "counts at least 2 forwards in a block and adds 0 to each (github NVlabs/Fast-dLLM @ 24cc59e" in said
    assert str(count.forwards) in said
    assert '"runtime"' not in run("evaluate", graph, "--traces", traces, "--json")


def test_decodes_that_the_runtime_does_not_make(traces: Path, graph: Path) -> None:
    common = ["evaluate", graph, "--traces", traces, "--runtime"]
    assert "lmdeploy decodes with cache block_causal, the recording is of cache dual" in run(
        *common, "lmdeploy", code=1
    )
    assert "unknown runtime 'vllm', expected one of" in run(*common, "vllm", code=1)
    said = run("evaluate", graph, "--runtime", "fast-dllm", code=1)
    assert "--runtime counts for graphs over a trace of plain decoding" in said
