"""What a setting does to the gain: nfe reduction against policy, temperature or block length, one line per method.

Settings that are numbers stand at their values and lines have bands; other settings stand side by side, in the order
of the study, and every point has its own interval, because nothing lies between two decode rules.
"""

from __future__ import annotations

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
    TEXT_SIZE,
    figure_legend,
    legend_inches,
    marker_size,
    method_order,
    method_style,
    new_figure,
    set_heading,
    style_axes,
)
from figures.plots.ablation import Ablation, AblationRow, best_method, usual_budget

#: Axis labels with units; a study of another name is labelled by its name.
LABELS = {
    "policy": "unmasking policy",
    "temperature": "sampling temperature",
    "block-length": "block length L (positions, log scale)",
}
PHRASES = {"policy": "under", "temperature": "at temperature", "block-length": "at block length"}
COLUMNS = 5
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
    handles = _handles(methods, values is not None, any(row.nfe_reduction_low is not None for row in rows))
    below = 0.1 + legend_inches(handles, COLUMNS)
    figure = new_figure(height=4.1 + below)
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
    _set_limits(axes, rows)
    figure_legend(figure, handles, COLUMNS, 0.02)
    note = (
        f"On {ablation.prompts_said()}, each setting against plain decoding in the same setting (the line at 1). "
        f"{ablation.about()}"
    )
    set_heading(figure, headline(ablation, rows), note.rstrip(), footer=below)
    return figure


def headline(ablation: Ablation, rows: list[AblationRow]) -> str:
    """Where the best method gains most and least."""
    best = best_method(rows)
    own = {row.setting: row.nfe_reduction for row in rows if row.method == best}
    most, least = max(own, key=lambda name: own[name]), min(own, key=lambda name: own[name])
    label = method_style(best).label
    what = PHRASES.get(ablation.study, f"at {ablation.study}")
    start = f"D = {rows[0].budget}: the {label} graph needs"
    if most == least:
        return f"{start} {own[most]:.2f}× fewer forwards {what} {most}"
    return f"{start} {own[most]:.2f}× fewer forwards {what} {most}, {own[least]:.2f}× {what} {least}"


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
    band = [(place, row) for place, row in zip(x, rows, strict=True) if row.nfe_reduction_low is not None]
    if not band:
        return
    low, high = [row.nfe_reduction_low or 0.0 for _, row in band], [row.nfe_reduction_high or 0.0 for _, row in band]
    at = [place for place, _ in band]
    if named or len(band) == 1:
        axes.vlines(at, low, high, color=style.colour, linewidth=1.6, alpha=0.6, gid=f"{rows[0].method}/band")
    else:
        axes.fill_between(at, low, high, color=style.colour, alpha=0.13, linewidth=0, gid=f"{rows[0].method}/band")


def _set_limits(axes: Axes, rows: list[AblationRow]) -> None:
    ends = [value for row in rows for value in (row.nfe_reduction, row.nfe_reduction_high) if value is not None]
    starts = [value for row in rows for value in (row.nfe_reduction, row.nfe_reduction_low) if value is not None]
    low, high = min(1.0, *starts), max(1.1, *ends)
    axes.set_ylim(low - 0.04 * (high - low), high + 0.06 * (high - low))
    axes.yaxis.label.set(fontsize=LABEL_SIZE, color=INK)


def _handles(methods: list[str], numeric: bool, intervals: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for method in methods:
        style = method_style(method)
        handles.append(
            Line2D(
                [], [], color=style.colour, marker=style.marker, markersize=marker_size(style), linewidth=1.8,
                linestyle="-" if numeric else "none", label=style.label,
            )
        )  # fmt: skip
    if intervals and numeric:
        handles.append(Patch(color=FAINT, alpha=0.2, linewidth=0, label="95 % interval"))
    elif intervals:
        handles.append(Line2D([], [], color=FAINT, linewidth=1.6, alpha=0.6, label="95 % interval"))
    return handles
