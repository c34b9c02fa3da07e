"""Which budget pays: predicted speed-up over plain decoding against D, and the two factors that make it.

The factors are forwards saved and the time of the mean forward; the first over the second is the speed-up. A forward
with all D drafts takes longer than the mean one: refresh forwards carry none, and the last anchors of a block few.

The best D is the one that the study chose, on other prompts than those of the curve where it says so; on the curve
another one may lie higher by chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.canvas.marks import band_mark, draw_band, line_mark
from figures.canvas.output import Table
from figures.canvas.page import BUDGET_LABEL, budget_axis, finish, new_figure, style_axes, value_limits
from figures.canvas.style import FAINT, INK, LABEL_SIZE, TEXT_SIZE
from figures.canvas.words import cautious
from figures.records import fields
from figures.records.fields import BUDGET_FORMAT, Item
from figures.records.words import facts
from verify.files.strict_json import Words, fail

COLOUR, SAVED, LONGER = "#0072B2", "#009E73", "#D55E00"
STAR = "#E69F00"
_TABLE = (
    "budget", "forwards", "milliseconds_with_all_drafts", "milliseconds_per_prompt", "speedup", "low", "high",
    "times_fewer_forwards", "times_longer_mean_forward", "chosen",
)  # fmt: skip


@dataclass(frozen=True)
class SpeedupRow:
    """One budget: forwards on the prompts that judge, milliseconds, speed-up with its 95 % interval over prompts.

    ``latency`` is that of a forward with all drafts. ``prompts`` are those that judge: the time of all forwards over
    the time of a prompt; None where the file does not state the time of a mean forward.
    """

    budget: int
    forwards: int
    latency: float
    milliseconds_per_prompt: float
    speedup: float
    low: float | None
    high: float | None
    prompts: int | None


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
    """Read a file of ``draftgraph budget``.

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
    best = fields.count(outer, "budget", "file")  # never taken from the rows: they are of held-out prompts
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
        prompts=None,
    )
    numbers = (row.forwards, row.latency, row.milliseconds_per_prompt)
    if min(numbers) <= 0:
        expected = "forwards, latency and milliseconds_per_prompt above 0"
        fail(where, expected, Words(", ".join(str(number) for number in numbers)))
    mean = fields.optional_number(item, "milliseconds_per_forward", where)
    return row if mean is None else replace(row, prompts=round(row.forwards * mean / row.milliseconds_per_prompt))


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
    rows, budgets = speedup.rows, [row.budget for row in speedup.rows]
    figure = new_figure(height=3.4)
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    for axes, label, title in (
        (left, "predicted speed-up (× plain decoding)", "what the user gets"),
        (right, "ratio to plain decoding (×)", "what it is made of"),
    ):
        style_axes(axes, x_label=BUDGET_LABEL, y_label=label, title=title)
        axes.axhline(1.0, color=FAINT, linewidth=0.9, zorder=1)
        axes.axvline(speedup.best, color=FAINT, linewidth=1.0, linestyle=":", zorder=1)
        budget_axis(axes, budgets)
    _draw_speedups(left, speedup)
    handles: list[Artist] = [line_mark("speed-up", COLOUR, marker="o", markersize=4.5)]
    if draw_band(left, budgets, [row.low for row in rows], [row.high for row in rows], COLOUR, "band"):
        handles.append(band_mark(colour=COLOUR))
    star = {"markeredgecolor": INK, "markeredgewidth": 0.8}
    handles.append(line_mark("chosen D", STAR, linestyle="none", marker="*", markersize=11, **star))
    for values, colour, marker, gid, label in (
        (speedup.fewer(), SAVED, "^", "fewer", "fewer forwards"),
        (speedup.longer(), LONGER, "v", "longer", "longer mean forward"),
    ):
        right.plot(budgets, values, color=colour, marker=marker, markersize=4.5, linewidth=1.6, zorder=3, gid=gid)
        handles.append(line_mark(label, colour, linewidth=1.6, marker=marker, markersize=4.5))
    numbers = [row.prompts for row in rows]
    finish(figure, cautious(headline(speedup), numbers), _note(speedup), handles)
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
    measured = [str(speedup.where[name]) for name in ("device", "dtype") if name in speedup.where]
    measured += [
        f"{words} {speedup.where[name]}"
        for name, words in (("batch", "batch"), ("context_length", "context"))
        if name in speedup.where
    ]
    if measured:
        parts.append(f"Time of {', '.join(measured)}.")
    parts.append(facts(speedup.validity, ("model", "policy"), search=speedup.search))
    return " ".join(part for part in parts if part)


def _draw_speedups(axes: Axes, speedup: Speedup) -> None:
    rows, best = speedup.rows, speedup.chosen()
    axes.plot(
        [row.budget for row in rows], [row.speedup for row in rows], color=COLOUR, marker="o", markersize=4.5,
        linewidth=1.8, zorder=3, gid="speedup",
    )  # fmt: skip
    ends = [value for row in rows for value in (row.speedup, row.low, row.high)]
    low, top = value_limits([1.0, *ends], 0.06, 0.2)  # room for the label of the best
    axes.set_ylim(low, top)
    axes.plot(
        [best.budget], [best.speedup], marker="*", markersize=15, color=STAR, markeredgecolor=INK,
        markeredgewidth=0.8, zorder=5, gid="best", clip_on=False,
    )  # fmt: skip
    # Beside the middle of the panel, so that the label never leaves it.
    align = "left" if best.budget <= rows[-1].budget / 2 else "right"
    axes.annotate(
        f"D = {best.budget}: {best.speedup:.2f}×", (best.budget, low + 0.94 * (top - low)),
        xytext=(5 if align == "left" else -5, 0), textcoords="offset points", ha=align, va="center",
        fontsize=LABEL_SIZE, fontweight="bold", color=INK,
    )  # fmt: skip
    axes.tick_params(labelsize=TEXT_SIZE)
