"""``decode --drafter informed``: the tokens of plain decoding in fewer forwards, and options that go together."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import run


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("cache", ["dual", "block_causal"])
def test_informed_drafts_change_no_token(checkpoint: Path, prompts: Path, tmp_path: Path, cache: str) -> None:
    common = ["--model", checkpoint, "--prompts", prompts, "--policy", "static:1", "--block-length", 8]
    common += ["--generation-length", 16, "--cache", cache, "--batch-size", 3]
    run("decode", *common, "--out", tmp_path / "plain.jsonl")
    run("decode", *common, "--drafter", "informed", "--drafts", 6, "--out", tmp_path / "informed.jsonl")
    plain, informed = lines(tmp_path / "plain.jsonl"), lines(tmp_path / "informed.jsonl")
    assert [line["tokens"] for line in informed] == [line["tokens"] for line in plain]
    assert sum(line["forwards"] for line in informed) < sum(line["forwards"] for line in plain)
    assert informed[0]["run"]["informed_drafts"] == 6 and plain[0]["run"]["informed_drafts"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drafter", "oracle"], 'unknown drafter "oracle", expected graph or informed'),
        (["--drafter", "graph"], "--drafter graph needs the graph; give --graph FILE"),
        (["--drafts", "3"], "--drafts belongs to --drafter informed; a graph holds its own number of drafts"),
        (["--drafter", "informed", "--graph", "g.json"], "--drafter informed needs no graph; leave --graph out"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], message: str, tmp_path: Path) -> None:
    assert message in run("decode", *options, "--out", tmp_path / "out.jsonl", code=1)
