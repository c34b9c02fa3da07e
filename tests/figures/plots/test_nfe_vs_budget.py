from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from figures.canvas.style import BACKDROP, METHOD_STYLES
from figures.plots.curves import Curve, curves, table_nfe_vs_budget
from figures.plots.nfe_vs_budget import draw_nfe_vs_budget, headline
from figures.plots.verdicts import verdict
from figures.records.run import FigureDataError, Run, load_run
from tests.figures.conftest import Change
from tests.support.overlaps import assert_legible
from tests.support.synthetic_run import BUDGETS

METRICS = ("nfe_reduction", "accepted_drafts")


def artist(axes: Axes, gid: str) -> Any:
    found = [item for item in axes.get_children() if item.get_gid() == gid]
    assert len(found) == 1, gid
    return found[0]


def points(run: Run, metric: str, **wanted: object) -> tuple[list[int], list[float]]:
    """What the rows say, plain decoding first."""
    policy, split = wanted["policy"], wanted["split"]
    rows = run.select(method="plain", policy=policy, split=split)
    rows += sorted(run.select(**wanted), key=lambda row: row.budget)
    return [row.budget for row in rows], [getattr(row, metric) for row in rows]


@pytest.mark.parametrize("metric", METRICS)
def test_lines_markers_and_bands_carry_the_rows(run: Run, metric: str) -> None:
    figure = draw_nfe_vs_budget(run, metric)  # type: ignore[arg-type]
    assert len(figure.axes) == 2
    for axes, policy in zip(figure.axes, ("static:1", "threshold:0.9"), strict=True):
        for method in ("chain", "greedy"):
            line = artist(axes, f"{method}/test")
            budgets, values = points(run, metric, method=method, policy=policy, split="test")
            assert (list(line.get_xdata()), list(line.get_ydata())) == (budgets, values)
            assert line.get_color() == METHOD_STYLES[method].colour
            markers = artist(axes, f"{method}/test/verified")
            assert list(markers.get_xdata()) == [0, 3, 5, 8, 10]
            assert markers.get_marker() == METHOD_STYLES[method].marker
            replayed = artist(axes, f"{method}/test/replayed")
            assert list(replayed.get_xdata()) == [16, 32]
            assert replayed.get_markerfacecolor() == "white"
            rows = run.select(method=method, policy=policy, split="test")
            band = artist(axes, f"{method}/test/band").get_paths()[0].get_extents()
            assert band.y0 == pytest.approx(min(getattr(row, f"{metric}_low") for row in rows))
            assert band.y1 == pytest.approx(max(getattr(row, f"{metric}_high") for row in rows))
            last = points(run, metric, method=method, policy=policy, split="test")[1][-1]
            end = next(text for text in axes.texts if text.get_gid() == f"{method}/end")
            assert end.get_text().rstrip("×") == f"{last:.2f}"


@pytest.mark.parametrize("metric", METRICS)
def test_methods_that_say_little_are_one_grey_line_without_marks(run: Run, metric: str) -> None:
    axes = draw_nfe_vs_budget(run, metric).axes[0]  # type: ignore[arg-type]
    line = artist(axes, "tree_greedy/test")
    assert line.get_color() == BACKDROP
    gids = {str(item.get_gid()) for item in axes.get_children()}
    assert not {gid for gid in gids if gid.startswith("tree_greedy/test/") or gid.startswith("tree_greedy/end")}


def test_methods_with_the_same_points_are_one_line(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        greedy = [row for row in payload["rows"] if row["method"] == "greedy"]
        payload["rows"] += [row | {"method": "exact", "graph": None} for row in greedy]
        payload["rows"] += [row | {"method": "cut", "graph": None} for row in greedy]

    figure = draw_nfe_vs_budget(load_run(changed(change)))
    gids = {str(item.get_gid()) for item in figure.axes[0].get_children()}
    assert "greedy/test" in gids
    assert not {"exact/test", "cut/test"} & gids
    entries = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "greedy = exact = minimum cut" in entries
    assert_legible(figure)


@pytest.mark.parametrize("metric", METRICS)
def test_only_held_out_values_stand_in_a_panel(run: Run, metric: str) -> None:
    # The bound holds for the search prompts; beside held-out values it would look violated.
    figure = draw_nfe_vs_budget(run, metric)  # type: ignore[arg-type]
    for axes in figure.axes:
        gids = {str(item.get_gid()) for item in axes.get_children()}
        assert not {gid for gid in gids if "/search" in gid or "lp_bound" in gid}
    note = figure.texts[1].get_text().replace("\n", " ").replace("\u00a0", " ")
    said = "On the search prompts the best graph of every budget reaches at least 98 % of the bound"
    assert (said in note) == (metric == "accepted_drafts")
    table = table_nfe_vs_budget(run, metric)  # type: ignore[arg-type]
    assert ("lp_bound" in table.column("method")) == (metric == "accepted_drafts")
    assert set(table.column("split")) == {"search", "test"}


def test_a_run_without_test_prompts_shows_search_prompts_and_says_so(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["split"] == "search"]

    figure = draw_nfe_vs_budget(load_run(changed(change)))
    assert artist(figure.axes[0], "greedy/search").get_ydata()[0] == 1.0
    heading = figure.texts[0].get_text().replace("\n", " ").replace("\u00a0", " ")
    assert heading.endswith(", on the search prompts")


def test_the_published_rule_is_drawn_in_the_reading_that_is_best_on_search_prompts(run: Run) -> None:
    axes = draw_nfe_vs_budget(run).axes[0]
    budgets, values = points(
        run, "nfe_reduction", method="published", reading="degree1/all", policy="static:1", split="test"
    )
    line = artist(axes, "published/test")
    assert (list(line.get_xdata()), list(line.get_ydata())) == (budgets, values)


def published(run: Run) -> Curve:
    """The held-out curve of the published rule under static:1."""
    found = curves(run, ("static:1", "dual"), "nfe_reduction")
    return next(curve for curve in found if (curve.method, curve.split) == ("published", "test"))


def test_a_reading_is_never_chosen_on_test_prompts(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        for row in payload["rows"]:
            if (row["reading"], row["split"]) == ("degree0", "test"):
                row |= {"nfe_reduction": 50.0, "nfe_reduction_low": None, "nfe_reduction_high": None}

    curve = published(load_run(changed(change)))
    assert set(curve.readings) == {None, "degree1/all"}
    assert max(curve.values) < 50


def test_readings_are_chosen_for_each_budget(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        for row in payload["rows"]:
            if (row["reading"], row["split"], row["budget"]) == ("degree0", "search", 5):
                row["nfe_reduction"] = 50.0

    curve = published(load_run(changed(change)))
    chosen = dict(zip(curve.budgets, curve.readings, strict=True))
    assert chosen == {0: None, 3: "degree1/all", 5: "degree0"} | dict.fromkeys(BUDGETS[2:], "degree1/all")


def test_without_search_rows_every_reading_is_a_method(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["split"] == "test"]

    run = load_run(changed(change))
    found = {curve.method for curve in curves(run, ("static:1", "dual"), "nfe_reduction")}
    assert found == {"chain", "tree_greedy", "published:degree0", "published:degree1/all", "greedy"}


def test_bounds_that_stand_in_rows_of_graphs_give_the_tightest_line(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["method"] != "lp_bound"]
        for row in payload["rows"]:
            if row["split"] == "search" and row["budget"] in (3, 10):
                row["bound"] = 5.0 + row["budget"] + (row["method"] == "chain")

    run = load_run(changed(change))
    curve = curves(run, ("static:1", "dual"), "accepted_drafts")[-1]
    assert (curve.method, curve.budgets, curve.values) == ("lp_bound", [3, 10], [8.0, 15.0])
    assert "lp_bound" not in {curve.method for curve in curves(run, ("static:1", "dual"), "nfe_reduction")}


@pytest.mark.parametrize("metric", METRICS)
def test_axes_and_legend(run: Run, metric: str) -> None:
    figure = draw_nfe_vs_budget(run, metric)  # type: ignore[arg-type]
    left, right = figure.axes
    label = {
        "nfe_reduction": "NFE reduction (× fewer forwards)",
        "accepted_drafts": "accepted drafts (drafts per anchor)",
    }
    assert left.get_ylabel() == label[metric]
    assert left.get_xlabel() == right.get_xlabel() == "draft budget D (draft nodes per forward)"
    assert left.get_xscale() == "linear"
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    low, high = left.get_ylim()
    drawn = [value for axes in figure.axes for line in axes.get_lines() for value in line.get_ydata()]
    assert low < min(drawn)
    assert max(drawn) < high
    assert left.get_xlim()[0] < 0
    assert left.get_xlim()[1] > BUDGETS[-1]
    assert [int(tick) for tick in sorted(left.get_xticks())] == [0, *BUDGETS]
    entries = [text.get_text() for legend in reversed(figure.legends) for text in legend.get_texts()]
    expected = ["confidence chain", "published rule", "greedy", "tree greedy"]
    assert entries == [*expected, "verified by decoding", "replay only", "95 % interval"]
    assert left.get_title(loc="left") == "static:1"


@pytest.mark.parametrize("metric", METRICS)
def test_every_text_is_legible_and_no_legend_lies_over_data(run: Run, metric: str) -> None:
    figure = draw_nfe_vs_budget(run, metric)  # type: ignore[arg-type]
    assert_legible(figure)
    for legend in figure.legends:
        for axes in figure.axes:
            assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_the_table_is_what_the_rows_say(run: Run) -> None:
    table = table_nfe_vs_budget(run)
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    # Four methods, two splits, two policies; six budgets and the shared point of plain decoding.
    assert len(lines) == 4 * 2 * 2 * (len(BUDGETS) + 1)
    for line in lines:
        method = "plain" if line["budget"] == "0" else line["method"]
        rows = run.select(
            method=method, policy=line["policy"], split=line["split"], budget=int(line["budget"]),
            reading=line["reading"] or None if method != "plain" else None,
        )  # fmt: skip
        assert len(rows) == 1
        assert float(line["value"]) == rows[0].nfe_reduction
        assert line["low"] == ("" if rows[0].nfe_reduction_low is None else repr(rows[0].nfe_reduction_low))
        assert line["verified"] == str(rows[0].forwards_measured is not None)


def compare(*verdicts: tuple[int, float, bool], first: str = "greedy", second: str = "chain") -> Change:
    """A change that leaves the panel static:1 and these paired comparisons: (budget, difference, distinguishable)."""

    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["policy"] == "static:1"]
        payload["comparisons"] = [
            {"policy": "static:1", "budget": budget, "first": first, "second": second, "difference": difference,
             "low": difference - 0.1, "high": difference + 0.1, "distinguishable": told}
            for budget, difference, told in verdicts
        ]  # fmt: skip

    return change


def test_the_headline_counts_what_the_prompts_can_tell_apart(changed: Callable[..., Path]) -> None:
    # By value greedy is ahead at all three budgets; the paired comparison can tell at two.
    run = load_run(changed(compare((3, 0.01, False), (5, 0.3, True), (8, 0.5, True))))
    assert headline(run, "nfe_reduction") == (
        "Calibrated graphs need fewer forwards than the confidence chain at 2 of 3 budgets"
    )


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (
            [(3, 0.3, True), (5, 0.3, True)],
            "Calibrated graphs need fewer forwards than the confidence chain at every budget",
        ),
        ([(3, 0.3, False)], "No calibrated graph is shown to need fewer forwards than the confidence chain"),
        (
            [(3, -0.3, True), (5, 0.1, False)],
            "No calibrated graph is shown to need fewer forwards than the confidence chain; the chain needs fewer at "
            "1 of 2 budgets",
        ),
        (
            [(3, -0.3, True), (5, 0.3, True)],
            "Calibrated graphs need fewer forwards than the confidence chain at 1 of 2 budgets, more at 1 of 2 budgets",
        ),
    ],
)  # fmt: skip
def test_headlines_follow_the_comparisons(changed: Callable[..., Path], verdicts: Any, said: str) -> None:
    assert headline(load_run(changed(compare(*verdicts))), "nfe_reduction") == said


def test_the_other_order_of_a_comparison_says_the_same(changed: Callable[..., Path]) -> None:
    run = load_run(changed(compare((3, -0.3, True), first="chain", second="greedy")))
    assert headline(run, "nfe_reduction").endswith("fewer forwards than the confidence chain at every budget")


def test_without_comparisons_nothing_is_concluded(changed: Callable[..., Path]) -> None:
    run = load_run(changed(compare()))
    text = headline(run, "nfe_reduction")
    assert text.startswith("static:1, D = 32: NFE reduction 3.")
    assert "confidence chain" in text
    assert "fewer" not in text


def test_degree_1_readings_are_judged_under_fixed_steps_only(run: Run) -> None:
    both = verdict(run, run.panels())
    assert both == (
        "Calibrated graphs need fewer forwards than the confidence chain in 11 of 12 cases, and than the published "
        "rule in 5 of 6 cases"
    )
    under = [panel for panel in run.panels() if panel[0] == "threshold:0.9"]
    assert "published" not in verdict(run, under)
    note = draw_nfe_vs_budget(run).texts[1].get_text().replace("\n", " ")
    assert "not judged under threshold:0.9" in note


def test_few_prompts_conclude_nothing(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        for row in payload["rows"]:
            if row["split"] == "test":
                row["prompts"] = 1

    figure = draw_nfe_vs_budget(load_run(changed(change)))
    heading, note = (text.get_text().replace("\n", " ").replace("\u00a0", " ") for text in figure.texts[:2])
    assert heading == "Only 1 held-out (test) prompt: too few to conclude anything"
    assert "On 1 held-out (test) prompt." in note
    assert not [text for axes in figure.axes for text in axes.texts if text.get_gid() == "verdict"]


def test_one_policy_without_intervals_or_search_rows(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        rows = [row for row in payload["rows"] if row["policy"] == "static:1" and row["split"] == "test"]
        payload["rows"] = [
            row | {"nfe_reduction_low": None, "nfe_reduction_high": None} for row in rows if row["budget"] <= 10
        ]

    figure = draw_nfe_vs_budget(load_run(changed(change)))
    assert len(figure.axes) == 1
    entries = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert entries == ["confidence chain", "published, degree0", "published, degree1/all", "greedy = tree greedy"]
    assert_legible(figure)


def test_many_policies_and_contexts_get_a_panel_each(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        rows = [row for row in payload["rows"] if row["policy"] == "static:1"]
        payload["rows"] = rows + [row | {"cache": "prefix"} for row in rows]
        payload["rows"] += [row | {"policy": "threshold:0.95", "cache": "block_causal"} for row in rows]

    figure = draw_nfe_vs_budget(load_run(changed(change)))
    titles = [axes.get_title(loc="left").splitlines()[0] for axes in figure.axes if axes.get_visible()]
    assert titles == ["static:1, dual", "static:1, prefix", "threshold:0.95, block_causal"]
    assert_legible(figure)


def test_ticks_that_would_collide_are_left_out(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        rows = [row for row in payload["rows"] if row["method"] in ("plain", "greedy") and row["budget"] in (0, 10)]
        payload["rows"] = [row for row in rows if row["budget"] == 0]
        payload["rows"] += [row | {"budget": b} for row in rows if row["budget"] for b in range(1, 65)]

    figure = draw_nfe_vs_budget(load_run(changed(change)))
    ticks = sorted(figure.axes[0].get_xticks())
    assert ticks[0] == 0
    assert ticks[-1] == 64
    assert 8 <= len(ticks) < 25
    assert_legible(figure)


def test_nothing_to_plot(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["method"] == "plain"]

    run = load_run(changed(change))
    with pytest.raises(FigureDataError, match="no search or test rows but plain decoding's"):
        draw_nfe_vs_budget(run)
    with pytest.raises(ValueError, match="metric must be one of nfe_reduction, accepted_drafts, got 'speed'"):
        draw_nfe_vs_budget(run, "speed")  # type: ignore[arg-type]
