"""Would more prompts help? Held-out nfe reduction against the number of prompts that the graph was found on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.canvas.marks import DASHES, band_mark, draw_band, line_mark, method_mark
from figures.canvas.output import Table
from figures.canvas.page import finish, panel_grid, thin_ticks
from figures.canvas.style import FAINT, INK, TITLE_SIZE, marker_size, method_style
from figures.canvas.words import cautious, plural
from figures.records import fields
from figures.records.fields import RESULTS_FORMAT, Item
from verify.files.strict_json import Words, fail

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
    """Draw the curve, a panel per budget: held-out value with its interval, spread of the draws, value on the prompts
    that were searched.
    """
    budgets = curve.budgets()
    figure, grid = panel_grid(len(budgets), "search prompts (log scale)", "NFE reduction (× fewer forwards)")
    for axes, budget in zip(grid, budgets, strict=True):
        _draw_panel(axes, [row for row in curve.rows if row.budget == budget], curve.answers.get(budget))
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
    helped = [budget for budget, answer in sorted(curve.answers.items()) if answer.more_would_help]
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
    draw_band(axes, sizes, [row.low for row in rows], [row.high for row in rows], style.colour, "band")
    thin_ticks(axes.xaxis, sizes, room=0.08)
