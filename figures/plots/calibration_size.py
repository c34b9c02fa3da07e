"""Would more prompts help? Held-out nfe reduction against the number of prompts that the graph was found on."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.canvas.marks import DASHES, band_mark, draw_band, line_mark, method_mark
from figures.canvas.output import Table
from figures.canvas.page import finish, panel_grid, thin_ticks
from figures.canvas.style import FAINT, INK, TITLE_SIZE, marker_size, method_style
from figures.canvas.words import cautious, plural
from figures.records.calibration_size import Answer, CalibrationSize, SizeRow

MINUS = "\N{MINUS SIGN}"
_TABLE = (
    "method", "budget", "search_prompts", "draws", "nfe_reduction", "low", "high", "draws_low", "draws_high",
    "in_sample_nfe_reduction", "held_out_prompts",
)  # fmt: skip


def table_calibration_size(curve: CalibrationSize) -> Table:
    """Every drawn point, one row each."""
    rows = [
        (
            row.method, row.budget, row.search_prompts, row.draws, row.nfe_reduction, row.nfe_reduction_low,
            row.nfe_reduction_high, row.draws_low, row.draws_high, row.in_sample_nfe_reduction, row.prompts,
        )
        for row in curve.rows
    ]  # fmt: skip
    return Table(_TABLE, tuple(rows))


def draw_calibration_size(curve: CalibrationSize) -> Figure:
    """Draw the curve, a panel per budget: held-out value with its interval, spread of the draws, value on the prompts
    that were searched.
    """
    budgets = curve.budgets()
    figure, grid = panel_grid(len(budgets), "search prompts (log scale)", "NFE reduction (× fewer forwards)")
    for axes, budget in zip(grid, budgets, strict=True):
        _draw_panel(axes, [row for row in curve.rows if row.budget == budget], curve.answer(budget))
    draws = max(row.draws for row in curve.rows)
    note = (
        f"Graphs found on random draws of n prompts ({plural(draws, 'draw')} per size, all prompts once), valued on "
        f"the same {plural(curve.rows[0].prompts, 'held-out prompt')}; the dotted line marks half of the prompts. The "
        "gain over half is judged in pairs, with the spread of the halves in its interval."
    )
    style = method_style(curve.rows[0].method)
    handles = [
        method_mark(style, label="held-out, mean of draws"),
        band_mark(colour=style.colour),
        line_mark("range of draws", style.colour, linewidth=1.6, alpha=0.6),
        line_mark("search prompts", style.colour, linewidth=1.0, alpha=0.6, linestyle=DASHES),
    ]
    finish(figure, headline(curve), note, handles, columns=4)
    return figure


def headline(curve: CalibrationSize) -> str:
    """The answer to the question, over all budgets."""
    label = method_style(curve.rows[0].method).label
    whole = plural(max(row.search_prompts for row in curve.rows), "search prompt")
    helped = [answer.budget for answer in curve.answers if answer.more_would_help]
    if not curve.answers:
        text = f"Held-out NFE reduction of {label} graphs against the number of search prompts"
    elif not helped:
        text = f"No sign that more than {whole} would help the {label} graph"
    else:
        text = f"More than {whole} are likely to help the {label} graph"
        if len(helped) < len(curve.answers):
            text += f" at {', '.join(f'D = {budget}' for budget in helped)}, not elsewhere"
    return cautious(text, [row.prompts for row in curve.rows])


def _draw_panel(axes: Axes, rows: list[SizeRow], answer: Answer | None) -> None:
    title = f"D = {rows[0].budget}"
    if answer is not None:
        low, high = answer.gain_interval
        title += f"\n{answer.half} to {answer.whole} prompts: {answer.gain:+.3f} [{low:+.3f}, {high:+.3f}]".replace(
            "-", MINUS
        )
        axes.axvline(answer.half, color=FAINT, linewidth=0.9, linestyle=":", zorder=1)
    axes.set_title(title, fontsize=TITLE_SIZE, color=INK, loc="left")
    style = method_style(rows[0].method)
    sizes = [row.search_prompts for row in rows]
    axes.set_xscale("log", base=2)
    axes.plot(
        sizes, [row.in_sample_nfe_reduction for row in rows], color=style.colour, linestyle=DASHES, linewidth=1.0,
        alpha=0.6, gid="in_sample",
    )  # fmt: skip
    axes.vlines(
        sizes, [row.draws_low for row in rows], [row.draws_high for row in rows], color=style.colour, linewidth=1.6,
        alpha=0.6, gid="draws",
    )  # fmt: skip
    axes.plot(
        sizes, [row.nfe_reduction for row in rows], color=style.colour, marker=style.marker,
        markersize=marker_size(style), linewidth=1.8, gid="held_out",
    )  # fmt: skip
    lows, highs = [row.nfe_reduction_low for row in rows], [row.nfe_reduction_high for row in rows]
    draw_band(axes, sizes, lows, highs, style.colour, "band")
    thin_ticks(axes.xaxis, sizes, room=0.08)
