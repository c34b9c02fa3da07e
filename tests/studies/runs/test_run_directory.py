"""Run directories: what may be deleted, and what may not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calibrate.files import write_json
from calibrate.traces.folder import FolderLock
from calibrate.traces.table import MANIFEST_NAME, TRACE_FORMAT_VERSION, TraceError
from studies.runs import calibration
from studies.runs.calibration import calibrate
from studies.runs.configuration import CalibrationConfig
from studies.runs.run_directory import RunDirectoryError, open_run
from tests.support.models import tiny_checkpoint
from verify.policies.contract import PolicyError

CONFIG: dict[str, Any] = {"policies": ["a"], "methods": ["greedy"], "budgets": [0, 2], "tool_version": "1"}
FACTS = {"model": "m", "seed": 0, "top_j": 4}
FOLDER = "traces/a/search"
RECORDINGS = {FOLDER: FACTS}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a recording, results, and a file that draftgraph did not write."""
    path = open_run(tmp_path / "run", CONFIG, RECORDINGS)
    write_json(path / FOLDER / MANIFEST_NAME, {"version": TRACE_FORMAT_VERSION, "run": FACTS})
    (path / FOLDER / "shard-000000.parquet").write_bytes(b"x")
    for name in sorted(ANALYSED | {"latency.json"}):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("{}")
    return path


def files(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*") if found.is_file()}


RECORDED = {"config.json", f"{FOLDER}/{MANIFEST_NAME}", f"{FOLDER}/shard-000000.parquet", "latency.json"}
ANALYSED = {
    "results.json", "graphs/a.json", "measured/a.json", "figures/a.png", "static-1.json", "static-1.budget.json",
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"budgets": [0, 2, 4]},
        {"methods": ["chain", "greedy"]},
        {"policies": ["a", "b"]},
        {"tool_version": "2"},
        {"certify": False, "measured_prompts": 3},
    ],
)
def test_a_run_goes_on_with_more_analyses(run: Path, change: dict[str, Any]) -> None:
    """Until recordings and analyses were told apart, each of these was refused, and only a deletion was offered."""
    open_run(run, CONFIG | change, RECORDINGS)
    assert files(run) == RECORDED | ANALYSED
    assert json.loads((run / "config.json").read_text()) == {"format": "draftgraph-run", **CONFIG, **change}


@pytest.mark.parametrize("change", [{"budgets": [0, 4]}, {"methods": ["chain"]}, {"policies": ["b"]}])
def test_results_are_dropped_only_when_asked_for_and_recordings_stay(run: Path, change: dict[str, Any]) -> None:
    with pytest.raises(RunDirectoryError, match=r"that this run would drop \(.*\); name them too, give another --out"):
        open_run(run, CONFIG | change, RECORDINGS)
    assert files(run) == RECORDED | ANALYSED
    open_run(run, CONFIG | change, RECORDINGS, overwrite=True)
    assert files(run) == RECORDED


def test_a_recording_of_other_facts_is_kept_until_its_deletion_is_asked_for(run: Path) -> None:
    other = {FOLDER: {**FACTS, "seed": 5}}
    message = (
        r"holds a trace of another run \(seed: there 0, now 5\); give another --out, or --overwrite-traces to delete"
    )
    for overwrite in (False, True):
        with pytest.raises(TraceError, match=message):
            open_run(run, CONFIG, other, overwrite=overwrite)
        assert files(run) == RECORDED | ANALYSED
    open_run(run, CONFIG, other, overwrite_traces=True)
    assert files(run) == {"config.json", "latency.json"}


def test_another_kind_of_run_is_refused(run: Path) -> None:
    with pytest.raises(RunDirectoryError, match='holds a calibration, not the study "policy"; give another --out'):
        open_run(run, CONFIG | {"study": "policy"}, RECORDINGS)


def test_a_run_that_is_being_recorded_is_not_deleted(run: Path) -> None:
    lock = FolderLock(run / FOLDER)
    lock.acquire()
    for options in ({"overwrite": True}, {"overwrite_traces": True}):
        with pytest.raises(TraceError, match="is being recorded by another process"):
            open_run(run, CONFIG, RECORDINGS, **options)
        assert files(run) >= RECORDED | ANALYSED
    lock.release()
    open_run(run, CONFIG, RECORDINGS, overwrite_traces=True)
    assert not (run / FOLDER).exists()


def test_a_calibration_goes_on_over_its_recordings(
    checkpoint: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other budgets, methods, batches and versions of the tool: no prompt is decoded for a recording again."""
    common: dict[str, Any] = {"model": str(checkpoint), "prompts": str(prompts), "policies": ("static:1",)}
    common |= {"block_length": 8, "generation_length": 16, "top_j": 4}
    out = tmp_path / "run"
    first = calibrate(CalibrationConfig(methods=("greedy",), budgets=(0, 2), measured_prompts=0, **common), out)
    assert first is not None
    test = [row for row in first.rows if row.split == "test"]
    assert {row.measured_prompts for row in test} == {0}
    assert {getattr(row, name) for row in test for name in ("forwards_measured", "tokens_identical", "seconds")} == {
        None
    }
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert before
    monkeypatch.setattr(calibration, "tool_version", lambda: "another")
    rows = {}
    for batch_size in (1, 3):
        config = CalibrationConfig(methods=("greedy", "chain"), budgets=(0, 2, 4), batch_size=batch_size, **common)
        found = calibrate(config, out)
        assert found is not None
        rows[batch_size] = [
            {name: value for name, value in vars(row).items() if name not in ("seconds", "search_seconds")}
            for row in found.rows
        ]
        for row in rows[batch_size]:
            if row["split"] == "test":
                assert row["tokens_identical"] == 1.0
                assert row["forwards_measured"] == row["forwards_predicted_measured"] > 0
    # In batches the verifier counts the same forwards and rows, and writes the same tokens.
    assert rows[1] == rows[3]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before


def test_policies_of_a_run_that_has_their_temperature_beside_them_are_the_same_ones(tmp_path: Path) -> None:
    path = open_run(tmp_path / "run", CONFIG | {"policies": ["static:1"], "temperature": 0.7}, {})
    now = CONFIG | {"policies": ["static:1@temperature=0.7"], "temperature": 0.7}
    open_run(path, now, {})
    with pytest.raises(RunDirectoryError, match=r'results of policies that this run would drop \("static:1@temp'):
        open_run(path, now | {"policies": ["static:1"], "temperature": 0.0}, {})


def test_the_temperature_of_a_settled_run_is_that_of_its_policies() -> None:
    checkpoint = tiny_checkpoint()
    base = CalibrationConfig(block_length=8, generation_length=16, cache="dual", methods=("greedy",))
    for policies, temperature, found, settled in (
        (("static:1", "threshold:0.90"), None, ("static:1", "threshold:0.9"), 0.0),
        (("static:1", "static:1@temperature=0.5"), 0.5, ("static:1@temperature=0.5",), 0.5),
        (("static:1", "static:1@temperature=0.5"), None, ("static:1", "static:1@temperature=0.5"), None),
    ):
        config, _ = replace(base, policies=policies, temperature=temperature).settled(checkpoint)
        assert (config.policies, config.temperature) == (found, settled)
        assert config.settled(checkpoint)[0] == config
    with pytest.raises(PolicyError, match=r"has temperature 0\.5, but temperature 0 is stated beside it"):
        replace(base, policies=("static:1@temperature=0.5",), temperature=0.0).check()
