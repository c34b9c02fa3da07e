"""What commands choose for a checkpoint, what they say about it, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calibrate.traces.table import read_manifest, read_traces
from tests.support.command_line import run
from tests.support.families import save

LENGTH = ["--generation-length", "8", "--top-j", "3"]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: save(family, root / family) for family in ("llada", "dream", "sdar")}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "few.jsonl"
    lines = [json.dumps({"tokens": [3 + (7 * n + k * k) % 45 for k in range(5 + n)]}) for n in range(4)]
    path.write_text("\n".join(lines))
    return path


def manifest(folder: Path) -> dict[str, Any]:
    return read_manifest(folder)["run"]


def test_record_takes_the_blocks_and_the_attention_of_the_checkpoint(
    families: dict[str, Path], few: Path, tmp_path: Path
) -> None:
    said = run("record", "--model", families["sdar"], "--prompts", few, *LENGTH, "--out", tmp_path / "a")
    assert (manifest(tmp_path / "a")["block_length"], manifest(tmp_path / "a")["cache"]) == (4, "block_causal")
    assert "blocks of 4 (the length that sdar was trained for), cache block_causal (the attention that sdar" in said
    command = ["record", "--model", families["sdar"], "--prompts", few, *LENGTH, "--out", tmp_path / "b"]
    assert "sdar was trained for block_causal; leave --cache out" in run(*command, "--cache", "dual", code=1)
    assert "sdar was trained for blocks of 4" in run(*command, "--policy", "low_confidence_static:8/8", code=1)
    assert "(asked for; sdar was trained for 4)" in run(*command, "--block-length", 8)
    assert manifest(tmp_path / "b")["block_length"] == 8


def test_record_takes_the_blocks_that_the_policy_names(families: dict[str, Path], few: Path, tmp_path: Path) -> None:
    command = ["record", "--model", families["llada"], "--prompts", few, *LENGTH, "--policy", "low_confidence:2/4"]
    said = run(*command, "--out", tmp_path / "a")
    assert manifest(tmp_path / "a")["block_length"] == 4
    assert "blocks of 4 (the length that the policy counts its steps for)" in said
    said = run(*command, "--block-length", 8, "--out", tmp_path / "b", code=1)
    assert "counts its steps for blocks of 4, but blocks of 8 are asked for" in said


def test_dreams_own_policies_run_as_in_its_own_loop(families: dict[str, Path], few: Path, tmp_path: Path) -> None:
    command = ["record", "--model", families["dream"], "--prompts", few, *LENGTH, "--out", tmp_path / "a"]
    said = run(*command, "--policy", "confidence_threshold:0.9", code=1)
    assert "Fast-dLLM decodes Dream by another rule" in said and not (tmp_path / "a").exists()
    said = run(*command, "--policy", "maskgit_plus:4")
    assert (manifest(tmp_path / "a")["block_length"], manifest(tmp_path / "a")["cache"]) == (8, "none")
    assert "(the whole answer, as in Dream's own loop)" in said


def test_calibrate_settles_blocks_and_cache_once(families: dict[str, Path], prompts: Path, tmp_path: Path) -> None:
    command = ["calibrate", "--model", families["sdar"], "--prompts", prompts, *LENGTH, "--methods", "greedy"]
    command += ["--budgets", "0,2", "--no-figures", "--ignore-end-tokens"]
    said = run(*command, "--policy", "low_confidence_static:4/4", "--out", tmp_path / "run")
    assert "blocks of 4 (the length that the policy counts its steps for), cache block_causal" in said
    config = json.loads((tmp_path / "run" / "results.json").read_text())["config"]
    assert (config["block_length"], config["cache"], config["policies"]) == (4, "block_causal", ["static:1"])
    facts = manifest(tmp_path / "run" / "traces" / "static-1" / "search")
    assert (facts["block_length"], facts["end_token_ids"]) == (4, [])
    dream = ["calibrate", "--model", families["dream"], *command[3:], "--out", tmp_path / "two"]
    said = run(*dream, "--policy", "maskgit_plus:4", "--policy", "static:1", "--generation-length", 32, code=1)
    assert "the policies of one run need the same blocks and cache" in said and not (tmp_path / "two").exists()


def test_a_decode_says_by_what_rule_it_went(families: dict[str, Path], few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    said = run("decode", "--model", families["sdar"], "--prompts", few, "--generation-length", 8, "--out", out)
    assert "policy threshold:0.9, blocks of 4 (the length that sdar was trained for), cache block_causal" in said
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 4
    for line in lines:
        settings = line["run"]
        assert (settings["model"], settings["policy"], settings["temperature"]) == ("sdar", "threshold:0.9", 0.0)
        assert (settings["block_length"], settings["cache"], settings["generation_length"]) == (4, "block_causal", 8)
        assert (settings["drafter"], settings["seed"], settings["dtype"]) == (None, 0, "float32")


def test_end_tokens_can_be_ignored(checkpoint: Path, few: Path, tmp_path: Path) -> None:
    """The end token is drawn in this many positions, so that some answers stop early, and none with the option."""
    common = ["--model", checkpoint, "--prompts", few, "--temperature", 3, "--policy", "static:1", "--block-length", 4]
    common += ["--generation-length", 40]
    for name, options in (("stops", []), ("goes-on", ["--ignore-end-tokens"])):
        run("decode", *common, *options, "--out", tmp_path / f"{name}.jsonl")
        run("record", *common, *options, "--top-j", 3, "--out", tmp_path / name)
    lengths = {
        name: [len(json.loads(line)["tokens"]) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("stops", "goes-on")
    }
    assert min(lengths["stops"]) < 40 and lengths["goes-on"] == [40] * 4
    assert read_traces(tmp_path / "goes-on").n_steps == 160 > read_traces(tmp_path / "stops").n_steps
    assert manifest(tmp_path / "goes-on")["end_token_ids"] == []
    graph = tmp_path / "graph.json"
    run("search", tmp_path / "goes-on", "--method", "chain", "--budget", 2, "--out", graph)
    command = ["verify", graph, "--model", checkpoint, "--prompts", few, "--generation-length", 40]
    assert "forwards, plain 160" in run(*command, "--ignore-end-tokens")
    assert "forwards, plain 160" not in run(*command)
