"""The command that predicts peaks of memory, and what a decode says that does not fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from studies.cli.app import app
from studies.cli.printing import console
from tests.support import command_line
from verify.engines.slots import SlotEngine


def run(*arguments: object, code: int = 0) -> str:
    return command_line.run("memory", *arguments, code=code)


@pytest.mark.parametrize("command", ["record", "decode"])
def test_a_decode_that_does_not_fit_says_what_would(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot")

    monkeypatch.setattr(SlotEngine, "refresh", full)
    result = CliRunner().invoke(app, [command, "--limit", "3", "--batch-size", "2", "--out", str(tmp_path / "out")])
    said = " ".join(result.output.split())
    assert result.exit_code == 1 and "Tried to allocate" not in said
    assert re.search(r"out of memory with D = 0 drafts, batch 2 and context \d+: about 0\.\d GiB are needed", said)


def test_a_shape_for_a_card_that_is_not_here() -> None:
    said = run(
        "--model", "llada-8b-shaped", "--dtype", "bfloat16", "--device", "cuda", "--available", 80,
        "--batch-size", "1,16", "--context-length", "256,4096", "--drafts", "0,10",
    )  # fmt: skip
    assert "weights 14.93 GiB; the device has 80.0 GiB" in said
    assert "context 4096, batch 16: the largest budget that fits is D = " in said
    assert "unknown dtype 'int3'" in run("--model", "llada-8b-shaped", "--dtype", "int3", code=1)


def test_informed_drafts_need_room_for_bridges() -> None:
    found = {}
    for model in ("sdar-8b-shaped", "llada-8b-shaped"):
        for drafter in ("graph", "informed"):
            said = run("--model", model, "--drafter", drafter, "--dtype", "bfloat16", "--device", "cuda",
                       "--available", 40, "--context-length", 1024, "--batch-size", 16)  # fmt: skip
            found[model, drafter] = int(said.split("the largest budget that fits is D = ")[1].split()[0])
    assert found["sdar-8b-shaped", "informed"] < found["sdar-8b-shaped", "graph"]
    assert found["llada-8b-shaped", "informed"] == found["llada-8b-shaped", "graph"]  # a dual cache has no bridges
    assert 'unknown drafter "plain", expected graph or informed' in run("--drafter", "plain", code=1)


def test_a_budget_that_does_not_fit() -> None:
    plain = run("--drafts", "0", "--context-length", "64", "--available", 0.001)
    assert "context 64, batch 1: not even plain decoding fits" in plain


def test_a_prediction_for_a_gpu_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    few = ["--drafts", "0,10", "--context-length", "64"]
    said = run(*few, "--device", "cuda")
    assert "bundled, predicted for a CUDA device" in said and "give --available GIB to see what fits" in said
    assert "the device has" not in said and "largest budget" not in said
    assert "the largest budget that fits" in run(*few, "--device", "cuda", "--available", 80)
    assert "unknown device 'gpu', expected for example cpu or cuda" in run(*few, "--device", "gpu", code=1)


def test_a_prediction_says_what_it_is_for_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 80)
    options = ["memory", "--model", "llada-8b-shaped", "--drafts", "0,16", "--available", "32", "--batch-size", "1,16"]
    said = CliRunner().invoke(app, options).output
    assert "predicted for a CPU; --device cuda predicts for a GPU" in said
    assert "measured" not in said and "error" not in said
    rows = [line for line in said.splitlines() if line.split()[:1] in (["256"], ["1024"], ["4096"])]
    assert len(rows) == 12 and {row.split(maxsplit=4)[4].strip() for row in rows} <= {
        "a layer of a step", "a layer of a refresh", "logits and ranking of a step", "logits and ranking of a refresh",
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--context-length=-5"], "--context-length must be at least 1, got -5"),
        (["--drafts=-3"], "--drafts must be at least 0, got -3"),
        (["--available", "0"], "--available must be above 0 GiB, got 0"),
        (["--available=-1"], "--available must be above 0 GiB, got -1"),
        (["--model", "llada-9b-shaped"], "unknown shape 'llada-9b-shaped', expected one of llada-8b-shaped, "),
    ],
)
def test_loads_that_are_none_are_refused(arguments: list[str], expected: str) -> None:
    assert expected in run(*arguments, code=1)
