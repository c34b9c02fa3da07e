"""``latency`` for several batches and caches, on a shape with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibrate.measuring import latency
from figures.records.latency import load_latency
from tests.support import command_line

TINY = ["--model", "llada-tiny-shaped", "--block-length", 8, "--drafts", "0,2", "--repeats", 3]


def run(*arguments: object, code: int = 0) -> str:
    return command_line.run("latency", *arguments, code=code)


def test_several_tables_go_into_a_folder(tmp_path: Path) -> None:
    said = run(*TINY, "--batch-size", "1,3", "--context-length", "8,24", "--out", tmp_path / "tables")
    found = {path.name: load_latency(path) for path in (tmp_path / "tables").iterdir()}
    assert sorted(found) == [f"batch-{b}-context-{c}.json" for b in (1, 3) for c in (24, 8)]
    for table in found.values():
        assert table.model == "llada-tiny-shaped" and table.query_tokens == (8 * table.batch, 24 * table.batch)
    assert {(table.batch, table.context_length) for table in found.values()} == {(1, 8), (1, 24), (3, 8), (3, 24)}
    assert said.count("x plain") == 4
    again = run(*TINY, "--batch-size", "1,3", "--context-length", "8,24", "--out", tmp_path / "tables", code=1)
    assert "exists; give another --out, or --overwrite" in again


def test_one_table_is_a_file(tmp_path: Path) -> None:
    run(*TINY, "--batch-size", "2", "--context-length", "8", "--out", tmp_path / "one.json")
    assert load_latency(tmp_path / "one.json").batch == 2
    said = run(*TINY, "--batch-size", "1,2", "--out", tmp_path / "one.json", "--overwrite", code=1)
    assert "one.json is a file, but 2 tables need a folder" in said


def test_lists_that_cannot_be_measured_are_refused(tmp_path: Path) -> None:
    for option, given, expected in (
        ("--batch-size", "1,x", "--batch-size: cannot read '1,x' (invalid literal for int() with base 10: 'x'); "
         "expected for example 1,4,16"),
        ("--drafts", "many", "expected for example 0,3,5 or 0-16"),
        ("--batch-size", "0", "--batch-size must be at least 1, got 0"),
        ("--context-length", "0", "--context-length must be at least 1, got 0"),
    ):  # fmt: skip
        assert expected in run(option, given, "--out", tmp_path / "new" / "one.json", code=1)
    assert not (tmp_path / "new").exists()


def test_cuda_graphs_are_for_cuda(tmp_path: Path) -> None:
    said = run(*TINY, "--cuda-graphs", "--out", tmp_path / "one.json", code=1)
    assert "--cuda-graphs needs --device cuda, got --device cpu" in said


def test_what_does_not_fit_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = latency.measure_latency

    def limited(checkpoint, **options):
        if options["batch"] > 1:
            raise MemoryError("the largest batch that fits is 1")
        return measure(checkpoint, **options)

    monkeypatch.setattr(latency, "measure_latency", limited)
    said = run(*TINY, "--batch-size", "1,4", "--context-length", "8", "--out", tmp_path / "tables")
    assert "batch 4, context 8 is left out: the largest batch that fits is 1" in said
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["batch-1-context-8.json"]
    assert "the largest batch" in run(*TINY, "--batch-size", "4", "--out", tmp_path / "one.json", code=1)
    assert not (tmp_path / "one.json").exists()


def test_a_model_that_can_be_both_is_timed_in_the_context_asked_for(tmp_path: Path) -> None:
    few = ["--drafts", "0", "--repeats", 3, "--context-length", 64]
    for cache in ("dual", "block_causal"):
        run("--cache", cache, *few, "--out", tmp_path / f"{cache}.json")
        assert load_latency(tmp_path / f"{cache}.json").cache == cache
    said = run("--cache", "prefix", *few, "--out", tmp_path / "prefix.json", code=1)
    assert "latency is measured with cache dual or block_causal, not 'prefix'" in said
    said = run(*TINY, "--cache", "block_causal", "--out", tmp_path / "no.json", code=1)
    assert "needs block_causal attention, but llada-tiny-shaped was trained for bidirectional" in said


def test_informed_drafts_are_timed_as_wide_as_their_bridges(tmp_path: Path) -> None:
    tiny = ["--model", "sdar-tiny-shaped", "--drafts", "0,2", "--repeats", 3, "--context-length", "8"]
    run(*tiny, "--drafter", "informed", "--out", tmp_path / "wide.json")
    assert load_latency(tmp_path / "wide.json").drafts == (0, 2, 3, 4, 5)
    run(*TINY, "--drafter", "informed", "--context-length", "8", "--out", tmp_path / "dual.json")
    assert load_latency(tmp_path / "dual.json").drafts == (0, 2)
    assert "unknown drafter" in run(*tiny, "--drafter", "chain", "--out", tmp_path / "none.json", code=1)
