from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from figures.plots.optuna_overview import baseline_values, draw_optuna_overview, table_optuna_overview
from figures.plots.pareto import draw_pareto, fronts, table_pareto
from figures.records.record import FigureDataError
from figures.records.study import StudyFile, load_study
from tests.figures.plots.test_ablation import by_gid, heading
from tests.support import saved_inputs
from tests.support.overlaps import assert_legible


def load(tmp_path: Path, payload: dict[str, Any]) -> StudyFile:
    saved_inputs.write(tmp_path / "study.json", payload)
    return load_study(tmp_path)


def test_the_history_shows_trials_records_and_fixed_graphs(tmp_path: Path) -> None:
    payload = saved_inputs.study()
    figure = draw_optuna_overview(load(tmp_path, payload))
    history, importances, differences = figure.axes
    usual = [t for t in payload["trials"] if t["state"] == "complete" and not t["warm_start"] and t["values"][0] < 0.5]
    dots = by_gid(history, "trial")
    assert list(dots.get_xdata()) == [trial["number"] for trial in usual]
    assert list(dots.get_ydata()) == [trial["values"][0] for trial in usual]
    assert list(by_gid(history, "warm start").get_xdata()) == [0, 1]
    assert list(by_gid(history, "above").get_xdata()) == [7]
    best = by_gid(history, "best")
    records: list[float] = []
    for trial in payload["trials"]:
        if trial["values"]:
            own = trial["values"] if trial["state"] == "complete" else [9.0]  # a pruned trial sets no record
            records.append(min([*records[-1:], *own]))
    assert list(best.get_ydata()) == records
    assert best.get_drawstyle() == "steps-post"
    wanted = {"chain": 0.385, "tree_greedy": 0.367, "published:degree1/all": 0.383, "greedy": 0.363, "exact": 0.364}
    assert baseline_values(load(tmp_path, payload)) == pytest.approx(wanted)  # of the readings, the better one
    for method, value in wanted.items():
        assert by_gid(history, method).get_ydata()[0] == pytest.approx(value)
        label = next(text for text in history.texts if text.get_gid() == f"{method}/label")
        assert label.get_text().endswith(f" {value:.3f}")
    assert history.get_ylabel() == "forwards per denoising step\n(lower is better)"
    assert [bar.get_width() for bar in importances.patches] == pytest.approx([60, 30, 10])
    names = [text.get_text() for text in importances.get_yticklabels()]
    assert names == ["depth discount", "parent bonus", "vocabulary exponent"]
    greedy = saved_inputs.study()["comparisons"]["greedy"]
    assert list(by_gid(differences, "greedy").get_xdata()) == [greedy["difference"]]
    assert list(by_gid(differences, "greedy/band").get_xdata()) == greedy["interval"]
    assert_legible(figure)


def test_doubt_is_drawn_hollow_and_the_verdict_is_the_headline(tmp_path: Path) -> None:
    figure = draw_optuna_overview(load(tmp_path, saved_inputs.study()))
    axes = figure.axes[2]
    assert by_gid(axes, "chain").get_markerfacecolor() == "white"  # its interval contains zero
    assert by_gid(axes, "exact").get_markerfacecolor() != "white"
    assert heading(figure) == (
        "On test prompts Optuna's graph needs fewer forwards than the greedy graph: difference in NFE reduction +0.070 "
        "[+0.030, +0.110]"
    )


def test_an_interval_with_zero_is_no_verdict(tmp_path: Path) -> None:
    payload = saved_inputs.study()
    payload["comparisons"]["greedy"] = saved_inputs.verdict("greedy", 0.01)
    assert heading(draw_optuna_overview(load(tmp_path, payload))) == (
        "On test prompts Optuna's graph cannot be told from the greedy graph: difference in NFE reduction +0.010 "
        "[\N{MINUS SIGN}0.030, +0.050]"
    )
    payload["comparisons"]["greedy"] = saved_inputs.verdict("greedy", 0.07) | {"prompts": 5}
    said = "Only 5 held-out (test) prompts: too few to conclude anything"
    assert heading(draw_optuna_overview(load(tmp_path, payload))) == said


def test_degree_1_readings_are_left_out_where_a_step_commits_several_tokens(tmp_path: Path) -> None:
    payload = saved_inputs.study()
    payload["run"]["policy"] = "threshold:0.9"
    study = load(tmp_path, payload)
    figure = draw_optuna_overview(study)
    names = [text.get_text() for text in figure.axes[2].get_yticklabels()]
    assert names == [f"over {name}" for name in ("confidence chain", "tree greedy", "greedy", "minimum cut", "exact")]
    assert not [text for text in figure.axes[0].texts if "published" in text.get_text()]
    assert "Degree-1 readings of the published rule" in figure.texts[1].get_text().replace("\n", " ")
    assert not [row for row in table_optuna_overview(study).rows if "degree1" in str(row[1]) and row[0] != "trial"]
    assert_legible(figure)


def test_a_short_study_is_drawn_without_importances_and_comparisons(tmp_path: Path) -> None:
    payload = saved_inputs.study() | {"importances": [], "comparisons": {}, "baselines": []}
    payload["trials"] = payload["trials"][:2]
    figure = draw_optuna_overview(load(tmp_path, payload))
    assert len(figure.axes) == 1
    assert heading(figure) == "2 trials took the best value on the folds from 0.3900 to 0.3790"
    assert_legible(figure)


def test_the_overview_table_holds_all_panels(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(table_optuna_overview(load(tmp_path, saved_inputs.study())).to_csv())))
    kinds = [row["table"] for row in rows]
    assert [kinds.count(kind) for kind in ("trial", "baseline", "importance", "difference")] == [59, 5, 3, 7]
    greedy = next(row for row in rows if (row["table"], row["name"]) == ("difference", "greedy"))
    assert [float(greedy[name]) for name in ("value", "low", "high")] == pytest.approx([0.07, 0.03, 0.11])


def test_the_front_over_rows(tmp_path: Path) -> None:
    payload = saved_inputs.pareto("query_tokens")
    study = load(tmp_path, payload)
    assert list(fronts(study, "test")) == ["chain", "published:degree1/all", "greedy", "optuna"]
    figure = draw_pareto(study)
    for axes, name in zip(figure.axes, ("values", "test_values"), strict=True):
        for method in ("chain", "published:degree1/all", "greedy", "optuna"):
            line = by_gid(axes, method)
            own = [point[name] for point in payload["pareto"] if point["method"] == method]
            assert list(line.get_ydata()) == [tokens for tokens, _ in own]
            assert list(line.get_xdata()) == [rows for _, rows in own]
        assert axes.get_xlabel() == "query tokens per forward pass, L (1 + D)"
    assert len(by_gid(figure.axes[0], "trials").get_xdata()) == 30
    assert figure.axes[0].get_ylabel() == "tokens per forward pass"
    # Higher values on test prompts are not counted as wins: the file holds no paired comparison of these graphs.
    assert heading(figure) == (
        "Tokens per forward pass on test prompts: 2.33 with Optuna's graph, 2.30 with the greedy graph at 288 rows"
    )
    assert_legible(figure)
    rows = list(csv.DictReader(io.StringIO(table_pareto(study).to_csv())))
    assert len(rows) == 2 * 4 * 8
    assert rows[0] == {"split": "validation", "method": "chain", "budget": "1", "x": "64.0", "y": repr(1.6 - 0.3)}


def test_two_domains_without_test_values(tmp_path: Path) -> None:
    study = load(tmp_path, saved_inputs.pareto("domains"))
    figure = draw_pareto(study)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "forwards per denoising step, code"
    assert axes.get_ylabel() == "forwards per denoising step, lists"
    assert list(by_gid(axes, "optuna").get_xdata()) == pytest.approx([0.36, 0.37, 0.38, 0.39])
    assert heading(figure) == (
        "Forwards per denoising step, lists against forwards per denoising step, code: Optuna's front of 4 graphs "
        "beside fixed ones"
    )
    assert "lower and further left" in figure.texts[1].get_text().replace("\n", " ")
    assert_legible(figure)


def test_the_wrong_kind_of_study_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FigureDataError, match="no front of two objectives"):
        draw_pareto(load(tmp_path, saved_inputs.study()))
    with pytest.raises(FigureDataError, match="has no history of best values; draw its front"):
        draw_optuna_overview(load(tmp_path, saved_inputs.pareto("query_tokens")))
    failed = saved_inputs.study()
    for trial in failed["trials"]:
        trial["values"] = []
    with pytest.raises(FigureDataError, match="no trial has a value"):
        draw_optuna_overview(load(tmp_path, failed))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("trials.0.values", [1.0, 2.0], r"trials\[0\].values: expected 1 values, found \[1.0, 2.0\]"),
        ("trials", [], "trials: expected at least one finished trial"),
        ("comparisons.greedy.interval", [1.0], r"comparisons.greedy.interval: expected a list of 2, found \[1.0\]"),
        ("comparisons.greedy.contains_zero", None, "comparisons.greedy.contains_zero: expected true or false"),
        ("baselines.0.forwards", 0, r"baselines\[0\].forwards: expected an integer of at least 1, found 0"),
        ("axes", [{"name": "a", "direction": "up", "unit": "b"}], r"axes\[0\].direction: expected one of minimize"),
        ("pareto", [{"method": "a", "values": [1.0]}], r"pareto\[0\].values: expected a list of 2, found \[1.0\]"),
    ],
)
def test_broken_studies_name_the_place(tmp_path: Path, place: str, value: object, message: str) -> None:
    payload = saved_inputs.study()
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    target: Any = payload
    for part in path:
        target = target[part]
    target[last] = value
    with pytest.raises(FigureDataError, match=message):
        load(tmp_path, payload)
