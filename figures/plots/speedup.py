"""Which budget pays: predicted speed-up over plain decoding against D, and the two factors that make it.

The factors are forwards saved and the time of the mean forward; the first over the second is the speed-up. A forward
with all D drafts takes longer than the mean one: refresh forwards carry none, and the last anchors of a block few.

The best D is the one that the study chose, on other prompts than those of the curve where it says so; on the curve
another one may lie higher by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from figures.canvas.output import Table
from figures.canvas.style import (
    FAINT,
    INK,
    LABEL_SIZE,
    TEXT_SIZE,
    figure_legend,
    legend_inches,
    new_figure,
    set_heading,
    style_axes,
)
from figures.records import fields
from figures.records.fields import BUDGET_FORMAT, Item
from verify.files.strict_json import Words, fail

COLOUR, SAVED, LONGER = "#0072B2", "#009E73", "#D55E00"
_TABLE = (
    "budget", "forwards", "milliseconds_with_all_drafts", "milliseconds_per_prompt", "speedup", "low", "high",
    "times_fewer_forwards", "times_longer_mean_forward", "chosen",
)  # fmt: skip


@dataclass(frozen=True)
class SpeedupRow:
    """One budget: forwards on the prompts that judge, milliseconds, speed-up with its 95 % interval over prompts.

    ``latency`` is that of a forward with all drafts.
    """

    budget: int
    forwards: int
    latency: float
    milliseconds_per_prompt: float
    speedup: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Speedup:
    """A budget file that was read; ``rows`` by budget, 0 first; ``best`` is the budget that was chosen."""

    path: Path
    rows: tuple[SpeedupRow, ...]
    best: int
    chosen_on: str | None
    at_edge: bool
    search: str | None
    where: dict[str, Any]
    validity: dict[str, Any]

    def chosen(self) -> SpeedupRow:
        """The row of ``best``."""
        return next(row for row in self.rows if row.budget == self.best)

    def fewer(self) -> list[float]:
        """Forwards of plain decoding over those with each budget."""
        return [self.rows[0].forwards / row.forwards for row in self.rows]

    def longer(self) -> list[float]:
        """Time of the mean forward with each budget over that of plain decoding's."""
        times = [row.milliseconds_per_prompt / row.forwards for row in self.rows]  # times the number of prompts
        return [time / times[0] for time in times]


def load_speedup(path: str | Path) -> Speedup:
    """Read a file of ``draftgraph budget``; one without ``budget`` is given the highest speed-up as the chosen one.

    Raises:
        FigureDataError: no such file, another format, no rows, budgets that do not ascend from 0, a number that is not
            above 0, or a chosen budget without a row.
    """
    path = Path(path)
    return fields.read_saved(path, lambda outer: _speedup(path, outer))


def _speedup(path: Path, outer: Item) -> Speedup:
    if "format" in outer:
        fields.check_format(outer, BUDGET_FORMAT)
    rows = fields.some_rows(outer, _row)
    budgets = [row.budget for row in rows]
    if budgets[0] != 0 or budgets != sorted(set(budgets)):
        fail("rows", "budgets that ascend from 0", budgets)
    best = fields.optional_count(outer, "budget", "file")
    if best is None:
        best = max(rows, key=lambda row: (row.speedup, -row.budget)).budget
    if best not in budgets:
        fail("file.budget", f"one of the budgets of the rows, {budgets}", best)
    where, validity = outer.get("latency"), outer.get("validity")
    return Speedup(
        path=path,
        rows=rows,
        best=best,
        chosen_on=fields.optional_text(outer, "budget_chosen_on", "file"),
        at_edge=outer.get("at_edge") is True,
        search=fields.optional_text(outer, "search", "file"),
        where=where if isinstance(where, dict) else {},
        validity=validity if isinstance(validity, dict) else {},
    )


def _row(item: Item, where: str) -> SpeedupRow:
    low, high = fields.interval(item, "speedup", where)
    row = SpeedupRow(
        budget=fields.count(item, "budget", where),
        forwards=fields.count(item, "forwards", where),
        latency=fields.number(item, "latency", where),
        milliseconds_per_prompt=fields.number(item, "milliseconds_per_prompt", where),
        speedup=fields.number(item, "speedup", where),
        low=low,
        high=high,
    )
    numbers = (row.forwards, row.latency, row.milliseconds_per_prompt)
    if min(numbers) <= 0:
        expected = "forwards, latency and milliseconds_per_prompt above 0"
        fail(where, expected, Words(", ".join(str(number) for number in numbers)))
    return row


def table_speedup(speedup: Speedup) -> Table:
    """Every budget, one row each."""
    rows = [
        (
            row.budget, row.forwards, row.latency, row.milliseconds_per_prompt, row.speedup, row.low, row.high, fewer,
            longer, row.budget == speedup.best,
        )
        for row, fewer, longer in zip(speedup.rows, speedup.fewer(), speedup.longer(), strict=True)
    ]  # fmt: skip
    return Table(_TABLE, tuple(rows))


def draw_speedup(speedup: Speedup) -> Figure:
    """Draw the speed-up against the budget with the chosen one marked, and beside it forwards saved and their price."""
    banded = any(row.low is not None for row in speedup.rows)
    handles = _handles(banded)
    below = 0.1 + legend_inches(handles, 5)
    figure = new_figure(height=4.1 + below)
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    for axes, label, title in (
        (left, "predicted speed-up (× plain decoding)", "what the user gets"),
        (right, "ratio to plain decoding (×)", "what it is made of"),
    ):
        style_axes(axes, x_label="draft budget D (draft nodes per forward)", y_label=label, title=title)
        axes.axhline(1.0, color=FAINT, linewidth=0.9, zorder=1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
        axes.set_xlim(-0.4, max(speedup.rows[-1].budget, 1) + 0.4)
        axes.axvline(speedup.best, color=FAINT, linewidth=1.0, linestyle=":", zorder=1)
    _draw_speedups(left, speedup, banded)
    budgets = [row.budget for row in speedup.rows]
    for values, colour, marker, name in (
        (speedup.fewer(), SAVED, "^", "fewer"), (speedup.longer(), LONGER, "v", "longer"),
    ):  # fmt: skip
        right.plot(budgets, values, color=colour, marker=marker, markersize=4.5, linewidth=1.6, zorder=3, gid=name)
    figure_legend(figure, handles, 5, 0.02)
    set_heading(figure, headline(speedup), _note(speedup), footer=below)
    return figure


def headline(speedup: Speedup) -> str:
    """Speculate or not, with how many drafts, and how sure."""
    best = speedup.chosen()
    if best.budget == 0:
        return "Do not speculate here: no budget is predicted to be faster than plain decoding"
    if best.speedup <= 1:
        where = "was chosen, but on held-out prompts it is predicted to be"
        return f"D = {best.budget} {where} {best.speedup:.2f} times as fast as plain decoding"
    text = f"D = {best.budget} is predicted to be {best.speedup:.2f} times as fast as plain decoding"
    if best.low is not None and best.low <= 1:
        text += ", but the interval contains 1"
    if speedup.at_edge:
        text += "; a larger budget may be better still"
    return text


def _note(speedup: Speedup) -> str:
    parts = []
    if speedup.chosen_on:
        parts.append(f"The budget was chosen on {speedup.chosen_on} prompts; the curve is of held-out prompts.")
    names = ("device", "dtype")
    said = [speedup.where[name] for name in names if isinstance(speedup.where.get(name), str)]
    said += [
        f"{name.split('_')[0]} {speedup.where[name]}"
        for name in ("batch", "context_length")
        if type(speedup.where.get(name)) is int
    ]
    if said:
        parts.append(f"Time of {', '.join(said)}.")
    told = [f"{name}: {speedup.validity[name]}" for name in ("model", "policy") if name in speedup.validity]
    if speedup.search:
        told.append(f"search: {speedup.search}")
    if told:
        parts.append(f"{', '.join(told)}.".replace("model:", "Model:", 1))
    return " ".join(parts)


def _draw_speedups(axes: Axes, speedup: Speedup, banded: bool) -> None:
    rows = speedup.rows
    budgets = [row.budget for row in rows]
    axes.plot(
        budgets, [row.speedup for row in rows], color=COLOUR, marker="o", markersize=4.5, linewidth=1.8, zorder=3,
        gid="speedup",
    )  # fmt: skip
    if banded:
        band = [row for row in rows if row.low is not None]
        axes.fill_between(
            [row.budget for row in band], [row.low or 0.0 for row in band], [row.high or 0.0 for row in band],
            color=COLOUR, alpha=0.15, linewidth=0, gid="band",
        )  # fmt: skip
    ends = [1.0, *(v for row in rows for v in (row.speedup, row.low, row.high) if v is not None)]
    low, high = min(ends), max(max(ends), min(ends) + 0.1)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.2 * (high - low))  # room for the label of the best
    best = speedup.chosen()
    axes.plot(
        [best.budget], [best.speedup], marker="*", markersize=15, color="#E69F00", markeredgecolor=INK,
        markeredgewidth=0.8, zorder=5, gid="best", clip_on=False,
    )  # fmt: skip
    # Beside the middle of the panel, so that the label never leaves it.
    align = "left" if best.budget <= rows[-1].budget / 2 else "right"
    axes.annotate(
        f"D = {best.budget}: {best.speedup:.2f}×", (best.budget, high + 0.12 * (high - low)),
        xytext=(5 if align == "left" else -5, 0), textcoords="offset points", ha=align, va="center",
        fontsize=LABEL_SIZE, fontweight="bold", color=INK,
    )  # fmt: skip
    axes.tick_params(labelsize=TEXT_SIZE)


def _handles(banded: bool) -> list[Line2D | Patch]:
    best = Line2D([], [], linestyle="none", marker="*", markersize=11, color="#E69F00", label="chosen D")
    best.set(markeredgecolor=INK, markeredgewidth=0.8)
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=COLOUR, linewidth=1.8, marker="o", markersize=4.5, label="speed-up"),
        best,
        Line2D([], [], color=SAVED, linewidth=1.6, marker="^", markersize=4.5, label="fewer forwards"),
        Line2D([], [], color=LONGER, linewidth=1.6, marker="v", markersize=4.5, label="longer mean forward"),
    ]
    if banded:
        handles.insert(1, Patch(color=COLOUR, alpha=0.2, linewidth=0, label="95 % interval"))
    return handles
