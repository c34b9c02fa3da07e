"""Blocks of different lengths on the command line: from a recording to a graph that is verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibrate.traces.table import read_traces
from tests.support.command_line import run
from verify.graph.file import load_graph

SCHEDULE = f"adablock:0.05:{'+'.join(map(str, range(3, 48, 3)))}:5"


@pytest.fixture(scope="module")
def common(checkpoint: Path, prompts: Path) -> list[object]:
    return ["--model", checkpoint, "--prompts", prompts, "--limit", 4, "--generation-length", 21]


def test_a_recording_becomes_a_graph_that_brings_its_schedule(common: list[object], tmp_path: Path) -> None:
    asked = ["--policy", "static:1", "--block-length", 8, "--schedule", f"{SCHEDULE}:8"]
    said = run("record", *common, *asked, "--top-j", 2, "--out", tmp_path / "traces")
    assert f"blocks of at most 8 (asked for) under {SCHEDULE}, cache dual" in said
    traces = read_traces(tmp_path / "traces")
    lengths = np.diff(traces.masked_ptr)[traces.step == 1]
    assert len(set(lengths.tolist())) > 2 and lengths.max() <= 8
    assert f"schedule {SCHEDULE}" in run("inspect", tmp_path / "traces")

    run("search", tmp_path / "traces", "--budget", 4, "--out", tmp_path / "graph.json")
    assert load_graph(tmp_path / "graph.json").validity.schedule == SCHEDULE
    assert f"schedule {SCHEDULE}" in run("inspect", tmp_path / "graph.json")
    assert "forwards, predicted" in run("verify", tmp_path / "graph.json", *common)
    run("verify", *common, *asked, "--drafter", "informed", "--drafts", 4)


def test_what_cannot_be_scheduled(common: list[object], tmp_path: Path) -> None:
    asked = ["--block-length", 8, "--schedule"]
    out = ["--out", tmp_path / "out"]
    assert "unknown schedule 'fixed:8'" in run("record", *common, *asked, "fixed:8", *out, code=1)
    said = run("record", *common, *asked, SCHEDULE, "--cache", "block_causal", *out, code=1)
    assert "block-causal" in said
