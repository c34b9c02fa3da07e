"""Predicted peaks against measured ones, and the command that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from calibrate.models.shapes import LLADA_8B, SDAR_8B, Shape
from studies.cli.app import app
from studies.cli.printing import console
from studies.pricing.memory import peak_bytes, save_memory, study_checkpoint
from tests.support import command_line
from verify.engines.slots import SlotEngine

# Wide enough that tensors outweigh what is not predicted: positions, indices, a kernel's own buffers.
LLADA = LLADA_8B.changed(
    "llada", 1999, d_model=256, n_layers=2, n_heads=4, n_kv_heads=4, mlp_hidden_size=768, embedding_size=2048,
    vocab_size=2048,
)  # fmt: skip
SDAR = SDAR_8B.changed(
    "sdar", 999, hidden_size=256, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, head_dim=32,
    intermediate_size=768, vocab_size=1024,
)  # fmt: skip


def run(*arguments: object, code: int = 0) -> str:
    return command_line.run("memory", *arguments, code=code)


@pytest.mark.parametrize(("shape", "dtype"), [(LLADA, "float32"), (LLADA, "bfloat16"), (SDAR, "float32")])
def test_the_prediction_is_near_what_is_measured(shape: Shape, dtype: str, tmp_path: Path) -> None:
    study = study_checkpoint(shape.make(dtype=dtype), drafts=(0, 8), context_lengths=(320,), batches=(2,))
    errors = [row.error for row in study.rows]
    assert len(errors) == 2 and all(error is not None and -0.05 < error < 0.13 for error in errors), errors
    assert study.rows[0].measured < study.rows[1].measured
    save_memory(study, tmp_path / "memory.json")
    saved = json.loads((tmp_path / "memory.json").read_text())
    assert saved["format"] == "draftgraph-memory" and saved["rows"][0]["measured"] == study.rows[0].measured
    assert [entry["context_length"] for entry in saved["largest"]] == [320]


def test_the_measured_peak_of_one_allocation() -> None:
    checkpoint = LLADA.make(dtype="float32")
    weights = sum(weight.nbytes for weight in checkpoint.denoiser.model.parameters())

    def two_then_one() -> None:
        first = torch.empty(1 << 20, dtype=torch.uint8)
        second = torch.empty(3 << 20, dtype=torch.uint8)
        del first, second
        torch.empty(2 << 20, dtype=torch.uint8)

    assert peak_bytes(two_then_one, checkpoint) == weights + (4 << 20)


def test_a_load_that_does_not_fit_has_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    step = SlotEngine.step

    def limited(self, slots, states):
        if len(states[0]) > 2:
            raise torch.OutOfMemoryError("out")
        return step(self, slots, states)

    monkeypatch.setattr(SlotEngine, "step", limited)
    study = study_checkpoint(LLADA.make(dtype="float32"), drafts=(1, 8), context_lengths=(32,))
    assert [row.note for row in study.rows] == ["", "out of memory"] and study.rows[1].measured is None


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


def test_a_shape_for_a_card_that_is_not_here(tmp_path: Path) -> None:
    said = run(
        "--model", "llada-8b-shaped", "--dtype", "bfloat16", "--device", "cuda", "--available", 80, "--batch", "1,16",
        "--context-length", "256,4096", "--drafts", "0,10", "--out", tmp_path / "memory.json",
    )  # fmt: skip
    assert "weights 14.93 GiB; the device has 80.0 GiB" in said
    assert "context 4096, batch 16: the largest budget that fits is D = " in said
    saved = json.loads((tmp_path / "memory.json").read_text())
    assert len(saved["rows"]) == 8 and all(row["measured"] is None for row in saved["rows"])
    assert "unknown dtype 'int3'" in run("--model", "llada-8b-shaped", "--dtype", "int3", code=1)


def test_a_model_that_is_measured() -> None:
    said = run("--measure", "--drafts", "0,3", "--context-length", "64")
    assert "bundled, cpu" in said and said.count(" %") == 2
    plain = run("--drafts", "0", "--context-length", "64", "--available", 0.001)
    assert "context 64, batch 1: not even plain decoding fits" in plain


def test_a_prediction_for_a_gpu_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    few = ["--drafts", "0,10", "--context-length", "64"]
    said = run(*few, "--device", "cuda")
    assert "bundled, predicted for a CUDA device" in said and "give --available GIB to see what fits" in said
    assert "the device has" not in said and "largest budget" not in said
    assert "the largest budget that fits" in run(*few, "--device", "cuda", "--available", 80)
    assert "--out needs --available GIB" in run(*few, "--device", "cuda", "--out", tmp_path / "m.json", code=1)
    assert not (tmp_path / "m.json").exists()
    assert "unknown device 'gpu', expected for example cpu or cuda" in run(*few, "--device", "gpu", code=1)


def test_a_prediction_says_what_it_is_for_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 80)
    options = ["memory", "--model", "llada-8b-shaped", "--drafts", "0,16", "--available", "32", "--batch", "1,16"]
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
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--context-length=-5"], "--context-length must be at least 1, got -5"),
        (["--drafts=-3"], "--drafts must be at least 0, got -3"),
        (["--available", "0"], "--available must be above 0 GiB, got 0"),
        (["--available=-1"], "--available must be above 0 GiB, got -1"),
        (["--model", "llada-9b-shaped"], "unknown shape 'llada-9b-shaped', expected one of llada-8b-shaped, "),
    ],
)
def test_loads_that_are_none_are_refused(arguments: list[str], expected: str) -> None:
    assert expected in run(*arguments, code=1)
