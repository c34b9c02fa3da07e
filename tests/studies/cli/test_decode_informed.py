"""``decode --drafter informed``: the tokens of plain decoding in fewer forwards, and options that go together."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import run
from verify.drafters.file import DrafterFile, save_drafter
from verify.drafters.settings import InformedSettings
from verify.graph.validity import Validity


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
    made = informed[0]["run"]["drafter"]
    assert (made["drafter"], made["drafts"], made["file"]) == ("informed", 6, None)
    assert plain[0]["run"]["drafter"] is None


def test_a_tuned_drafter_is_run_with_what_it_was_tuned_for(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    nodes = (((1, 1),), ((2, 1),), ((1, 2),))
    made_for = Validity(checkpoint.name, None, "static:1", 8, "dual", 0.0, 2)
    settings = InformedSettings(fill="graph+alternatives", hedges=1)
    save_drafter(DrafterFile(6, settings, nodes, made_for), tmp_path / "tuned.json")
    common = ["decode", "--model", checkpoint, "--prompts", prompts, "--generation-length", 16]
    run(*common, "--drafter", tmp_path / "tuned.json", "--out", tmp_path / "tuned.jsonl")
    run(*common, "--policy", "static:1", "--block-length", 8, "--out", tmp_path / "plain.jsonl")
    plain, tuned = lines(tmp_path / "plain.jsonl"), lines(tmp_path / "tuned.jsonl")
    assert [line["tokens"] for line in tuned] == [line["tokens"] for line in plain]
    assert sum(line["forwards"] for line in tuned) < sum(line["forwards"] for line in plain)
    facts = tuned[0]["run"]
    assert (facts["policy"], facts["block_length"], facts["cache"], facts["top_j"]) == ("static:1", 8, "dual", 2)
    assert facts["drafter"]["hedges"] == 1 and facts["drafter"]["file"] == str(tmp_path / "tuned.json")
    said = run(*common, "--drafter", tmp_path / "tuned.json", "--cache", "none", "--out", tmp_path / "x.jsonl", code=1)
    assert "cache: the drafter was tuned for 'dual', the run has 'none'" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drafter", "oracle"], 'unknown drafter "oracle", expected graph, informed, or a file (FILE.json)'),
        (["--drafter", "graph"], "--drafter graph needs the graph; give --graph FILE"),
        (["--drafts", "3"], "--drafts belongs to --drafter informed; a file holds its own number of drafts"),
        (["--drafter", "informed", "--graph", "g.json"], "--drafter informed needs no graph; leave --graph out"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], message: str, tmp_path: Path) -> None:
    assert message in run("decode", *options, "--out", tmp_path / "out.jsonl", code=1)
