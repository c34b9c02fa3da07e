"""``compare``, ``cross-validate``, ``calibration-size`` and ``smooth``, from trace folders to one clear sentence."""

import json
from pathlib import Path

import pytest

from calibrate.traces.table import (
    MANIFEST_NAME,
    TRACE_FORMAT_VERSION,
    Traces,
    read_traces,
    traces_to_table,
    write_shard,
)
from drafting.anchors import AnchorTable
from drafting.replay import replay
from studies.runs.splits import cut_splits, read_splits
from studies.statistics.crossval import SplitError
from tests.support.command_line import run
from tests.support.toy import toy_traces
from verify.graph.file import load_graph

LENGTH = 10


def save(traces: Traces, folder: Path, **facts: object) -> Path:
    folder.mkdir(parents=True)
    metadata = {
        "model": "toy",
        "model_revision": None,
        "dtype": "float32",
        "policy": "static:1",
        "temperature": 0.0,
        "block_length": LENGTH,
        "generation_length": 2 * LENGTH,
        "cache": "dual",
        "top_j": 3,
        "prompts": len(set(traces.prompt_index.tolist())),
        "prompt_set_hash": "0" * 64,
    }
    manifest = {"version": TRACE_FORMAT_VERSION, "run": metadata | facts}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    write_shard(folder / "shard-000000.parquet", traces_to_table(traces))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("splits")
    return [
        save(toy_traces(seed, prompts=24, blocks=2, length=LENGTH, noise=0.2), root / name)
        for seed, name in enumerate(("search", "validation", "test"))
    ]


@pytest.fixture(scope="module")
def graphs(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("graphs")
    paths = [root / "large.json", root / "small.json"]
    for path, budget in zip(paths, (8, 2), strict=True):
        run("search", folders[0], "--budget", budget, "--out", path)
    return paths


def test_compare_says_which_graph_needs_fewer_forwards(folders: list[Path], graphs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "compared.json"
    said = run("compare", *graphs, "--traces", folders[2], "--out", out)
    assert "large.json needs fewer forwards than small.json: the interval leaves zero out (nfe reduction +" in said
    assert "Note:" not in said
    written = json.loads(out.read_text())
    (row,) = written["rows"]
    table = AnchorTable.from_traces(read_traces(folders[2]), None)
    values = [replay(load_graph(path).nodes[1:], table).nfe_reduction for path in graphs]
    assert row["nfe_reduction_first"] == pytest.approx(values[0])
    assert row["nfe_reduction_difference"] == pytest.approx(values[0] - values[1])
    low, high = row["nfe_reduction_difference_interval"]
    assert 0 < low < values[0] - values[1] < high
    assert row["distinguishable"] is True
    assert written["config"]["traces"] == [read_traces(folders[2]).trace_hash()]


def test_compare_says_when_it_cannot_tell_and_when_the_traces_were_searched(
    folders: list[Path], graphs: list[Path]
) -> None:
    said = run("compare", graphs[0], graphs[0], "--traces", folders[0])
    assert "cannot be told apart: the interval contains zero (nfe reduction +0.000" in said
    assert "was found on these traces and looks too good here" in said


def test_compare_refuses_what_does_not_fit(folders: list[Path], graphs: list[Path], tmp_path: Path) -> None:
    other = save(toy_traces(5, prompts=4, length=LENGTH), tmp_path / "other", model="another")
    assert "does not fit the traces in" in run("compare", *graphs, "--traces", other, code=1)
    one = save(toy_traces(5, prompts=1, length=LENGTH), tmp_path / "one")
    assert "at least two prompts, got 1; record more prompts" in run("compare", *graphs, "--traces", one, code=1)
    out = tmp_path / "there.json"
    out.write_text("{}")
    said = run("compare", *graphs, "--traces", folders[2], "--out", out, code=1)
    assert "exists; give another --out, or --overwrite" in said


def test_cross_validate_names_the_better_method(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "folds.json"
    said = run("cross-validate", folders[0], "--budgets", "4,8", "--folds", 3, "--out", out)
    assert "Out of fold at D = 8, greedy and chain" in said
    rows = json.loads(out.read_text())["rows"]
    assert [(row["method"], row["budget"]) for row in rows] == [
        (method, budget) for method in ("chain", "greedy") for budget in (4, 8)
    ]
    assert "25 folds need at least 25 prompts, got 24" in run("cross-validate", folders[0], "--folds", 25, code=1)


def test_calibration_size_answers(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "size.json"
    said = run("calibration-size", folders[0], "--held-out", folders[2], "--budgets", 6, "--draws", 3, "--out", out)
    assert "more prompts would help" in said or "More prompts are likely to help" in said
    written = json.loads(out.read_text())
    assert [row["search_prompts"] for row in written["rows"]] == [5, 10, 12, 20, 24]
    assert [row["prompts"] for row in written["rows"]] == [24] * 5
    (answer,) = written["answers"]
    assert (answer["half"], answer["whole"]) == (12, 24)
    assert answer["gain_interval"][0] <= answer["gain_interval"][1]
    assert answer["sentence"] in said
    # Without other traces a third of the prompts is kept apart.
    run("calibration-size", folders[0], "--budgets", 6, "--draws", 2, "--sizes", 8, "--out", out, "--overwrite")
    rows = json.loads(out.read_text())["rows"]
    assert [(row["search_prompts"], row["prompts"]) for row in rows] == [(8, 8), (16, 8)]


def test_smooth_chooses_on_validation_and_judges_on_test(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "smooth.json"
    said = run(
        "smooth", folders[0], "--validation", folders[1], "--test", folders[2], "--budgets", "4,8", "--strengths", "8",
        "--out", out,
    )  # fmt: skip
    assert "24/24/24 search/validation/test prompts" in said
    written = json.loads(out.read_text())
    assert written["sentence"] in said
    assert {row["model"] for row in written["rows"]} == {"raw", "markov", "product"}
    assert "12/6/6 search/validation/test prompts" in run("smooth", folders[0], "--budgets", "4", "--strengths", "8")
    said = run("smooth", folders[0], "--test", folders[2], code=1)
    assert "give both --validation and --test, or neither" in said


def test_a_prompt_on_two_sides_is_found_whatever_the_folder(folders: list[Path], tmp_path: Path) -> None:
    assert "24 of the 24 prompts" in run("calibration-size", folders[0], "--held-out", folders[0], code=1)
    part = save(read_traces(folders[0]).select([3, 7]), tmp_path / "part")
    with pytest.raises(SplitError, match=r"2 of the 2 prompts in .*part stand in .*search too, decoded alike"):
        read_splits([folders[0], part])
    assert [len(table.prompt_indices()) for table in read_splits(folders).tables] == [24, 24, 24]


def test_splits_of_different_runs_are_refused(folders: list[Path], tmp_path: Path) -> None:
    other = save(toy_traces(7, prompts=4, length=LENGTH), tmp_path / "other", policy="threshold:0.9")
    with pytest.raises(SplitError, match=r"was recorded with policy 'threshold:0.9', .*search with 'static:1'"):
        read_splits([folders[0], other])
    other = save(toy_traces(7, prompts=4, length=LENGTH), tmp_path / "coarse", dtype="bfloat16")
    with pytest.raises(SplitError, match=r"was recorded with dtype 'bfloat16', .*search with 'float32'"):
        read_splits([folders[0], other])


def test_one_revision_is_one_model_by_whatever_name(tmp_path: Path) -> None:
    parts = [
        save(toy_traces(seed, prompts=3, length=LENGTH), tmp_path / name, model=name, model_revision="r1")
        for seed, name in enumerate(("here", "there"))
    ]
    assert read_splits(parts).validity.model == "here"
    unnamed = save(toy_traces(5, prompts=3, length=LENGTH), tmp_path / "unnamed", model="there", model_revision=None)
    with pytest.raises(SplitError, match="was recorded with model 'there'"):
        read_splits([parts[0], unnamed])


def test_one_recording_is_cut_by_prompt(folders: list[Path], tmp_path: Path) -> None:
    found = cut_splits(folders[0], (2, 1, 1), seed=3)
    prompt_indices = [set(table.prompt_indices().tolist()) for table in found.tables]
    assert [len(part) for part in prompt_indices] == [12, 6, 6]
    assert set().union(*prompt_indices) == set(range(24))
    assert (found.step_size, found.block_length) == (1, LENGTH)
    few = save(toy_traces(9, prompts=5, length=LENGTH), tmp_path / "few")
    with pytest.raises(SplitError, match="holds 5 prompts, too few for 3 splits of at least two prompts each"):
        cut_splits(few, (2, 1, 1))
