"""``compare``, ``cross-validate`` and ``calibration-size``, from trace folders to one clear sentence."""

import json
from pathlib import Path

import pytest

from calibrate.traces.table import read_traces
from drafting.anchors import AnchorTable
from drafting.replay import replay
from tests.support.command_line import run
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.graph.file import load_graph

LENGTH = 10


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("splits")
    return [
        write_folder(toy_traces(seed, prompts=24, blocks=2, length=LENGTH, noise=0.2), root / name)
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
    assert "was found on these very prompts and looks too good here" in said


def test_compare_refuses_what_does_not_fit(folders: list[Path], graphs: list[Path], tmp_path: Path) -> None:
    other = write_folder(toy_traces(5, prompts=4, length=LENGTH), tmp_path / "other", model="another")
    assert "does not fit the traces in" in run("compare", *graphs, "--traces", other, code=1)
    one = write_folder(toy_traces(5, prompts=1, length=LENGTH), tmp_path / "one")
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
    said = run("calibration-size", folders[0], "--test", folders[2], "--budgets", 6, "--draws", 3, "--out", out)
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


def test_evaluate_and_compare_say_that_a_prompt_was_searched(
    folders: list[Path], graphs: list[Path], tmp_path: Path
) -> None:
    """Until prompts had hashes of their own, only the very same trace was found out, and only by compare."""
    note = "large.json was found on these very prompts and looks too good here; give traces of prompts that no search"
    assert note in run("evaluate", *graphs, "--traces", folders[0])
    # The same prompts in another recording, and beside others.
    seen, unseen = read_traces(folders[0]), toy_traces(11, prompts=24, blocks=2, length=LENGTH, noise=0.2)
    hashes = [*seen.metadata["prompt_hashes"][:2], *unseen.metadata["prompt_hashes"][2:]]
    mixed = write_folder(unseen, tmp_path / "mixed", prompt_hashes=hashes)
    for command in (["evaluate"], ["compare"]):
        said = run(*command, *graphs, "--traces", mixed)
        assert "large.json was found on 2 of these 24 prompts and looks too good here" in said
        assert "small.json was found on 2 of these 24 prompts and looks too good here" in said
        assert "Note:" not in run(*command, *graphs, "--traces", folders[2])
    bare = tmp_path / "bare.json"
    graph = json.loads(graphs[0].read_text())
    del graph["provenance"]["searched_prompts"]
    bare.write_text(json.dumps(graph))
    said = run("evaluate", bare, "--traces", folders[2])
    assert "bare.json does not name the prompts that it was found on; these prompts may be among them." in said


def test_a_prompt_recorded_twice_counts_once_where_prompts_are_cut(folders: list[Path], tmp_path: Path) -> None:
    found = read_traces(folders[0])
    hashes = found.metadata["prompt_hashes"]
    twice = write_folder(found, tmp_path / "twice", prompt_hashes=[*hashes[:20], *hashes[:4]])
    said = run("cross-validate", twice, "--budgets", "4", "--folds", 3)
    assert "4 prompts were left out: the recording holds the same token ids twice." in said
    assert "static:1, 20 prompts" in said
