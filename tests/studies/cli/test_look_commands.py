"""``inspect``, ``plot`` of a graph, and ``evaluate --json``: what somebody looks at who finds a file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calibrate.files import write_csv
from calibrate.traces.table import shard_paths
from drafting.graph import DraftGraph
from studies.runs.ablations import COLUMNS
from tests.support.command_line import run
from tests.support.study_toys import write_folder
from tests.support.synthetic_run import write_run
from tests.support.toy import toy_traces
from verify.drafters.file import DrafterFile, save_drafter
from verify.drafters.settings import InformedSettings
from verify.graph.file import load_graph, save_graph


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(toy_traces(0, prompts=12, blocks=2, length=10), tmp_path_factory.mktemp("look") / "traces")


@pytest.fixture(scope="module")
def graph(traces: Path) -> Path:
    path = traces.parent / "graph.json"
    run("search", traces, "--method", "exact", "--budget", 4, "--out", path)
    return path


def test_a_trace_folder(traces: Path) -> None:
    said = run("inspect", traces)
    assert f"{traces}: traces of plain decoding prompts 12 denoising steps" in said
    for fact in ("model toy", "policy static:1", "cache dual", "block length 10"):
        assert fact in said


def test_a_recording_that_was_stopped(tmp_path: Path) -> None:
    folder = write_folder(toy_traces(0, prompts=5, length=10), tmp_path / "traces", prompts=8)
    said = run("inspect", folder)
    assert "prompts 5 of 8" in said and "The recording was stopped. Run the same `draftgraph record` again" in said
    assert len(shard_paths(folder)) == 1


def test_a_graph_says_for_whom_it_is_and_how_sure_its_value(graph: Path, tmp_path: Path) -> None:
    said = run("inspect", graph)
    assert "a draft graph of 4 drafts, depth" in said and "policy static:1" in said and "found by exact" in said
    assert "times fewer forward passes (95 % interval" in said and "proved optimal there" in said
    assert "`draftgraph evaluate` values it on others" in said
    bare = DraftGraph.from_formulas([((1, 1),)], 1).to_graph_file(load_graph(graph).validity, {}, {})
    save_graph(bare, tmp_path / "bare.json")
    assert "a draft graph of 1 drafts, depth 1" in run("inspect", tmp_path / "bare.json")


def test_a_drafter_says_for_whom_it_is(graph: Path, tmp_path: Path) -> None:
    settings, file = InformedSettings(fill="graph"), load_graph(graph)
    values = {"test": {"nfe_reduction": 2.5, "nfe_reduction_interval": [2.25, 2.75], "prompts": 24}}
    tuned = DrafterFile(7, settings, file.nodes[1:], file.validity, values, {"search": "a sweep"})
    save_drafter(tuned, tmp_path / "tuned.json")
    said = run("inspect", tmp_path / "tuned.json")
    assert "tuned.json: an informed drafter of at most 7 drafts settings informed, drafts 7" in said
    assert "fill graph" in said and "4 formulas" in said and "found by a sweep" in said and "policy static:1" in said
    assert "on test prompts: 2.50 times fewer forward passes (95 % interval 2.25 to 2.75 over 24 prompts)" in said
    save_drafter(DrafterFile(3), tmp_path / "free.json")
    assert "does not say for whom it was tuned, so it may be run with anything" in run(
        "inspect", tmp_path / "free.json"
    )


def test_a_run_says_what_it_won(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    said = run("inspect", folder)
    assert f"{folder}: a run with" in said
    assert "times fewer forward passes (95 % interval" in said and "test prompts" in said


def test_what_cannot_be_inspected(tmp_path: Path) -> None:
    assert "there is nothing at" in run("inspect", tmp_path / "nowhere", code=1)
    assert "is no trace folder (it has no manifest.json)" in run("inspect", tmp_path, code=1)
    (tmp_path / "x.json").write_text("[]")
    assert "error:" in run("inspect", tmp_path / "x.json", code=1)


def test_evaluate_as_json(graph: Path, traces: Path) -> None:
    from typer.testing import CliRunner

    from studies.cli.app import app

    result = CliRunner().invoke(app, ["evaluate", str(graph), "--traces", str(traces), "--json"])
    facts = json.loads(result.stdout)  # the note that these prompts were searched goes to stderr
    assert facts["rows"][0]["graph"] == str(graph) and facts["rows"][0]["drafts"] == 4
    assert facts["rows"][0]["nfe_reduction"] > 1 and facts["validity"]["policy"] == "static:1"
    assert "looks too good here" in result.stderr


def test_a_graph_is_drawn(graph: Path) -> None:
    assert ".png" in run("plot", graph)


def test_csv_of_a_study_keeps_quotes_and_newlines(tmp_path: Path) -> None:
    facts = dict.fromkeys(COLUMNS) | {COLUMNS[0]: 'say "a", then\nb', COLUMNS[2]: 0.123456789}
    row: Any = SimpleNamespace(**facts)
    write_csv(tmp_path / "study.csv", COLUMNS, [row])
    with (tmp_path / "study.csv").open(newline="", encoding="utf-8") as stream:
        read = list(csv.reader(stream))
    assert read == [list(COLUMNS), ['say "a", then\nb', "", "0.123457", *[""] * (len(COLUMNS) - 3)]]
