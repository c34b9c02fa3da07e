"""Would more prompts help? Held-out nfe reduction against the number of prompts that the graph was found on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from figures.canvas.output import Table
from figures.canvas.style import (
    FAINT,
    INK,
    LABEL_SIZE,
    figure_legend,
    legend_inches,
    marker_size,
    method_style,
    new_figure,
    set_heading,
    style_axes,
)
from figures.records import fields
from figures.records.fields import RESULTS_FORMAT, Item
from verify.files.strict_json import Words, fail

DASHES = (0, (4, 2))
MINUS = "\N{MINUS SIGN}"
_TABLE = (
    "method", "budget", "search_prompts", "draws", "nfe_reduction", "low", "high", "draws_low", "draws_high",
    "in_sample_nfe_reduction", "held_out_prompts",
)  # fmt: skip


@dataclass(frozen=True)
class SizeRow:
    """One size and budget: means over the draws of ``search_prompts`` prompts.

    Attributes:
        nfe_reduction: on the held-out prompts, which are the same for all sizes; ``low`` and ``high`` are the ends of
            its 95 % interval over them.
        draws_low, draws_high: least and largest of the draws.
    """

    method: str
    budget: int
    search_prompts: int
    draws: int
    in_sample: float
    prompts: int
    nfe_reduction: float
    low: float | None
    high: float | None
    draws_low: float
    draws_high: float


@dataclass(frozen=True)
class Answer:
    """The gain in held-out nfe reduction from half of the search prompts to all of them."""

    budget: int
    half: int
    whole: int
    gain: float
    gain_interval: tuple[float, float]
    more_would_help: bool


@dataclass(frozen=True)
class CalibrationSize:
    """A curve that was read; ``rows`` by budget, then by size."""

    path: Path
    rows: tuple[SizeRow, ...]
    answers: dict[int, Answer]

    def budgets(self) -> list[int]:
        """In ascending order."""
        return sorted({row.budget for row in self.rows})


def load_calibration_size(path: str | Path) -> CalibrationSize:
    """Read the file that ``draftgraph calibration-size --out`` wrote.

    Raises:
        FigureDataError: no such file, another format, no rows, a field missing or of another type, an interval the
            wrong way round, a size twice.
    """
    path = Path(path)
    return fields.read_saved(path, lambda outer: _curve(path, outer))


def _curve(path: Path, outer: Item) -> CalibrationSize:
    fields.check_format(outer, RESULTS_FORMAT)
    rows = sorted(fields.some_rows(outer, _row), key=lambda row: (row.budget, row.search_prompts))
    for before, row in pairwise(rows):
        if (before.budget, before.search_prompts) == (row.budget, row.search_prompts):
            fail("rows", "every size once", Words(f"{row.search_prompts} prompts at budget {row.budget} twice"))
    answers = fields.each(outer, "answers", _answer)
    return CalibrationSize(path, tuple(rows), {answer.budget: answer for answer in answers})


def _row(item: Item, where: str) -> SizeRow:
    low, high = fields.interval(item, "nfe_reduction", where)
    spread = fields.interval(item, "draws", where)
    size = fields.count(item, "search_prompts", where)
    if size == 0 or None in spread:
        fail(where, "at least one search prompt, and the least and largest of the draws", Words("none"))
    return SizeRow(
        method=fields.text(item, "method", where),
        budget=fields.count(item, "budget", where),
        search_prompts=size,
        draws=fields.count(item, "draws", where),
        in_sample=fields.number(item, "in_sample_nfe_reduction", where),
        prompts=fields.count(item, "prompts", where),
        nfe_reduction=fields.number(item, "nfe_reduction", where),
        low=low,
        high=high,
        draws_low=spread[0] or 0.0,
        draws_high=spread[1] or 0.0,
    )


def _answer(item: Item, where: str) -> Answer:
    helps = fields.need(item, "more_would_help", where)
    if not isinstance(helps, bool):
        fail(f"{where}.more_would_help", "true or false", helps)
    return Answer(
        budget=fields.count(item, "budget", where),
        half=fields.count(item, "half", where),
        whole=fields.count(item, "whole", where),
        gain=fields.number(item, "gain", where, low=float("-inf")),
        gain_interval=fields.pair(item, "gain_interval", where),
        more_would_help=helps,
    )


def table_calibration_size(curve: CalibrationSize) -> Table:
    """Every drawn point, one row each."""
    rows = [
        (
            row.method, row.budget, row.search_prompts, row.draws, row.nfe_reduction, row.low, row.high, row.draws_low,
            row.draws_high, row.in_sample, row.prompts,
        )
        for row in curve.rows
    ]  # fmt: skip
    return Table(_TABLE, tuple(rows))


def draw_calibration_size(curve: CalibrationSize) -> Figure:
    """Draw the curve, a panel per budget: held-out value with its interval, spread of the draws, in-prompt_index
    value.
    """
    budgets = curve.budgets()
    columns = min(2, len(budgets))
    lines = -(-len(budgets) // columns)
    handles = _handles(curve)
    below = 0.1 + legend_inches(handles, 4)
    figure = new_figure(height=0.9 + below + (3.2 if lines == 1 else 2.7 * lines))
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for index, axes in enumerate(grid.flat):
        if index >= len(budgets):
            axes.set_visible(False)
            continue
        rows = [row for row in curve.rows if row.budget == budgets[index]]
        _draw_panel(axes, rows, curve.answers.get(budgets[index]))
        if index + columns >= len(budgets):
            axes.set_xlabel("search prompts (log scale)", fontsize=LABEL_SIZE, color=INK)
            axes.tick_params(labelbottom=True)
        if index % columns == 0:
            axes.set_ylabel("NFE reduction (× fewer forwards)", fontsize=LABEL_SIZE, color=INK)
    figure_legend(figure, handles, 4, 0.02)
    held_out = curve.rows[0].prompts
    draws = max(row.draws for row in curve.rows)
    note = (
        f"Graphs found on random draws of n prompts ({draws} per size, all prompts once), valued on the same "
        f"{held_out} held-out prompts; the dotted line marks half of the prompts. The gain over half is judged in "
        "pairs, with the spread of the halves in its interval."
    )
    set_heading(figure, headline(curve), note, footer=below)
    return figure


def headline(curve: CalibrationSize) -> str:
    """The answer to the question, over all budgets."""
    label = method_style(curve.rows[0].method).label
    if not curve.answers:
        return f"Held-out NFE reduction of {label} graphs against the number of search prompts"
    whole = max(row.search_prompts for row in curve.rows)
    helped = [budget for budget, answer in sorted(curve.answers.items()) if answer.more_would_help]
    if not helped:
        return f"No sign that more than {whole} search prompts would help the {label} graph"
    if len(helped) == len(curve.answers):
        return f"More than {whole} search prompts are likely to help the {label} graph"
    listed = ", ".join(f"D = {budget}" for budget in helped)
    return f"More than {whole} search prompts are likely to help the {label} graph at {listed}, not elsewhere"


def _draw_panel(axes: Axes, rows: list[SizeRow], answer: Answer | None) -> None:
    title = f"D = {rows[0].budget}"
    if answer is not None:
        low, high = answer.gain_interval
        title += f"\n{answer.half} to {answer.whole} prompts: {answer.gain:+.3f} [{low:+.3f}, {high:+.3f}]".replace(
            "-", MINUS
        )
    style_axes(axes, title=title)
    style = method_style(rows[0].method)
    sizes = [row.search_prompts for row in rows]
    axes.set_xscale("log", base=2)
    axes.plot(
        sizes, [row.in_sample for row in rows], color=style.colour, linestyle=DASHES, linewidth=1.0, alpha=0.6,
        gid="in_sample",
    )  # fmt: skip
    axes.vlines(
        sizes, [row.draws_low for row in rows], [row.draws_high for row in rows], color=style.colour, linewidth=1.6,
        alpha=0.6, gid="draws",
    )  # fmt: skip
    axes.plot(
        sizes, [row.nfe_reduction for row in rows], color=style.colour, marker=style.marker,
        markersize=marker_size(style), linewidth=1.8, gid="held_out",
    )  # fmt: skip
    band = [row for row in rows if row.low is not None]
    axes.fill_between(
        [row.search_prompts for row in band], [row.low or 0.0 for row in band], [row.high or 0.0 for row in band],
        color=style.colour, alpha=0.13, linewidth=0, gid="band",
    )  # fmt: skip
    if answer is not None:
        axes.axvline(answer.half, color=FAINT, linewidth=0.9, linestyle=":", zorder=1)
    ticks: list[int] = []
    for size in reversed(sizes):  # the largest always has a label; neighbours closer than a third octave have one
        if not ticks or ticks[-1] / size >= 1.3:
            ticks.append(size)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")


def _handles(curve: CalibrationSize) -> list[Line2D | Patch]:
    style = method_style(curve.rows[0].method)
    held_out = Line2D([], [], color=style.colour, linewidth=1.8, marker=style.marker, label="held-out, mean of draws")
    held_out.set_markersize(marker_size(style))
    return [
        held_out,
        Patch(color=style.colour, alpha=0.2, linewidth=0, label="95 % interval"),
        Line2D([], [], color=style.colour, linewidth=1.6, alpha=0.6, label="range of draws"),
        Line2D([], [], color=style.colour, linewidth=1.0, alpha=0.6, linestyle=DASHES, label="search prompts"),
    ]
