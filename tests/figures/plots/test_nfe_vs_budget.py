from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from figures.canvas.style import METHOD_STYLES
from figures.plots.curves import Curve, curves, table_nfe_vs_budget
from figures.plots.nfe_vs_budget import draw_nfe_vs_budget, headline, statement
from figures.records.run import FigureDataError, Run, load_run
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
        for method in ("chain", "tree_greedy", "greedy"):
            for split in ("search", "test"):
                line = artist(axes, f"{method}/{split}")
                budgets, values = points(run, metric, method=method, policy=policy, split=split)
                assert (list(line.get_xdata()), list(line.get_ydata())) == (budgets, values)
                assert line.get_color() == METHOD_STYLES[method].colour
                assert line.is_dashed() == (split == "search")
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


def test_the_published_rule_is_drawn_in_its_best_reading(run: Run) -> None:
    axes = draw_nfe_vs_budget(run).axes[0]
    budgets, values = points(
        run, "nfe_reduction", method="published", reading="degree1-all", policy="static:1", split="test"
    )
    line = artist(axes, "published/test")
    assert (list(line.get_xdata()), list(line.get_ydata())) == (budgets, values)
    search = artist(axes, "published/search")
    expected = points(
        run, "nfe_reduction", method="published", reading="degree1-all", policy="static:1", split="search"
    )
    assert list(search.get_ydata()) == expected[1]


def test_the_bound_is_drawn_for_accepted_drafts_only(run: Run) -> None:
    bound = artist(draw_nfe_vs_budget(run, "accepted_drafts").axes[0], "lp_bound/search")
    rows = run.select(method="lp_bound", policy="static:1")
    assert list(bound.get_ydata())[1:] == [row.accepted_drafts for row in rows]
    assert bound.get_linestyle() == ":"
    assert not [item for item in draw_nfe_vs_budget(run).axes[0].get_children() if "lp" in str(item.get_gid())]


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
    assert left.get_xscale() == "symlog"
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    low, high = left.get_ylim()
    drawn = [value for axes in figure.axes for line in axes.get_lines() for value in line.get_ydata()]
    assert low < min(drawn)
    assert max(drawn) < high
    assert left.get_xlim()[0] < 0
    assert left.get_xlim()[1] > BUDGETS[-1]
    assert [int(tick) for tick in sorted(left.get_xticks())] == [0, *BUDGETS]
    entries = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    expected = ["held-out prompts", "search prompts", "verified by decoding", "replay only", "95 % interval"]
    expected += ["confidence chain", "tree greedy", "published rule", "greedy"]
    assert entries == expected + (["bound on search prompts"] if metric == "accepted_drafts" else [])
    assert left.get_title(loc="left").startswith("static:1\ngreedy ")
    assert "at D = 32" in left.get_title(loc="left")


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


def curve(method: str, *values: float, split: str = "test") -> Curve:
    budgets = [0, 3, 10][: len(values)]
    none: list[float | None] = [None] * len(values)
    return Curve(method, None, split, budgets, list(values), none, none, [True] * len(values))


def test_the_headline_says_no_more_than_the_rows() -> None:
    chain = curve("chain", 1, 2, 2.2)
    better, worse, mixed = curve("greedy", 1, 2.1, 2.5), curve("greedy", 1, 1.9, 2.2), curve("greedy", 1, 1.9, 2.5)
    bound = curve("lp_bound", 1, 9, 9, split="search")
    assert headline([[chain, better]], "nfe_reduction") == (
        "Calibrated draft graphs save more forwards than the confidence chain at every budget"
    )
    assert headline([[chain, mixed]], "nfe_reduction").endswith("than the confidence chain at 1 of 2 budgets")
    assert headline([[chain, better], [chain, mixed]], "nfe_reduction").endswith("in 3 of 4 cases")
    assert headline([[chain, worse, bound]], "nfe_reduction") == (
        "No calibrated draft graph saves more forwards than the confidence chain"
    )
    assert headline([[better]], "accepted_drafts") == "accepted drafts against draft budget"
    # On the search prompts our graphs always look good: held-out rows decide as soon as there are some.
    optimistic = curve("greedy", 1, 8, 9, split="search")
    assert headline([[chain, worse, optimistic]], "nfe_reduction").startswith("No calibrated")
    assert statement([chain, better, bound], "nfe_reduction") == "greedy 2.50×, chain 2.20× at D = 10"
    assert statement([chain], "accepted_drafts") == "confidence chain 2.20 at D = 10"
    assert statement([bound], "nfe_reduction") == "bounds only"


def test_one_policy_without_intervals_or_search_rows(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        rows = [row for row in payload["rows"] if row["policy"] == "static:1" and row["split"] == "test"]
        payload["rows"] = [
            row | {"nfe_reduction_low": None, "nfe_reduction_high": None} for row in rows if row["budget"] <= 10
        ]

    figure = draw_nfe_vs_budget(load_run(changed(change)))
    assert len(figure.axes) == 1
    entries = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert entries[0] == "held-out prompts"
    assert not {"search prompts", "95 % interval", "replay only"} & set(entries)
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
