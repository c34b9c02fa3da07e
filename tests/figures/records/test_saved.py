from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from figures import draw as drawing
from figures.draw import draw_all
from figures.records.calibration_size import load_calibration_size
from figures.records.divergence import load_divergence
from figures.records.latency import load_latency
from figures.records.record import FigureDataError, save_record
from figures.records.saved import FigureWarning, kind_of, saved_files, stem
from figures.records.study import load_study
from tests.support import saved_inputs

MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "size.json": saved_inputs.calibration_size,
    "h200.json": saved_inputs.latency,
    "best.budget.json": saved_inputs.budget,
}


@pytest.fixture
def names_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: what is asked here is which figures come, and where."""

    def save(figure: object, path: Path, table: Any) -> list[Path]:
        assert table.rows
        return [path]

    monkeypatch.setattr(drawing, "save_figure", save)


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A directory with one file of each kind, and some that nothing is drawn of."""
    for name, make in MAKERS.items():
        saved_inputs.write(tmp_path / name, make())
    saved_inputs.write(tmp_path / "results.json", saved_inputs.ablation("domain"))
    saved_inputs.write(tmp_path / "study.json", saved_inputs.study())
    saved_inputs.write(tmp_path / "front.json", saved_inputs.pareto("query_tokens"))
    saved_inputs.write(tmp_path / "config.json", {"model": "bundled"})
    saved_inputs.write(tmp_path / "graph.json", {"format_version": 1, "nodes": []})
    compare = {"format": "draftgraph-compare", "version": 1, "config": {"command": "compare"}, "rows": [{"first": "a"}]}
    saved_inputs.write(tmp_path / "compared.json", compare)
    return tmp_path


def test_a_directory_is_drawn_whole_and_a_file_alone(everything: Path, names_only: None) -> None:
    folder = everything / "figures"
    assert draw_all(everything) == [
        folder / name
        for name in (
            "domain_matrix-greedy", "optuna", "speedup-best", "pareto-front", "latency-h200", "calibration_size-size",
        )
    ]  # fmt: skip
    assert draw_all(everything / "h200.json") == [everything / "h200-figures" / "latency-h200"]
    assert draw_all(str(everything / "study.json")) == [folder / "optuna"]


@pytest.mark.parametrize(
    ("study", "figures"),
    [
        ("method", ["nfe_vs_budget", "accepted_drafts_vs_budget"]),
        ("accumulation", ["nfe_vs_budget", "accepted_drafts_vs_budget"]),
        ("policy", ["ablation-policy"]),
        ("temperature", ["ablation-temperature"]),
        ("block-length", ["ablation-block-length"]),
    ],
)
def test_each_ablation_has_its_figures(tmp_path: Path, names_only: None, study: str, figures: list[str]) -> None:
    saved_inputs.write(tmp_path / "results.json", saved_inputs.ablation(study))
    assert [path.name for path in draw_all(tmp_path)] == figures


def test_a_run_is_drawn_from_its_file_too(run_directory: Path, names_only: None) -> None:
    assert draw_all(run_directory / "results.json") == draw_all(run_directory)


def test_files_are_written_in_three_forms(tmp_path: Path) -> None:
    file = saved_inputs.write(tmp_path / "h200.json", saved_inputs.latency(4))
    paths = draw_all(file)
    assert [path.name for path in paths] == [f"latency-h200.{kind}" for kind in ("png", "svg", "csv")]
    pixels = imread(paths[0])
    border = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    assert all((edge[..., :3] > 0.99).all() for edge in border)
    before = [path.read_bytes() for path in paths]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(file, elsewhere)
    assert [path.read_bytes() for path in draw_all(elsewhere)] == before


def test_what_cannot_be_drawn_is_said(everything: Path, tmp_path: Path) -> None:
    with pytest.raises(FigureDataError, match=r"compared.json: there is no figure of this kind of file; expected res"):
        draw_all(everything / "compared.json")
    with pytest.raises(FigureDataError, match=r"graph.json: there is no figure of this kind of file"):
        draw_all(everything / "graph.json")
    with pytest.raises(FigureDataError, match="expected a run directory, found no directory there, and no file"):
        draw_all(everything / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FigureDataError, match=r"nothing to draw in it; expected results\.json of"):
        draw_all(empty)


def test_a_foreign_file_is_passed_over_but_a_broken_run_is_not(everything: Path, names_only: None) -> None:
    (everything / "broken.json").write_text("{")
    with pytest.warns(FigureWarning, match=r"broken.json: text: expected JSON.*: not drawn"):
        assert len(draw_all(everything)) == 6
    with pytest.raises(FigureDataError, match=r"broken\.json: text: expected JSON"):
        draw_all(everything / "broken.json")
    (everything / "broken.json").unlink()
    (everything / "results.json").write_text("{")
    with pytest.raises(FigureDataError, match=r"results\.json: text: expected JSON"):
        draw_all(everything)
    (everything / "results.json").write_text('{"format": "theirs"}')
    with pytest.raises(FigureDataError, match=r'results\.json: format: expected "draftgraph-results", found "theirs"'):
        draw_all(everything)


def test_nothing_is_written_when_one_file_is_wrong(everything: Path) -> None:
    payload = saved_inputs.latency()
    payload["unit"] = "s"
    saved_inputs.write(everything / "h200.json", payload)
    with pytest.raises(FigureDataError, match=r"h200\.json: unit"):
        draw_all(everything)
    assert not (everything / "figures").exists()


COMMITTED = sorted((Path(__file__).parents[3] / "docs" / "results").glob("*.json"))
LOADERS: dict[str, Callable[[Path], Any]] = {
    "calibration-size": load_calibration_size, "divergence": load_divergence, "latency": load_latency,
    "study": load_study,
}  # fmt: skip


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.name)
def test_the_committed_results_are_read_and_written_again(file: Path, tmp_path: Path) -> None:
    """The class of a file holds all of it: what is read and written again is the same, field for field."""
    content = json.loads(file.read_text())
    kind = kind_of(content)
    assert kind is not None
    record = LOADERS[kind](file)
    save_record(record, tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert LOADERS[kind](tmp_path / "again.json") == record
    for name in content.keys() - {"config", "tool_version"}:
        assert _without_none(again[name]) == _without_none(content[name]), name


def _without_none(value: Any) -> Any:
    """``value`` without fields that are null: a file may leave out what a class has a default for."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def test_kinds_are_told_by_content() -> None:
    assert kind_of(saved_inputs.calibration_size()) == "calibration-size"
    assert kind_of(saved_inputs.ablation("policy")) == "ablation"
    assert kind_of(saved_inputs.study()) == kind_of(saved_inputs.pareto("query_tokens")) == "study"
    assert kind_of(saved_inputs.latency()) == "latency"
    assert kind_of(saved_inputs.budget()) == "budget"
    assert kind_of({"format": "draftgraph-results", "rows": [{"method": "chain"}]}) == "run"
    assert kind_of({}) is None
    assert kind_of({"format": ["odd"], "rows": "odd"}) is None


def test_main_files_come_first_and_names_say_the_file(everything: Path) -> None:
    assert [file.name for file, _ in saved_files(everything)][:2] == ["results.json", "study.json"]
    assert json.loads((everything / "config.json").read_text())  # there, and not among them
    assert "config.json" not in [file.name for file, _ in saved_files(everything)]
    assert stem("latency", Path("runs/latency.json")) == "latency"
    assert stem("calibration_size", Path("calibration-size.json")) == "calibration_size"
    assert stem("speedup", Path("a b.budget.json")) == "speedup-a-b"
    assert stem("optuna", Path("study.json")) == "optuna"
