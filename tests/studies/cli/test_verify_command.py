"""``verify``: what it promises in float32, and what it reports in lower precision."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calibrate.models.checkpoint import load_checkpoint
from figures.records.divergence import load_divergence
from studies.cli.options import dtype_name
from studies.divergence import arms
from studies.divergence.arms import ArmRun
from studies.divergence.file import csv_path
from tests.support.command_line import run
from tests.support.divergence_toys import ShapedNoise
from verify.graph.file import load_graph, save_graph

SIZES = ["--block-length", "8", "--generation-length", "16", "--top-j", "4"]


@pytest.fixture(scope="module")
def graph(checkpoint: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    run("record", "--model", checkpoint, "--prompts", prompts, "--policy", "static:1", *SIZES, "--out", folder / "t")
    run("search", folder / "t", "--budget", 4, "--out", folder / "graph.json")
    return folder / "graph.json"


@pytest.fixture
def command(graph: Path, checkpoint: Path, prompts: Path) -> list[object]:
    return ["verify", graph, "--model", checkpoint, "--prompts", prompts, "--generation-length", 16]


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the command load the same model with noise that depends on the shape of a forward."""

    def install(**noise: float) -> None:
        def load(*args: Any, **kwargs: Any) -> Any:
            return replace(load_checkpoint(*args, **kwargs), denoiser=ShapedNoise(**noise))

        monkeypatch.setattr("calibrate.models.checkpoint.load_checkpoint", load)

    return install


def test_float32_compares_speculation_alone_unless_asked(command: list[object]) -> None:
    said = run(*command)
    assert "8 of 8" in said and "exact: prefix and suffix are cached" in said and "batch" not in said
    said = run(*command, "--divergence", "--batch-size", 3)
    assert (
        "In float32 speculation changes the tokens of 0 of 8 prompts, batching alone (batch 3 against 1) of 0" in said
    )


def test_bfloat16_is_measured(command: list[object], tmp_path: Path) -> None:
    """Whatever a machine's bfloat16 gives: it is reported in whole, and is no error."""
    out = tmp_path / "new" / "found.json"
    said = run(*command, "--dtype", "bf16", "--batch-size", 4, "--out", out)
    found = json.loads(out.read_text())
    assert "exact in float32, measured in bfloat16" in said
    assert found["sentence"] in said and found["config"]["dtype"] == "bfloat16" and found["config"]["batch"] == 4
    assert [arm["arm"] for arm in found["arms"]] == ["repeat", "batch", "blank", "drafts"]
    assert all(arm["prompts"] == 8 and 0 <= arm["tokens_differ"] <= arm["path_parts"] <= 8 for arm in found["arms"])
    assert found["arms"][0]["path_parts"] == 0  # a CPU repeats itself
    rows = list(csv.DictReader(csv_path(out).open()))
    assert len(rows) == len(found["divergences"]) == sum(arm["path_parts"] for arm in found["arms"])
    assert load_divergence(out).prompts == 8
    assert "exists; give another --out" in run(*command, "--dtype", "bf16", "--out", out, code=1)
    drawn = run("plot", out)
    assert "divergence-found.png" in drawn


def test_where_tokens_part_is_listed(command: list[object], noisy: Any, tmp_path: Path) -> None:
    noisy(of_rows=0.5)
    out = tmp_path / "found.json"
    said = run(*command, "--dtype", "bfloat16", "--out", out)
    found = json.loads(out.read_text())
    changed = [divergence for divergence in found["divergences"] if divergence["tokens_differ"]]
    assert changed and {divergence["arm"] for divergence in changed} == {"blank", "drafts"}
    assert "where decodes with other tokens part first" in said
    assert "No decode parted at a margin above" in said
    first = changed[0]
    assert f"{first['block']} {first['step']} {first['position']} {first['kind']}" in said


@pytest.mark.parametrize(
    ("noise", "expected"),
    [({"of_rows": 0.5}, "blank drafts; speculation"), ({"of_batch": 0.5}, "plain, batch 8")],
)
def test_in_float32_a_parting_is_a_broken_promise(
    command: list[object], noisy: Any, noise: dict[str, float], expected: str
) -> None:
    noisy(**noise)
    assert f"not identical ({expected})" in run(*command, "--divergence", code=3)
    assert "speculation changes" in run(*command, "--dtype", "fp16", "--divergence")  # said of the same numbers


def test_other_forwards_are_a_broken_promise_too(command: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    real = arms.run_arm

    def one_more(*args: Any, **kwargs: Any) -> ArmRun:
        found = real(*args, **kwargs)
        found.results[0].forwards += 1
        return found

    monkeypatch.setattr(arms, "run_arm", one_more)
    said = run(*command, code=3)
    assert "not identical (forwards:" in said and "8 of 8" in said


def test_a_near_lossless_mode_promises_plain_decoding_only(
    graph: Path, checkpoint: Path, prompts: Path, noisy: Any, tmp_path: Path
) -> None:
    file = load_graph(graph)
    prefix = tmp_path / "prefix.json"
    save_graph(replace(file, validity=replace(file.validity, cache="prefix")), prefix)
    command = ["verify", prefix, "--model", checkpoint, "--prompts", prompts, "--generation-length", 16]
    noisy(of_rows=0.5, block_length=16)
    said = run(*command)
    assert "near-lossless" in said and "8 of 8" not in said
    assert "not identical (blank drafts)" in run(*command, "--divergence", code=3)


@pytest.mark.parametrize("cache", ["dual", "block_causal"])
def test_informed_drafts_are_verified_and_not_predicted(cache: str, checkpoint: Path, prompts: Path) -> None:
    command = ["verify", "--drafter", "informed", "--drafts", 4, "--model", checkpoint, "--prompts", prompts]
    command += ["--policy", "static:1", "--block-length", 8, "--generation-length", 16, "--cache", cache]
    said = run(*command, "--divergence", "--batch-size", 3)
    assert "8 of 8" in said and "not from plain decodes: these drafts learn from rejected ones" in said
    assert f"--drafter informed --drafts 4: static:1, {cache} cache" in said
    assert "speculation changes the tokens of 0 of 8 prompts" in said


def test_a_drafter_that_gives_other_tokens_is_a_broken_promise(
    checkpoint: Path, prompts: Path, noisy: Any, tmp_path: Path
) -> None:
    noisy(of_rows=0.5)
    command = ["verify", "--drafter", "informed", "--model", checkpoint, "--prompts", prompts, "--policy", "static:1"]
    command += ["--block-length", 8, "--generation-length", 16]
    assert "not identical (speculation)" in run(*command, code=3)
    out = tmp_path / "found.json"
    run(*command, "--dtype", "bfloat16", "--out", out)
    config = json.loads(out.read_text())["config"]
    assert config["drafter"]["drafter"] == "informed" and config["forwards_predicted"] is None
    assert config["forwards_counted"] > 0


def test_what_is_verified_is_named_once(graph: Path, command: list[object]) -> None:
    assert "there is nothing to verify; give a graph or drafter file" in run("verify", code=1)
    assert "says which drafts there are; leave --drafter" in run(*command, "--drafter", "informed", code=1)
    assert "8 of 8" in run("verify", "--graph", *command[1:])


def test_a_report_nobody_makes_cannot_be_kept(command: list[object], tmp_path: Path) -> None:
    said = run(*command, "--out", tmp_path / "found.json", code=1)
    assert "in float32 there is none without --divergence" in said and not (tmp_path / "found.json").exists()
    assert "one prompt makes no batch to compare with" in run(*command, "--dtype", "bf16", "--limit", 1, code=1)
    assert "1 of 1" in run(*command, "--limit", 1)


def test_short_names_of_dtypes() -> None:
    named = {name: dtype_name(name) for name in ("bf16", "fp16", "fp32", "bfloat16", "float8")}
    assert named == {
        "bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "bfloat16": "bfloat16", "float8": "float8",
    }  # fmt: skip
