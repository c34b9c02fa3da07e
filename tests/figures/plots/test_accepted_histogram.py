from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from figures.canvas.style import METHOD_STYLES
from figures.plots.accepted_histogram import draw_accepted_histogram, pairs, table_accepted_histogram
from figures.records.run import FigureDataError, Run, load_run
from tests.support.overlaps import assert_legible


def heights(axes: Any, method: str) -> list[float]:
    container = next(c for c in axes.containers if c.patches[0].get_gid() == method)
    return [bar.get_height() for bar in container.patches]


def test_bars_carry_the_shares_of_both_methods(run: Run) -> None:
    figure = draw_accepted_histogram(run)
    assert len(figure.axes) == 2
    for axes, policy in zip(figure.axes, ("static:1", "threshold:0.9"), strict=True):
        for method in ("chain", "greedy"):
            histogram = next(
                item for item in run.histograms
                if (item.policy, item.method, item.budget, item.split) == (policy, method, 32, "test")
            )  # fmt: skip
            total = sum(histogram.counts)
            assert heights(axes, method) == pytest.approx([100 * count / total for count in histogram.counts])
            assert sum(heights(axes, method)) == pytest.approx(100)
        centres = [bar.get_x() + bar.get_width() / 2 for c in axes.containers for bar in c.patches]
        assert len({round(x, 6) for x in centres}) == len(centres)  # beside each other, never over each other
        assert {round(x) for x in centres} <= set(range(40))


def test_axes_legend_and_headline(run: Run) -> None:
    figure = draw_accepted_histogram(run)
    left, right = figure.axes
    assert left.get_ylabel() == "forwards (%)"
    assert left.get_xlabel() == right.get_xlabel() == "accepted drafts in one forward"
    assert left.get_ylim()[0] == 0
    assert left.get_ylim() == right.get_ylim()
    chain, best = (run.select(method=m, policy="static:1", budget=32, split="test")[0] for m in ("chain", "greedy"))
    entries = [text.get_text() for text in left.get_legend().get_texts()]
    assert entries == [
        f"{METHOD_STYLES['chain'].label}: mean {chain.accepted_drafts_visited:.2f}",
        f"{METHOD_STYLES['greedy'].label}: mean {best.accepted_drafts_visited:.2f}",
    ]
    shares = {}
    for method in ("chain", "greedy"):
        shares[method] = heights(left, method)[0]
    text = figure.texts[0].get_text().replace("\n", " ").replace("\u00a0", " ")
    assert text == (
        f"static:1, D = 32: {shares['greedy']:.0f} % of forwards accept no draft with the greedy graph, "
        f"{shares['chain']:.0f} % with the chain"
    )
    assert_legible(figure)


def test_the_legend_does_not_lie_over_the_bars(run: Run) -> None:
    figure = draw_accepted_histogram(run)
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        for container in axes.containers:
            for bar in container.patches:
                assert not legend.overlaps(bar.get_window_extent())


def test_the_table_is_what_the_histograms_say(run: Run) -> None:
    lines = list(csv.DictReader(io.StringIO(table_accepted_histogram(run).to_csv())))
    for pair in pairs(run):
        for item in pair.shown():
            own = [line for line in lines if (line["policy"], line["method"]) == (item.policy, item.method)]
            assert [int(line["forwards"]) for line in own] == list(item.counts)
            assert [int(line["accepted_drafts"]) for line in own] == list(range(len(item.counts)))
            assert sum(float(line["share"]) for line in own) == pytest.approx(1)
            assert {line["split"] for line in own} == {"test"}
    assert {line["method"] for line in lines} == {"chain", "greedy"}


def test_the_best_graph_alone_when_the_run_has_no_chain(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        for name in ("rows", "histograms"):
            payload[name] = [item for item in payload[name] if item["method"] != "chain"]

    figure = draw_accepted_histogram(load_run(changed(change)))
    assert len(figure.axes[0].containers) == 1
    assert "chain" not in figure.texts[0].get_text()
    assert_legible(figure)


def test_a_histogram_without_a_row_or_without_forwards_is_passed_over(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["budget"] < 32]
        for item in payload["histograms"]:
            if item["policy"] == "threshold:0.9" or item["budget"] == 16:
                item["counts"] = [0, 0, 0]

    assert [(pair.policy, pair.budget) for pair in pairs(load_run(changed(change)))] == [("static:1", 10)]


def test_no_histogram_at_all(changed: Callable[..., Path]) -> None:
    run = load_run(changed(lambda payload: payload.update(histograms=[])))
    with pytest.raises(FigureDataError, match=r"results\.json: no accepted-length histogram of a calibrated graph"):
        draw_accepted_histogram(run)
