"""What rows buy on held-out prompts: nfe reduction against the blocks of rows that drafts add to the mean forward.

Budgets of different drafters do not cost the same: a bridge is two blocks, and drafts that an anchor cannot fill are
none. Here every drafter stands where its forwards really are, so that a line above another one saves more forwards for
the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.canvas.marks import band_mark, draw_band, method_mark
from figures.canvas.output import Table
from figures.canvas.page import finish, panel_grid, value_limits
from figures.canvas.style import FAINT, INK, SMALL_SIZE, TITLE_SIZE, marker_size, method_order, method_style
from figures.canvas.words import cautious, prompts_of
from figures.plots.curves import BACKGROUND, Panel
from figures.records.run import BOUNDS, LEARNING, Comparison, FigureDataError, ResultRow, Run

_X = "drafted blocks of rows in the mean forward"
_Y = "NFE reduction (× fewer forwards)"
_COLUMNS = ("policy", "cache", "method", "budget", "drafted_blocks", "nfe_reduction", "low", "high")


@dataclass(frozen=True)
class RowCurve:
    """One method of one panel on test prompts, by ascending budget."""

    method: str
    rows: Sequence[ResultRow]

    @property
    def blocks(self) -> list[float]:
        """Where its points stand."""
        return [row.drafted_blocks or 0.0 for row in self.rows]

    @property
    def values(self) -> list[float]:
        """Their heights."""
        return [row.nfe_reduction or 0.0 for row in self.rows]


def row_curves(run: Run, panel: Panel) -> list[RowCurve]:
    """The methods of a panel in the order of legends; empty where no drafter learns, as budgets then say the same.

    Every line begins with plain decoding, where the run holds it.
    """
    known = [
        row for row in run.select(policy=panel[0], cache=panel[1], split="test")
        if row.drafted_blocks is not None and row.nfe_reduction is not None and row.method not in BOUNDS
    ]  # fmt: skip
    methods = sorted({row.method for row in known} - {"plain"} - BACKGROUND, key=method_order)
    if not LEARNING & set(methods):
        return []
    start = [row for row in known if row.method == "plain"][:1]
    ordered = sorted(known, key=lambda row: row.budget)
    return [RowCurve(method, start + [row for row in ordered if row.method == method]) for method in methods]


def draw_nfe_vs_rows(run: Run) -> Figure:
    """Draw a panel per policy (and cache, where several are).

    Raises:
        FigureDataError: no panel compares a learning drafter with anything.
    """
    panels = {panel: found for panel in run.panels() if (found := row_curves(run, panel))}
    if not panels:
        raise FigureDataError(
            f"{run.directory}: no test rows of a learning drafter with drafted blocks, so there is nothing to plot"
        )
    figure, grid = panel_grid(len(panels), _X, _Y)
    several = len({cache for _, cache in panels}) > 1
    for axes, (panel, found) in zip(grid, panels.items(), strict=True):
        axes.set_title(", ".join(panel) if several else panel[0], fontsize=TITLE_SIZE, color=INK, loc="left")
        axes.axhline(1.0, color=FAINT, linewidth=0.9, zorder=1)
        for curve in found:
            _draw(axes, curve)
    drawn = [curve for found in panels.values() for curve in found]
    rows = [row for curve in drawn for row in curve.rows]
    ends = [value for row in rows for value in (row.nfe_reduction, row.nfe_reduction_low, row.nfe_reduction_high)]
    grid[0].set_ylim(value_limits([1.0, *ends]))
    methods = dict.fromkeys(curve.method for curve in drawn)
    handles = [method_mark(method_style(method)) for method in methods]
    numbers = {row.prompts for row in rows}
    note = f"On {prompts_of('test', numbers)}. Numbers beside points are budgets. {run.setting()}"
    finish(figure, cautious(headline(run), numbers), note.strip(), handles, [band_mark()])
    return figure


def headline(run: Run) -> str:
    """What the paired comparisons at equal rows say; no verdict where the run holds none."""
    pairs = [found for found in run.comparisons if found.second_budget is not None and found.first in LEARNING]
    cells: dict[tuple[str, int], list[Comparison]] = {}
    for found in pairs:
        cells.setdefault((found.policy, found.budget), []).append(found)
    if not cells:
        return "Forward passes saved against the rows that drafts cost"
    ahead = sum(all(pair.ahead() == pair.first for pair in cell) for cell in cells.values())
    behind = sum(any(pair.ahead() == pair.second for pair in cell) for cell in cells.values())
    text = f"For as many rows, informed drafts need fewer forwards than every graph in {ahead} of {len(cells)} cases"
    return text + (f", more than some graph in {behind}" if behind else "")


def table_nfe_vs_rows(run: Run) -> Table:
    """Every point, one row each."""
    rows = [
        (
            *panel, curve.method, row.budget, row.drafted_blocks, row.nfe_reduction, row.nfe_reduction_low,
            row.nfe_reduction_high,
        )
        for panel in run.panels()
        for curve in row_curves(run, panel)
        for row in curve.rows
    ]  # fmt: skip
    return Table(_COLUMNS, tuple(rows))


def _draw(axes: Axes, curve: RowCurve) -> None:
    style = method_style(curve.method)
    axes.plot(
        curve.blocks, curve.values, color=style.colour, marker=style.marker, markersize=marker_size(style),
        linewidth=1.8, zorder=3, gid=curve.method,
    )  # fmt: skip
    lows, highs = [row.nfe_reduction_low for row in curve.rows], [row.nfe_reduction_high for row in curve.rows]
    draw_band(axes, curve.blocks, lows, highs, style.colour, f"{curve.method}/band")
    if curve.method in LEARNING:
        for row, at, value in zip(curve.rows, curve.blocks, curve.values, strict=True):
            if row.budget:
                axes.annotate(
                    str(row.budget), (at, value), xytext=(0, 6), textcoords="offset points", fontsize=SMALL_SIZE,
                    ha="center", color=INK,
                )  # fmt: skip
