"""What a draft budget buys: nfe reduction, or accepted drafts, against the number of draft nodes.

A panel per policy; one line per method. Solid lines are held-out (test) prompts, what a user gets; light dashed
lines are the prompts that the graph was searched on. The budget axis is logarithmic to base 2 from 2 on and linear
below, so that budget 0, plain decoding, is on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from figures.canvas.layered_layout import spread
from figures.canvas.style import (
    BOUNDS,
    FAINT,
    INK,
    LABEL_SIZE,
    NOTE_SIZE,
    darker,
    figure_legend,
    legend_inches,
    marker_size,
    method_order,
    method_style,
    new_figure,
    set_heading,
    style_axes,
)
from figures.plots.curves import Curve, Metric, curves
from figures.records.run import BASELINES, FigureDataError, Run

LEGEND_COLUMNS = 5
DASHES = (0, (4, 2))

_LABELS = {
    "nfe_reduction": "NFE reduction (× fewer forwards)",
    "accepted_drafts": "accepted drafts (drafts per anchor)",
}


def draw_nfe_vs_budget(run: Run, metric: Metric = "nfe_reduction") -> Figure:
    """Draw ``metric`` against the budget for all methods, a panel per policy (and cache, where several are).

    Raises:
        FigureDataError: the run has no row but plain decoding's.
        ValueError: another metric.
    """
    if metric not in _LABELS:
        raise ValueError(f"metric must be one of {', '.join(_LABELS)}, got {metric!r}")
    panels = {panel: found for panel in run.panels() if (found := curves(run, panel, metric))}
    if not panels:
        raise FigureDataError(
            f"{run.directory}: no search or test rows but plain decoding's, so there is nothing to plot"
        )
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    drawn = [curve for found in panels.values() for curve in found]
    methods, keys = _method_handles(drawn), _key_handles(drawn)
    below_inches = 0.1 + legend_inches(methods, LEGEND_COLUMNS) + legend_inches(keys, LEGEND_COLUMNS)
    figure = new_figure(height=0.75 + below_inches + (3.4 if lines == 1 else 2.9 * lines))
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    caches = {cache for _, cache in panels}
    for axes, (panel, found) in zip(grid.flat, panels.items(), strict=False):
        name = panel[0] if len(caches) == 1 else f"{panel[0]}, {panel[1]}"
        _draw_panel(axes, found, f"{name}\n{statement(found, metric)}", metric)
    for index, axes in enumerate(grid.flat):
        if index >= len(panels):
            axes.set_visible(False)
        elif index + columns >= len(panels):
            axes.set_xlabel("draft budget D (draft nodes per forward)", fontsize=LABEL_SIZE, color=INK)
            axes.tick_params(labelbottom=True)
        if index % columns == 0:
            axes.set_ylabel(_LABELS[metric], fontsize=LABEL_SIZE, color=INK)
    _set_limits(grid[0, 0], drawn, metric)
    figure.draw_without_rendering()  # the end labels need the final size of the panels
    set_heading(figure, headline(list(panels.values()), metric), _note(run, drawn), footer=below_inches)
    figure.draw_without_rendering()
    for axes, found in zip(grid.flat, panels.values(), strict=False):
        _label_ends(axes, found, metric)
    below = 0.02
    for handles in (keys, methods):
        below = figure_legend(figure, handles, LEGEND_COLUMNS, below)
    return figure


def _held_out(found: Sequence[Curve]) -> list[Curve]:
    """The test curves of graphs; the search curves where there are no test rows at all."""
    graphs = [curve for curve in found if curve.method not in BOUNDS]
    return [curve for curve in graphs if curve.split == "test"] or graphs


def _format(value: float, metric: Metric) -> str:
    return f"{value:.2f}×" if metric == "nfe_reduction" else f"{value:.2f}"


def statement(found: Sequence[Curve], metric: Metric) -> str:
    """Who is best at the largest budget of a panel, and by how much."""
    held_out = _held_out(found)
    if not held_out:
        return "bounds only"
    budget = max(curve.budgets[-1] for curve in held_out)
    at_end = {c.method: c.values[-1] for c in held_out if c.budgets[-1] == budget}
    best = max(at_end, key=lambda method: at_end[method])
    chain = at_end.get("chain")
    equal = sum(_format(value, metric) == _format(at_end[best], metric) for value in at_end.values())
    text = f"{method_style(best).label if equal == 1 else f'{equal} methods'} {_format(at_end[best], metric)}"
    if chain is not None and best != "chain":
        text += f", chain {_format(chain, metric)}"
    return f"{text} at D = {budget}"


def headline(panels: Sequence[Sequence[Curve]], metric: Metric) -> str:
    """The sentence on top: whether calibrated graphs beat the chain on held-out prompts, as far as the rows say."""
    what = "save more forwards than" if metric == "nfe_reduction" else "get more drafts accepted than"
    verdicts = []
    for found in panels:
        held_out = _held_out(found)
        chain = next((dict(zip(c.budgets, c.values, strict=True)) for c in held_out if c.method == "chain"), {})
        best: dict[int, float] = {}
        for curve in held_out:
            if curve.method not in BASELINES:
                for budget, value in zip(curve.budgets, curve.values, strict=True):
                    best[budget] = max(best.get(budget, value), value)
        verdicts += [best[budget] > chain[budget] for budget in best if budget > 1 and budget in chain]
    if not verdicts:
        return _winner(panels) or f"{_LABELS[metric].split(' (')[0]} against draft budget"
    if all(verdicts):
        return f"Calibrated draft graphs {what} the confidence chain at every budget"
    if any(verdicts):
        return f"Calibrated draft graphs {what} the confidence chain {_times(sum(verdicts), len(verdicts), panels)}"
    return f"No calibrated draft graph {what.replace('save', 'saves').replace('get', 'gets')} the confidence chain"


def _times(count: int, total: int, panels: Sequence[Sequence[Curve]]) -> str:
    """How often something holds; a budget in each of several panels is a case of its own."""
    return f"at {count} of {total} budgets" if len(panels) == 1 else f"in {count} of {total} cases"


def _winner(panels: Sequence[Sequence[Curve]]) -> str:
    """Which of several graphs does best where there is no chain to compare with; empty when there are not several."""
    wins: dict[str, int] = {}
    budgets = 0
    for found in panels:
        at: dict[int, dict[str, float]] = {}
        for curve in _held_out(found):
            for budget, value in zip(curve.budgets, curve.values, strict=True):
                if budget > 0:
                    at.setdefault(budget, {})[curve.method] = value
        for values in (values for values in at.values() if len(values) > 1):
            budgets += 1
            for method in (method for method, value in values.items() if value == max(values.values())):
                wins[method] = wins.get(method, 0) + 1
    if not wins:
        return ""
    best = [method for method, won in wins.items() if won == max(wins.values())]
    where = "at every budget" if wins[best[0]] == budgets else _times(wins[best[0]], budgets, panels)
    if len(best) > 2:
        return f"{len(best)} methods share the best value {where}"
    label = " and ".join(method_style(method).label for method in best)
    return f"{label[0].upper()}{label[1:]} {'does' if len(best) == 1 else 'do'} best {where}"


def _note(run: Run, drawn: Sequence[Curve]) -> str:
    # The prompts of each split, where they are the same in all rows.
    parts = []
    for split, name in (("test", "held-out (test) prompts"), ("search", "search prompts")):
        if any(curve.split == split for curve in drawn):
            numbers = {row.prompts for row in run.select(split=split)} - {None}
            parts.append(f"{numbers.pop()} {name}" if len(numbers) == 1 else name)
    text = f"On {' and '.join(parts)}. D = 0 is plain decoding. {run.setting()}".rstrip()
    readings: dict[str, list[str]] = {}
    for panel in run.panels():
        for curve in curves(run, panel, "nfe_reduction"):
            if curve.reading is not None and panel[0] not in readings.setdefault(curve.reading, []):
                readings[curve.reading].append(panel[0])
    if len(readings) == 1:
        text += f" The published rule is read as {next(iter(readings))}."
    elif readings:
        each = "; ".join(f"{reading} ({', '.join(policies)})" for reading, policies in readings.items())
        text += f" The published rule is read as {each}."
    return text


def _draw_panel(axes: Axes, found: Sequence[Curve], title: str, metric: Metric) -> None:
    axes.set_xscale("symlog", base=2, linthresh=2, linscale=0.5)
    style_axes(axes, title=title)
    axes.axhline(1.0 if metric == "nfe_reduction" else 0.0, color=FAINT, linewidth=0.9, zorder=1)
    held_out = sum(curve.split == "test" for curve in found)
    for curve in found:
        _draw_curve(axes, curve, band_alpha=min(0.13, 0.65 / max(held_out, 1)))  # many bands would add up to grey


def _draw_curve(axes: Axes, curve: Curve, band_alpha: float) -> None:
    style = method_style(curve.method)
    held_out = curve.split == "test"
    bound = curve.method in BOUNDS
    axes.plot(
        curve.budgets, curve.values, color=style.colour, zorder=3 if held_out else 2,
        linestyle=":" if bound else "-" if held_out else DASHES,
        linewidth=1.8 if held_out else 1.3 if bound else 1.0, alpha=1.0 if held_out or bound else 0.5,
        gid=f"{curve.method}/{curve.split}",
    )  # fmt: skip
    if not held_out:
        return
    verified = [index for index, was in enumerate(curve.verified) if was]
    replayed = [index for index, was in enumerate(curve.verified) if not was]
    for indices, face in ((verified, style.colour), (replayed, "white")):
        if indices:
            axes.plot(
                [curve.budgets[n] for n in indices], [curve.values[n] for n in indices], linestyle="none",
                marker=style.marker, markersize=marker_size(style), markerfacecolor=face,
                markeredgecolor=style.colour, markeredgewidth=1.0, zorder=4, clip_on=False,
                gid=f"{curve.method}/{curve.split}/{'verified' if face != 'white' else 'replayed'}",
            )  # fmt: skip
    band = [n for n in range(len(curve.budgets)) if curve.lows[n] is not None]
    if band:
        axes.fill_between(
            [curve.budgets[n] for n in band],
            [curve.lows[n] or 0.0 for n in band],
            [curve.highs[n] or 0.0 for n in band],
            color=style.colour, alpha=band_alpha, linewidth=0, zorder=1.5, gid=f"{curve.method}/{curve.split}/band",
        )  # fmt: skip


def _set_limits(axes: Axes, drawn: Sequence[Curve], metric: Metric) -> None:
    """Limits and ticks, which all panels share: the measured budgets, but for those too close to their neighbours."""
    budgets = sorted({budget for curve in drawn for budget in curve.budgets})
    ends = [value for curve in drawn for value in (*curve.values, *curve.highs) if value is not None]
    starts = [value for curve in drawn for value in (*curve.values, *curve.lows) if value is not None]
    low = min(1.0 if metric == "nfe_reduction" else 0.0, *starts)
    high = max(*ends, low + 0.1)
    axes.set_ylim(low - 0.04 * (high - low), high + 0.06 * (high - low))
    axes.set_xlim(-0.12, max(budgets[-1], 1) * 1.12)
    place = axes.xaxis.get_transform().transform
    ticks: list[int] = []
    span = float(place(max(budgets[-1], 1)) - place(0))
    # The largest budget and 0 always have a label; between them, from the right, whatever leaves room for both.
    for budget in reversed(budgets):
        if not ticks or place(ticks[-1]) - place(budget) >= 0.055 * span:
            ticks.append(budget)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")


def _label_ends(axes: Axes, found: Sequence[Curve], metric: Metric) -> None:
    """Write the last held-out value of each method beside its line, moved apart where they would overlap."""
    curves_at: dict[str, list[Curve]] = {}
    for curve in _held_out(found):
        curves_at.setdefault(_format(curve.values[-1], metric), []).append(curve)
    if not curves_at:
        return
    # Methods that end at one value share one label.
    ends = sorted(curves_at.items(), key=lambda end: end[1][0].values[-1])
    low, high = axes.get_ylim()
    inches = axes.get_window_extent().height / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    gap = (high - low) * (NOTE_SIZE * 1.15 / 72) / inches
    heights = spread([same[0].values[-1] for _, same in ends], gap)
    last = max(curve.budgets[-1] for _, same in ends for curve in same)
    for height, (text, same) in zip(heights, ends, strict=True):
        colour = darker(method_style(same[0].method).colour) if len(same) == 1 else INK
        axes.annotate(
            text, (last, height), xytext=(7, 0), textcoords="offset points",
            fontsize=NOTE_SIZE, va="center", ha="left", color=colour,
            annotation_clip=False, path_effects=[patheffects.withStroke(linewidth=2, foreground="white")],
            gid=f"{'+'.join(curve.method for curve in same)}/end",
        )  # fmt: skip


def _method_handles(drawn: Sequence[Curve]) -> list[Line2D]:
    """The first legend: one entry a method."""
    handles = []
    for method in sorted({curve.method for curve in drawn}, key=method_order):
        style = method_style(method)
        bound = method in BOUNDS
        entry = Line2D([], [], color=style.colour, marker=style.marker, label=style.label)
        entry.set(linestyle=":" if bound else "-", linewidth=1.3 if bound else 1.8, markersize=marker_size(style))
        handles.append(entry)
    return handles


def _key_handles(drawn: Sequence[Curve]) -> list[Line2D | Patch]:
    """The second legend: what dashes, hollow markers and bands mean, each only where it occurs."""
    handles: list[Line2D | Patch] = []
    splits = {curve.split for curve in drawn if curve.method not in BOUNDS}
    if "test" in splits:
        handles.append(Line2D([], [], color=FAINT, linewidth=1.8, label="held-out prompts"))
    if "search" in splits:
        handles.append(Line2D([], [], color=FAINT, linewidth=1.0, alpha=0.6, linestyle=DASHES, label="search prompts"))
    held_out = [curve for curve in drawn if curve.split == "test"]
    if {was for curve in held_out for was in curve.verified} == {True, False}:
        for face, label in ((FAINT, "verified by decoding"), ("white", "replay only")):
            point = Line2D([], [], color=FAINT, linestyle="none", marker="o", markersize=5.5, label=label)
            point.set_markerfacecolor(face)
            handles.append(point)
    if any(low is not None for curve in held_out for low in curve.lows):
        handles.append(Patch(color=FAINT, alpha=0.2, linewidth=0, label="95 % interval"))
    return handles
