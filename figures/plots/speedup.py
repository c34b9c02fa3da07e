"""Which budget pays: predicted speed-up over plain decoding against D, and the two factors that make it.

The factors are forwards saved and the time of the mean forward; the first over the second is the speed-up. A forward
with all D drafts takes longer than the mean one: refresh forwards carry none, and the last anchors of a block few.

The best D is the one that the study chose, on other prompts than those of the curve where it says so; on the curve
another one may lie higher by chance.
"""

from __future__ import annotations

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.canvas.marks import band_mark, draw_band, line_mark
from figures.canvas.output import Table
from figures.canvas.page import BUDGET_LABEL, budget_axis, finish, new_figure, style_axes, value_limits
from figures.canvas.style import FAINT, INK, LABEL_SIZE, TEXT_SIZE
from figures.canvas.words import cautious
from figures.records.budget import GRAPH, INFORMED, Budget
from figures.records.words import facts

COLOUR, SAVED, LONGER = "#0072B2", "#009E73", "#D55E00"
STAR = "#E69F00"
#: Informed drafts are drawn as the same lines, dashed.
_DASHES = {GRAPH: "-", INFORMED: "--"}
_TABLE = (
    "drafter", "budget", "forwards", "milliseconds_with_all_drafts", "milliseconds_per_prompt", "speedup", "low",
    "high", "times_fewer_forwards", "times_longer_mean_forward", "chosen",
)  # fmt: skip


def table_speedup(verdict: Budget) -> Table:
    """Every budget, one row each."""
    rows = [
        (
            row.drafter, row.budget, row.forwards, row.latency, row.milliseconds_per_prompt, row.speedup,
            row.speedup_low, row.speedup_high, verdict.fewer(row), verdict.longer(row), row is verdict.chosen(),
        )
        for row in verdict.rows
    ]  # fmt: skip
    return Table(_TABLE, tuple(rows))


def draw_speedup(verdict: Budget) -> Figure:
    """Draw the speed-up against the budget with the chosen one marked, and beside it forwards saved and their price."""
    budgets = sorted({row.budget for row in verdict.rows})
    figure = new_figure(height=3.4)
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    for axes, label, title in (
        (left, "predicted speed-up (× plain decoding)", "what the user gets"),
        (right, "ratio to plain decoding (×)", "what it is made of"),
    ):
        style_axes(axes, x_label=BUDGET_LABEL, y_label=label, title=title)
        axes.axhline(1.0, color=FAINT, linewidth=0.9, zorder=1)
        axes.axvline(verdict.budget, color=FAINT, linewidth=1.0, linestyle=":", zorder=1)
        budget_axis(axes, budgets)
    _draw_speedups(left, verdict)
    handles: list[Artist] = [line_mark("speed-up", COLOUR, marker="o", markersize=4.5)]
    banded = False
    for drafter in verdict.drafters():
        own = verdict.of(drafter)
        lows, highs = [row.speedup_low for row in own], [row.speedup_high for row in own]
        gid = "band" if drafter == GRAPH else f"{drafter}/band"
        banded |= draw_band(left, [row.budget for row in own], lows, highs, COLOUR, gid) is not None
    if banded:
        handles.append(band_mark(colour=COLOUR))
    star = {"markeredgecolor": INK, "markeredgewidth": 0.8}
    handles.append(line_mark("chosen D", STAR, linestyle="none", marker="*", markersize=11, **star))
    for ratio, colour, marker, gid, label in (
        (verdict.fewer, SAVED, "^", "fewer", "fewer forwards"),
        (verdict.longer, LONGER, "v", "longer", "longer mean forward"),
    ):
        for drafter in verdict.drafters():
            own = verdict.of(drafter)
            right.plot(
                [row.budget for row in own], [ratio(row) for row in own], color=colour, marker=marker, markersize=4.5,
                linewidth=1.6, linestyle=_DASHES[drafter], zorder=3,
                gid=gid if drafter == GRAPH else f"{drafter}/{gid}",
            )  # fmt: skip
        handles.append(line_mark(label, colour, linewidth=1.6, marker=marker, markersize=4.5))
    if INFORMED in verdict.drafters():
        handles.append(line_mark("dashed: informed drafts", FAINT, linewidth=1.6, linestyle=_DASHES[INFORMED]))
    numbers = [row.prompts() for row in verdict.rows]
    finish(figure, cautious(headline(verdict), numbers), _note(verdict), handles)
    return figure


def headline(verdict: Budget) -> str:
    """Speculate or not, with how many drafts, and how sure."""
    best = verdict.chosen()
    if best.budget == 0:
        return "Do not speculate here: no budget is predicted to be faster than plain decoding"
    if best.speedup <= 1:
        where = "was chosen, but on held-out prompts it is predicted to be"
        return f"{best.name()} {where} {best.speedup:.2f} times as fast as plain decoding"
    text = f"{best.name()} is predicted to be {best.speedup:.2f} times as fast as plain decoding"
    if best.speedup_low <= 1:
        text += ", but the interval contains 1"
    if verdict.at_edge:
        text += "; a larger budget may be better still"
    return text


def _note(verdict: Budget) -> str:
    table = verdict.latency
    return (
        f"The budget was chosen on {verdict.budget_chosen_on} prompts; the curve is of held-out prompts. Time of "
        f"{table.device}, {table.dtype}, batch {table.batch}, context {table.context_length}. "
        + facts(vars(verdict.validity), ("model", "policy"), search=verdict.search)
    )


def _draw_speedups(axes: Axes, verdict: Budget) -> None:
    rows, best = verdict.rows, verdict.chosen()
    for drafter in verdict.drafters():
        own = verdict.of(drafter)
        axes.plot(
            [row.budget for row in own], [row.speedup for row in own], color=COLOUR, marker="o", markersize=4.5,
            linewidth=1.8, linestyle=_DASHES[drafter], zorder=3,
            gid="speedup" if drafter == GRAPH else f"{drafter}/speedup",
        )  # fmt: skip
    ends = [value for row in rows for value in (row.speedup, row.speedup_low, row.speedup_high)]
    low, top = value_limits([1.0, *ends], 0.06, 0.2)  # room for the label of the best
    axes.set_ylim(low, top)
    axes.plot(
        [best.budget], [best.speedup], marker="*", markersize=15, color=STAR, markeredgecolor=INK,
        markeredgewidth=0.8, zorder=5, gid="best", clip_on=False,
    )  # fmt: skip
    # Beside the middle of the panel, so that the label never leaves it.
    align = "left" if best.budget <= max(row.budget for row in rows) / 2 else "right"
    axes.annotate(
        f"{best.name()}: {best.speedup:.2f}×", (best.budget, low + 0.94 * (top - low)),
        xytext=(5 if align == "left" else -5, 0), textcoords="offset points", ha=align, va="center",
        fontsize=LABEL_SIZE, fontweight="bold", color=INK,
    )  # fmt: skip
    axes.tick_params(labelsize=TEXT_SIZE)
