"""``calibrate`` by several workers: all record, the leader goes on alone. Here they are threads that share a store."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from typer.testing import CliRunner

from calibrate.models.checkpoint import load_checkpoint
from calibrate.recording.workers import Workers
from calibrate.traces.table import shard_paths
from studies.cli.app import app
from studies.runs import calibration
from studies.runs.calibration import calibrate
from studies.runs.configuration import CalibrationConfig

SIZES: dict[str, Any] = {"block_length": 8, "generation_length": 16, "top_j": 4, "budgets": (0, 2)}


def rows(out: Path) -> list[dict[str, Any]]:
    found = json.loads((out / "results.json").read_text())["rows"]
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in found]


def test_calibrate_records_together_and_goes_on_alone(
    checkpoint: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CalibrationConfig(
        model=str(checkpoint), prompts=str(prompts), policies=("static:1",), methods=("greedy",), batch_size=2, **SIZES
    )
    calibrate(config, tmp_path / "alone")

    store = dist.HashStore()
    workers = [Workers(store, number, 2, number) for number in range(2)]
    loaded = [load_checkpoint(checkpoint) for _ in workers]  # beforehand: transformers does not load in threads
    asked: list[str] = []

    def give(source: str, **options: Any) -> Any:
        asked.append(options["device"])
        return loaded[int(threading.current_thread().name)]

    monkeypatch.setattr(calibration, "load_checkpoint", give)
    got: dict[int, Any] = {}

    def one(number: int) -> None:
        got[number] = calibrate(config, tmp_path / "together", workers=workers[number])

    threads = [threading.Thread(target=one, args=(number,), name=str(number)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert got[1] is None and got[0].rows
    assert asked == ["cpu", "cpu"]
    assert rows(tmp_path / "together") == rows(tmp_path / "alone")
    for split in ("search", "test"):
        names = {path.name[:10] for path in shard_paths(tmp_path / "together" / "traces" / "static-1" / split)}
        assert names == {"shard-w000", "shard-w001"}


def test_another_batch_size_goes_on_in_the_same_run(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"model": str(checkpoint), "prompts": str(prompts), "policies": ("static:1",), **SIZES}
    calibrate(CalibrationConfig(methods=("greedy",), batch_size=4, **common), tmp_path / "run")
    before = rows(tmp_path / "run")
    calibrate(CalibrationConfig(methods=("greedy",), batch_size=1, **common), tmp_path / "run")
    assert rows(tmp_path / "run") == before
    with pytest.raises(ValueError, match="batch_size is 0, expected at least 1"):
        calibrate(CalibrationConfig(methods=("greedy",), batch_size=0, **common), tmp_path / "run")


def test_a_launchers_restart_goes_on_where_overwrite_was_given(
    checkpoint: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``torchrun --max-restarts`` runs the very same command again; only its first attempt may delete recordings."""
    out = tmp_path / "run"
    command = [
        "calibrate", "--model", str(checkpoint), "--prompts", str(prompts), "--policy", "static:1",
        "--methods", "greedy", "--budgets", "0,2", "--block-length", "8", "--generation-length", "16", "--top-j", "4",
        "--no-figures", "--overwrite-traces", "--out", str(out),
    ]  # fmt: skip
    assert CliRunner().invoke(app, command).exit_code == 0
    marked = out / "traces" / "mine"
    marked.touch()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert CliRunner().invoke(app, command).exit_code == 0
    assert marked.exists()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert CliRunner().invoke(app, command).exit_code == 0
    assert not marked.exists()

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibration, "calibrate", stopped)
    said = " ".join(CliRunner().invoke(app, command).output.split())
    assert "run the same command again, without --overwrite-traces, to go on" in said
    said = " ".join(CliRunner().invoke(app, [word for word in command if word != "--overwrite-traces"]).output.split())
    assert "run the same command again to go on" in said
