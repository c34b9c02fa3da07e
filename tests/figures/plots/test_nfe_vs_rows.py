"""Forwards saved against rows: what is drawn where, and what the headline may say."""

from dataclasses import replace
from pathlib import Path

import pytest

from figures.draw import draw_all
from figures.plots.nfe_vs_rows import draw_nfe_vs_rows, headline, row_curves, table_nfe_vs_rows
from figures.plots.verdicts import verdict
from figures.records.run import Comparison, FigureDataError, ResultRow, Run, best_row
from tests.support.overlaps import outside, visible_texts


def row(method: str, budget: int, blocks: float, value: float, split: str = "test") -> ResultRow:
    return ResultRow(
        method, budget, "static:1", "dual", split, prompts=24, accepted_drafts=None if method == "informed" else 1.0,
        nfe_reduction=value, nfe_reduction_low=value - 0.1, nfe_reduction_high=value + 0.1, drafted_blocks=blocks,
        forwards_predicted=round(1000 / value), forwards_plain=1000,
    )  # fmt: skip


ROWS = [
    found
    for split in ("search", "test")
    for found in (
        row("plain", 0, 0.0, 1.0, split),
        row("chain", 3, 2.6, 2.0, split), row("chain", 10, 8.0, 2.3, split),
        row("greedy", 3, 2.7, 2.2, split), row("greedy", 10, 8.5, 3.0, split),
        row("informed", 3, 2.7, 2.6, split), row("informed", 10, 8.2, 4.4, split),
    )
]  # fmt: skip


def pair(budget: int, second: str, difference: float, second_budget: int | None = None) -> Comparison:
    low, high = difference - 0.1, difference + 0.1
    return Comparison(
        "static:1", budget, "informed", second, difference, low, high, not low <= 0 <= high, "test", 24, "",
        second_budget,
    )  # fmt: skip


RUN = Run(
    tuple(ROWS),
    comparisons=(
        pair(3, "greedy", 0.4), pair(10, "greedy", 1.4), pair(3, "chain", 0.6),
        pair(3, "greedy", 0.4, 3), pair(3, "chain", 0.6, 3), pair(10, "greedy", 1.4, 10), pair(10, "chain", 0.05, 10),
    ),
)  # fmt: skip


def test_every_line_begins_with_plain_decoding_and_stands_where_its_rows_are() -> None:
    found = {curve.method: (curve.blocks, curve.values) for curve in row_curves(RUN, ("static:1", "dual"))}
    assert found == {
        "chain": ([0.0, 2.6, 8.0], [1.0, 2.0, 2.3]),
        "greedy": ([0.0, 2.7, 8.5], [1.0, 2.2, 3.0]),
        "informed": ([0.0, 2.7, 8.2], [1.0, 2.6, 4.4]),
    }
    figure = draw_nfe_vs_rows(RUN)
    axes = figure.axes[0]
    lines = {line.get_gid(): line.get_xydata().tolist() for line in axes.lines if line.get_gid()}
    assert lines["informed"] == [[0.0, 1.0], [2.7, 2.6], [8.2, 4.4]]
    assert {text.get_text() for text in axes.texts} == {"3", "10"}
    assert not outside(figure, visible_texts(figure))
    assert len(table_nfe_vs_rows(RUN).rows) == 9


def test_the_headline_counts_cases_in_which_every_graph_of_as_many_rows_is_behind() -> None:
    assert headline(RUN) == "For as many rows, informed drafts need fewer forwards than every graph in 1 of 2 cases"
    behind = replace(RUN, comparisons=(*RUN.comparisons, pair(10, "published", -0.4, 12)))
    assert headline(behind).endswith("in 1 of 2 cases, more than some graph in 1")
    assert "fewer" not in headline(replace(RUN, comparisons=()))


def test_the_other_headline_counts_equal_budgets_only_and_graphs_apart() -> None:
    text = verdict(RUN, [("static:1", "dual")])
    assert text.startswith(
        "Informed drafts need fewer forwards than the best calibrated graph of as many drafts at every"
    )
    apart = replace(RUN, comparisons=tuple(found for found in RUN.comparisons if found.second_budget is not None))
    assert "nformed" not in verdict(apart, [("static:1", "dual")])


def test_informed_drafts_are_no_calibrated_graph() -> None:
    assert best_row(RUN, RUN.select(split="search", budget=10)).method == "greedy"
    with pytest.raises(FigureDataError, match="no row of a calibrated graph"):
        best_row(RUN, RUN.select(method="informed"))


def test_a_run_without_them_has_no_such_figure(tmp_path: Path) -> None:
    without = Run(tuple(found for found in ROWS if found.method != "informed"))
    assert row_curves(without, ("static:1", "dual")) == []
    with pytest.raises(FigureDataError, match="no test rows of a learning drafter"):
        draw_nfe_vs_rows(without)


def test_draw_all_draws_it(tmp_path: Path) -> None:
    from figures.records.record import save_record

    save_record(RUN, tmp_path / "results.json")
    with pytest.warns():
        drawn = draw_all(tmp_path)
    assert "nfe_vs_rows.png" in {path.name for path in drawn}
