"""Real processes: ``torchrun`` starts the workers, one is killed with SIGKILL, all are started again and go on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from calibrate.traces.table import read_traces, shard_paths
from studies.cli.app import app
from tests.support.paths import ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
SIZES = ["--policy", "static:1", "--block-length", "8", "--generation-length", "16", "--top-j", "4"]

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this platform")


def start(count: int, arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    return subprocess.Popen(
        [*TORCHRUN, str(count), "--max-restarts", "1", "--standalone", "-m", "studies.cli", *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def worker(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    """The process that the launcher started as ``rank``."""
    for process in psutil.Process(launcher.pid).children(recursive=True):
        try:
            if process.environ().get("RANK") == str(rank):
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"the launcher has no worker {rank}")


def test_a_killed_worker_and_a_restart(checkpoint: Path, tmp_path: Path) -> None:
    """torchrun ends the other worker, which keeps what it has, and starts both again, which go on."""
    prompts = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"tokens": [3 + (7 * n + k * k) % 45 for k in range(4 + n % 5)]}) for n in range(60)]
    prompts.write_text("\n".join(lines))
    folder = tmp_path / "traces"
    command = ["record", "--model", str(checkpoint), "--prompts", str(prompts), *SIZES, "--out", str(folder)]

    launcher = start(2, command)
    deadline = time.monotonic() + 180
    while not list(folder.glob("shard-w001-*")):
        assert time.monotonic() < deadline and launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.01)
    worker(launcher, 1).send_signal(signal.SIGKILL)
    kept = {path.name: path.read_bytes() for path in shard_paths(folder)}
    done = set(read_traces(folder, partial=True).prompt_index.tolist())
    assert any(name.startswith("shard-w001") for name in kept) and 4 <= len(done) < 60

    said, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, said
    assert said.count("What is finished is kept; run the same command again to go on.") == 1, said
    assert "worker 0 of 2: stopped by SIGTERM (launchers send it when another worker failed)" in said
    recorded = re.search(r"recorded (\d+) prompts, .*\(batch 1, 2 workers\)", said)
    assert recorded is not None and 0 < int(recorded[1]) <= 60 - len(done), said
    assert said.count("denoising steps of 60 prompts") == 1  # the leader alone reports
    assert {name: (folder / name).read_bytes() for name in kept} == kept

    alone = tmp_path / "alone"
    result = CliRunner().invoke(app, [*command[:-1], str(alone), "--batch-size", "16"])
    assert result.exit_code == 0, result.output
    assert read_traces(folder).trace_hash() == read_traces(alone).trace_hash()
