"""What a setting does to the gain: nfe reduction against policy, temperature or block length, one line per method.

Settings that are numbers stand at their values and lines have bands; other settings stand side by side, in the order
of the study, and every point has its own interval, because nothing lies between two decode rules.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from figures.canvas.marks import INTERVAL, band_mark, draw_band, line_mark, method_mark
from figures.canvas.output import Table
from figures.canvas.page import finish, new_figure, style_axes, value_limits
from figures.canvas.style import FAINT, TEXT_SIZE, marker_size, method_order, method_style
from figures.canvas.words import cautious, prompts_of
from figures.plots.ablation import best_method, usual_budget
from figures.records.ablation import Ablation, AblationRow

#: Axis labels with units; a study of another name is labelled by its name.
LABELS = {
    "policy": "unmasking policy",
    "temperature": "sampling temperature",
    "block-length": "block length L (positions, log scale)",
}
PHRASES = {"policy": "under", "temperature": "at temperature", "block-length": "at block length"}
DODGE = 0.12  # of the distance between two settings

_TABLE = ("study", "setting", "method", "budget", "split", "prompts", "nfe_reduction", "low", "high")


def shown_rows(ablation: Ablation, budget: int | None = None) -> list[AblationRow]:
    """The held-out rows of one budget, by method in the order of legends, settings in the order of the study."""
    chosen = usual_budget(ablation, budget)
    rows = [row for row in ablation.held_out() if row.budget == chosen]
    settings = ablation.settings()
    return sorted(rows, key=lambda row: (method_order(row.method), settings.index(row.setting)))


def table_setting_curves(ablation: Ablation, budget: int | None = None) -> Table:
    """Every drawn point, one row each."""
    rows = [
        (
            ablation.study, row.setting, row.method, row.budget, row.split, row.prompts, row.nfe_reduction,
            row.nfe_reduction_low, row.nfe_reduction_high,
        )
        for row in shown_rows(ablation, budget)
    ]  # fmt: skip
    return Table(_TABLE, tuple(rows))


def draw_setting_curves(ablation: Ablation, budget: int | None = None) -> Figure:
    """Draw the nfe reduction of every method at one budget against the setting of the study.

    Args:
        ablation: a study of ``draftgraph ablate``.
        budget: draft nodes; by default 10, or the largest studied.

    Raises:
        FigureDataError: no rows of test prompts, or none of this budget.
    """
    rows = shown_rows(ablation, budget)
    settings = [setting for setting in ablation.settings() if any(row.setting == setting for row in rows)]
    values = _as_numbers(settings)
    methods = list(dict.fromkeys(row.method for row in rows))
    figure = new_figure(height=3.6)
    axes = figure.subplots()
    style_axes(
        axes,
        x_label=LABELS.get(ablation.study, ablation.study.replace("_", " ")),
        y_label="NFE reduction (× fewer forwards)",
    )
    axes.axhline(1.0, color=FAINT, linewidth=0.9, zorder=1)
    places = values or {setting: float(index) for index, setting in enumerate(settings)}
    for number, method in enumerate(methods):
        shift = 0.0 if values else (number - (len(methods) - 1) / 2) * DODGE
        _draw_method(axes, [row for row in rows if row.method == method], places, shift)
    if ablation.study == "block-length" and values:
        axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(places.values())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(places.values()), list(places), fontsize=TEXT_SIZE)
    if not values:
        axes.set_xlim(-0.5, len(settings) - 0.5)
    ends = [end for row in rows for end in (row.nfe_reduction, row.nfe_reduction_low, row.nfe_reduction_high)]
    axes.set_ylim(value_limits([1.0, *ends]))
    note = (
        f"On {prompts_of('test', ablation.test_prompts())}, each setting against plain decoding in the same setting "
        f"(the line at 1). {ablation.about()}"
    )
    handles = _handles(methods, values is not None, any(row.nfe_reduction_low is not None for row in rows))
    finish(figure, headline(ablation, rows), note.rstrip(), handles)
    return figure


def headline(ablation: Ablation, rows: list[AblationRow]) -> str:
    """Where the method that is best on search prompts gains most and least; it compares no two settings."""
    best = best_method(ablation, rows[0].budget)
    own = {row.setting: row.nfe_reduction for row in rows if row.method == best}
    most, least = max(own, key=lambda name: own[name]), min(own, key=lambda name: own[name])
    what = PHRASES.get(ablation.study, f"at {ablation.study}")
    text = f"D = {rows[0].budget}: the {method_style(best).label} graph needs {own[most]:.2f}× fewer forwards "
    text += f"{what} {most}" if most == least else f"{what} {most}, {own[least]:.2f}× {what} {least}"
    return cautious(text, [row.prompts for row in rows])


def _as_numbers(settings: list[str]) -> dict[str, float] | None:
    try:
        return {setting: float(setting) for setting in settings}
    except ValueError:
        return None


def _draw_method(axes: Axes, rows: list[AblationRow], places: dict[str, float], shift: float) -> None:
    style = method_style(rows[0].method)
    x = [places[row.setting] + shift for row in rows]
    y = [row.nfe_reduction for row in rows]
    named = shift != 0.0 or any(row.setting != f"{places[row.setting]:g}" for row in rows)
    axes.plot(
        x, y, color=style.colour, linewidth=0.8 if named else 1.8, alpha=0.5 if named else 1.0, zorder=2,
        gid=f"{rows[0].method}/line",
    )  # fmt: skip
    axes.plot(
        x, y, linestyle="none", color=style.colour, marker=style.marker, markersize=marker_size(style), zorder=4,
        gid=f"{rows[0].method}/points",
    )  # fmt: skip
    low, high = [row.nfe_reduction_low for row in rows], [row.nfe_reduction_high for row in rows]
    gid = f"{rows[0].method}/band"
    if not named and sum(end is not None for end in low) > 1:
        draw_band(axes, x, low, high, style.colour, gid)
        return
    band = [(at, a, b) for at, a, b in zip(x, low, high, strict=True) if a is not None and b is not None]
    if band:
        axes.vlines(*zip(*band, strict=True), color=style.colour, linewidth=1.6, alpha=0.6, gid=gid)


def _handles(methods: list[str], numeric: bool, intervals: bool) -> list[Any]:
    handles: list[Any] = [method_mark(method_style(name), linestyle="-" if numeric else "none") for name in methods]
    if intervals:
        handles.append(band_mark() if numeric else line_mark(INTERVAL, FAINT, linewidth=1.6, alpha=0.6))
    return handles
