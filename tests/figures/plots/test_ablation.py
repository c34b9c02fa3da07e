from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.canvas.style import METHOD_STYLES
from figures.plots.ablation import as_run, usual_budget
from figures.plots.curves import curves
from figures.plots.domain_matrix import FRAME, draw_domain_matrix, matrix, table_domain_matrix
from figures.plots.nfe_vs_budget import draw_nfe_vs_budget
from figures.plots.setting_curves import draw_setting_curves, table_setting_curves
from figures.records.ablation import Ablation, load_ablation
from figures.records.record import FigureDataError
from tests.support import saved_inputs
from tests.support.overlaps import assert_legible


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def make(study: str, change: Any = None) -> Ablation:
        payload = saved_inputs.ablation(study)
        if change is not None:
            change(payload)
        return load_ablation(saved_inputs.write(tmp_path / "results.json", payload))

    return make


def by_gid(axes: Axes, gid: str) -> Any:
    found = [item for item in axes.get_children() if item.get_gid() == gid]
    assert len(found) == 1, gid
    return found[0]


def heading(figure: Figure) -> str:
    return figure.texts[0].get_text().replace("\n", " ").replace("\u00a0", " ")


def test_rows_are_read_as_they_stand(load: Any) -> None:
    found = load("policy")
    payload = saved_inputs.ablation("policy")
    assert (found.study, found.question, found.config) == ("policy", "What?", payload["config"])
    for row, item in zip(found.rows, payload["rows"], strict=True):
        assert vars(row) == {name: item.get(name) for name in vars(row)}
    assert usual_budget(found) == 10
    assert usual_budget(found, 16) == 16
    with pytest.raises(FigureDataError, match="budget 7 was not studied, only 5, 10, 16"):
        usual_budget(found, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p["rows"].append(p["rows"][0]),
            r"rows\[108\]: expected every cell once, found static:1",
        ),
        (lambda p: p["rows"][3].update(study="domain"), "rows of one study, found domain, policy"),
        (lambda p: p["rows"][3].pop("setting"), r'rows\[3\]: expected the field "setting"'),
        (lambda p: p["rows"][3].update(nfe_reduction="2"), r"rows\[3\].nfe_reduction: expected a finite number"),
        (lambda p: p["rows"][3].update(nfe_reduction_low=9.0), r"rows\[3\].nfe_reduction_low: expected at most"),
        (lambda p: p["rows"][3].update(split="train"), r"rows\[3\].split: expected one of search, validation, test"),
        (lambda p: p.update(version=2), "version: expected 1, the only one this release reads, found 2"),
        (lambda p: p.update(rows=[]), "at least one result row, found none"),
    ],
)
def test_broken_studies_name_the_place(load: Any, change: Any, message: str) -> None:
    with pytest.raises(FigureDataError, match=message):
        load("policy", change)


def test_settings_side_by_side_with_an_interval_each(load: Any) -> None:
    study = load("policy")
    figure = draw_setting_curves(study)
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == ["static:1", "static:2", "threshold:0.95", "threshold:0.9", "threshold:0.8", "threshold:0.7"]
    for number, method in enumerate(("chain", "published:degree1/all", "greedy")):
        points = by_gid(axes, f"{method}/points")
        wanted = [saved_inputs.nfe("policy", "", place, number, 10) for place in range(6)]
        assert list(points.get_ydata()) == pytest.approx(wanted)
        assert [round(x) for x in points.get_xdata()] == list(range(6))
        ends = [segment[:, 1].tolist() for segment in by_gid(axes, f"{method}/band").get_segments()]
        assert ends == [pytest.approx([value - 0.15, value + 0.2]) for value in wanted]
    assert by_gid(axes, "greedy/points").get_color() == METHOD_STYLES["greedy"].colour
    assert by_gid(axes, "published:degree1/all/points").get_color() == METHOD_STYLES["published"].colour
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("unmasking policy", "NFE reduction (× fewer forwards)")
    assert heading(figure) == (
        "D = 10: the greedy graph needs 2.90× fewer forwards under static:1, 1.90× under threshold:0.7"
    )
    assert_legible(figure)


@pytest.mark.parametrize(("study", "scale"), [("temperature", "linear"), ("block-length", "log")])
def test_settings_that_are_numbers_stand_at_their_values(load: Any, study: str, scale: str) -> None:
    figure = draw_setting_curves(load(study), budget=16)
    axes = figure.axes[0]
    values = [float(setting) for setting in dict.fromkeys(r["setting"] for r in saved_inputs.ablation(study)["rows"])]
    assert axes.get_xscale() == scale
    assert list(axes.get_xticks()) == values
    line = by_gid(axes, "greedy/line")
    assert list(line.get_xdata()) == values
    band = by_gid(axes, "greedy/band").get_paths()[0].get_extents()
    assert (band.x0, band.x1) == (values[0], values[-1])
    assert band.y1 == pytest.approx(max(line.get_ydata()) + 0.2)
    low, high = axes.get_ylim()
    assert low < 1.0 < band.y1 < high
    assert_legible(figure)


def test_the_table_holds_the_drawn_points(load: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(table_setting_curves(load("temperature")).to_csv())))
    assert len(rows) == 15
    assert {row["budget"] for row in rows} == {"10"}
    assert {row["split"] for row in rows} == {"test"}
    assert float(rows[0]["nfe_reduction"]) == saved_inputs.nfe("temperature", "", 0, 0, 10)


def test_the_matrix_has_every_number_and_the_chain_below(load: Any) -> None:
    study, names = load("domain"), list(saved_inputs.DOMAINS)
    found = matrix(study)
    assert (found.method, found.budget, found.made_on) == ("greedy", 10, names)
    figure = draw_domain_matrix(study)
    axes = figure.axes[0]
    values = {(made, run): saved_inputs.nfe("domain", f"{made} -> {run}", 0, 1, 10) for made in names for run in names}
    written = {(round(t.get_position()[0]), t.get_position()[1]): t.get_text() for t in axes.texts}
    for (made, run), value in values.items():
        column, line = names.index(run), names.index(made)
        assert written[column, line - 0.14] == f"{value:.2f}×"
        assert written[column, line + 0.24] == f"[{value - 0.15:.2f}, {value + 0.2:.2f}]"
    assert written[0, 5.15 - 0.14] == "2.50×"  # the chain on lists
    framed = [patch for patch in axes.patches if patch.get_gid() == "own"]
    assert [(round(p.get_x() + 0.475), round(p.get_y() + 0.46)) for p in framed] == [(n, n) for n in range(5)]
    assert FRAME.lower() == "#e69f00"
    assert [text.get_text() for text in axes.get_xticklabels()] == names
    assert [text.get_text() for text in axes.get_yticklabels()] == [*names, "confidence\nchain"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("run on prompts of", "graph made on")
    assert heading(figure) == (
        "D = 10: graphs made on another domain reach 85 % to 90 %, one made on all domains 95 % to 97 % of the NFE "
        "reduction of those made on the same domain"
    )
    assert_legible(figure)
    table = list(csv.DictReader(io.StringIO(table_domain_matrix(study).to_csv())))
    assert len(table) == 30
    assert [row["made_on"] for row in table[25:]] == [""] * 5
    assert {(row["made_on"], row["run_on"]): float(row["nfe_reduction"]) for row in table[:25]} == values


def test_a_share_of_equal_graphs_is_100_percent(load: Any) -> None:
    def change(payload: dict[str, Any]) -> None:
        for row in payload["rows"]:
            row |= {"nfe_reduction": 2.0, "nfe_reduction_low": None, "nfe_reduction_high": None}

    figure = draw_domain_matrix(load("domain", change))
    assert len([patch for patch in figure.axes[0].patches if patch.get_gid() == "own"]) == 5
    assert "another domain reach 100 %, one made on all domains 100 % of the NFE reduction" in heading(figure)
    assert_legible(figure)


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        (("lists", "code"), "graphs made on another domain reach 89 % to 90 % of the NFE reduction of those made on"),
        (
            ("lists", "all"),
            "one made on all domains reaches 97 % of the NFE reduction of those made on the same domain",
        ),
        (("lists",), "NFE reduction of greedy graphs across domains, D = 10"),
    ],
)
def test_the_heading_says_only_what_was_studied(load: Any, kept: tuple[str, ...], sentence: str) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if {*row["setting"].split(" -> ")} <= {*kept}]

    figure = draw_domain_matrix(load("domain", change))
    assert sentence in heading(figure)
    assert_legible(figure)


def better_on_test(payload: dict[str, Any]) -> None:
    """The published rule is far ahead on test prompts, greedy on the search prompts."""
    for row in payload["rows"]:
        if row["method"].startswith("published") and row["split"] == "test":
            row |= {"nfe_reduction": 9.0, "nfe_reduction_low": None, "nfe_reduction_high": None}


def test_the_best_method_is_not_chosen_on_test_prompts(load: Any) -> None:
    assert "the greedy graph needs" in heading(draw_setting_curves(load("policy", better_on_test)))

    def test_only(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["split"] == "test"]

    with pytest.raises(FigureDataError, match="no rows of search prompts at budget 10, by which one of published"):
        draw_setting_curves(load("policy", test_only))
    assert matrix(load("domain", test_only)).method == "greedy"  # the only calibrated one: nothing is chosen


def test_a_matrix_with_holes_is_an_error(load: Any) -> None:
    def cut(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["setting"] != "code -> stories"]

    with pytest.raises(FigureDataError, match="not finished, it lacks code -> stories for greedy"):
        draw_domain_matrix(load("domain", cut))
    with pytest.raises(FigureDataError, match='expected settings "made on -> run on", found "static:1"'):
        draw_domain_matrix(load("policy"))
    with pytest.raises(FigureDataError, match="no test rows of optuna at budget 10"):
        draw_domain_matrix(load("domain"), "optuna")

    def search_only(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["split"] == "search"]

    with pytest.raises(FigureDataError, match="no rows of test prompts"):
        draw_setting_curves(load("policy", search_only))


def test_the_method_study_is_drawn_like_a_run(load: Any) -> None:
    run = as_run(load("method"))
    assert run.policies() == ["static:1", "threshold:0.9"]
    found = {
        curve.method: curve for curve in curves(run, ("static:1", "dual"), "nfe_reduction") if curve.split == "test"
    }
    assert list(found) == ["chain", "published", "greedy", "cut"]
    assert found["published"].readings == [None, *["degree1/all"] * 3]
    assert found["greedy"].budgets == [0, 5, 10, 16]
    values = [saved_inputs.nfe("method", "", 0, 3, budget) for budget in (5, 10, 16)]
    assert found["greedy"].values == [1.0, *values]
    assert_legible(draw_nfe_vs_budget(run))


def test_methods_with_the_same_values_are_one_line_with_one_label(load: Any) -> None:
    def equal(payload: dict[str, Any]) -> None:
        for row in payload["rows"]:
            if row["method"] in ("published:total/all", "published:total/chosen", "published:degree0"):
                row |= {"nfe_reduction": 3.5, "nfe_reduction_low": 3.0, "nfe_reduction_high": 4.0}

    figure = draw_nfe_vs_budget(as_run(load("accumulation", equal)))
    ends = [text.get_text() for text in figure.axes[0].texts if str(text.get_gid()).endswith("/end")]
    assert sorted(ends) == ["2.81×", "2.96×", "3.50×"]
    entries = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "published, degree0 = published, total/all = published, total/chosen" in entries
    assert heading(figure) == "NFE reduction against draft budget"  # no comparison was saved, so nobody wins
    assert_legible(figure)


def test_the_accumulation_study_keeps_all_readings_apart(load: Any) -> None:
    figure = draw_nfe_vs_budget(as_run(load("accumulation")))
    lines = [item for item in figure.axes[0].get_lines() if str(item.get_gid()).endswith("/test")]
    assert len(lines) == len({line.get_color() for line in lines}) == 5
    entries = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "published, degree1/chosen" in entries
    assert heading(figure) == "NFE reduction against draft budget"
    assert_legible(figure)
