"""What a draft budget buys on held-out prompts: nfe reduction, or accepted drafts, against the number of draft nodes.

A panel per policy. The confidence chain, the published rule and the best known searches have a coloured line with its
interval each, other methods a grey line. Values on search prompts, which are too good, and the bound, which holds for
those prompts alone, stand in no panel beside held-out values: the note sums them up, and the table has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.canvas.marks import band_mark, draw_band, label_heights, line_mark, method_mark
from figures.canvas.page import BUDGET_LABEL, budget_axis, finish, panel_grid, value_limits
from figures.canvas.style import (
    BACKDROP,
    FAINT,
    INK,
    NOTE_SIZE,
    TITLE_SIZE,
    darker,
    marker_size,
    method_style,
)
from figures.canvas.words import cautious, percent, prompts_of
from figures.plots.curves import Cast, Curve, Metric, Panel, cast, curves, held_out
from figures.plots.verdicts import not_judged, ours, panel_verdict, shown, values_at_end, verdict
from figures.records.run import BASELINES, BOUNDS, LEARNING, FigureDataError, Run

_LABELS = {
    "nfe_reduction": "NFE reduction (× fewer forwards)",
    "accepted_drafts": "accepted drafts (drafts per anchor)",
}
#: Where plain decoding stands.
_PLAIN = {"nfe_reduction": 1.0, "accepted_drafts": 0.0}


def draw_nfe_vs_budget(run: Run, metric: Metric = "nfe_reduction") -> Figure:
    """Draw ``metric`` against the budget, a panel per policy (and cache, where several are).

    Raises:
        FigureDataError: the run has no row but plain decoding's.
        ValueError: another metric.
    """
    if metric not in _LABELS:
        raise ValueError(f"metric must be one of {', '.join(_LABELS)}, got {metric!r}")
    panels = {panel: found for panel in run.panels() if held_out(found := curves(run, panel, metric))}
    if not panels:
        raise FigureDataError(
            f"{run.directory}: no search or test rows but plain decoding's, so there is nothing to plot"
        )
    roles = cast(panels, {method for panel in panels for method in list(ours(run, panel).values())[-1:]})
    drawn = [curve for found in panels.values() for curve in held_out(found)]
    figure, grid = panel_grid(len(panels), BUDGET_LABEL, _LABELS[metric])
    several = len({cache for _, cache in panels}) > 1
    for axes, (panel, found) in zip(grid, panels.items(), strict=True):
        judged = panel_verdict(run, panel) if metric == "nfe_reduction" else ""
        _set_title(axes, ", ".join(panel) if several else panel[0], judged)
        axes.axhline(_PLAIN[metric], color=FAINT, linewidth=0.9, zorder=1)
        for curve in held_out(found):
            _draw_curve(axes, curve, roles)
        budget_axis(axes, (budget for curve in drawn for budget in curve.budgets), label=False)
    ends = [value for curve in drawn for value in (*curve.values, *curve.lows, *curve.highs)]
    grid[0].set_ylim(value_limits([_PLAIN[metric], *ends]))
    finish(figure, headline(run, metric), _note(run, panels, metric), _methods(roles), _keys(drawn))
    for axes, found in zip(grid, panels.values(), strict=True):
        label_heights(axes, _end_labels(held_out(found), roles, metric))
    return figure


def headline(run: Run, metric: Metric) -> str:
    """The sentence on top: what the paired comparisons say, else values without a verdict."""
    split = _split(run)
    numbers = [row.prompts for row in run.select(split=split)]
    text = verdict(run, run.panels(), metric) if split == "test" else ""
    if not text:
        text = values_at_end(run, run.panels(), metric, _LABELS[metric].split(" (")[0])
        text += "" if split == "test" else ", on the search prompts"
    return cautious(text, numbers, split)


def _split(run: Run) -> str:
    """The split that is drawn: search prompts only where no graph was tried on others."""
    return "test" if any(row.split == "test" and row.method != "plain" for row in run.rows) else "search"


def _note(run: Run, panels: Mapping[Panel, Sequence[Curve]], metric: Metric) -> str:
    split = _split(run)
    numbers = {row.prompts for row in run.select(split=split)}
    parts = [
        f"On {prompts_of(split, numbers)}. The line at {_PLAIN[metric]:g} is plain decoding.",
        run.setting(),
        _readings(panels),
    ]
    passed = [panel[0] for panel in panels if metric == "nfe_reduction" and not_judged(run, panel)]
    if passed:
        parts.append(f"Degree-1 readings were made for one token a step and are not judged under {', '.join(passed)}.")
    parts.append(_of_bound(panels))
    return " ".join(part for part in parts if part)


def _readings(panels: Mapping[Panel, Sequence[Curve]]) -> str:
    """How the published rule was read; the run chose it per budget on search prompts."""
    readings = {
        reading
        for found in panels.values()
        for curve in held_out(found)
        for reading in curve.readings
        if reading is not None
    }
    if not readings:
        return ""
    if len(readings) == 1:
        return f"The published rule is read as {readings.pop()}, chosen on the search prompts."
    return f"The published rule is read in {len(readings)} ways, chosen per budget on the search prompts (see the CSV)."


def _of_bound(panels: Mapping[Panel, Sequence[Curve]]) -> str:
    """How near the best graphs come to the bound, on the prompts for which it holds; empty where there is no bound."""
    shares = []
    for found in panels.values():
        bounds = {
            budget: value
            for curve in found
            if curve.method in BOUNDS
            for budget, value in zip(curve.budgets, curve.values, strict=True)
        }
        for budget, bound in bounds.items():
            values = [
                dict(zip(curve.budgets, curve.values, strict=True)).get(budget, 0.0)
                for curve in found
                if curve.split == "search" and curve.method not in BOUNDS | BASELINES | LEARNING
            ]
            if bound > 0 and values:
                shares.append(max(values) / bound)
    if not shares:
        return ""
    least = min(1.0, *shares)
    start = "On the search prompts the best graph of every budget"
    if least > 1 - 1e-9:
        return f"{start} reaches the bound, so no graph is better there."
    return f"{start} reaches at least {percent(least)} of the bound that no graph exceeds there."


def _set_title(axes: Axes, name: str, judged: str) -> None:
    """The policy, and below it, smaller, what the comparisons say of it."""
    axes.set_title(name, fontsize=TITLE_SIZE, color=INK, loc="left", pad=16 if judged else 6)
    if judged:
        axes.annotate(
            judged, (0, 1), xycoords="axes fraction", xytext=(0, 5), textcoords="offset points", fontsize=NOTE_SIZE,
            color=FAINT, gid="verdict",
        )  # fmt: skip


def _draw_curve(axes: Axes, curve: Curve, roles: Cast) -> None:
    style, gid = method_style(curve.method), f"{curve.method}/{curve.split}"
    if curve.method in roles.behind:
        axes.plot(curve.budgets, curve.values, color=BACKDROP, linewidth=1.2, zorder=2, gid=gid)
    if curve.method not in roles.front:
        return
    axes.plot(curve.budgets, curve.values, color=style.colour, linewidth=1.8, zorder=3, gid=gid)
    for face, how, counted in ((style.colour, "verified", True), ("white", "replayed", False)):
        points = [
            (budget, value)
            for budget, value, verified in zip(curve.budgets, curve.values, curve.verified, strict=True)
            if verified is counted
        ]
        if points:
            look: dict[str, Any] = {"marker": style.marker, "markersize": marker_size(style)}
            axes.plot(
                *zip(*points, strict=True), linestyle="none", markerfacecolor=face, markeredgecolor=style.colour,
                markeredgewidth=1.0, zorder=4, clip_on=False, gid=f"{gid}/{how}", **look,
            )  # fmt: skip
    draw_band(axes, curve.budgets, curve.lows, curve.highs, style.colour, f"{gid}/band")


def _end_labels(found: Sequence[Curve], roles: Cast, metric: Metric) -> list[tuple[float, str, str, str]]:
    """The last value of each coloured line; lines that end at one value share one label."""
    ends: dict[str, list[Curve]] = {}
    for curve in found:
        if curve.method in roles.front:
            ends.setdefault(shown(curve.values[-1], metric), []).append(curve)
    return [
        (
            same[0].values[-1],
            text,
            darker(method_style(same[0].method).colour) if len(same) == 1 else INK,
            f"{'+'.join(curve.method for curve in same)}/end",
        )
        for text, same in ends.items()
    ]


def _methods(roles: Cast) -> list[Any]:
    """The first legend: an entry a coloured line, which names what lies on it, and one for all grey lines."""
    handles = []
    for method in roles.front:
        style = method_style(method)
        twins = [method_style(twin).label for twin in roles.twins.get(method, [])]
        handles.append(method_mark(style, label=" = ".join([style.label, *twins])))
    if roles.behind:
        names = [method_style(name).label for own in roles.behind for name in (own, *roles.twins.get(own, []))]
        handles.append(line_mark(", ".join(names), BACKDROP, linewidth=1.2))
    return handles


def _keys(drawn: Sequence[Curve]) -> list[Any]:
    """The second legend: what hollow markers and bands mean, each only where it occurs."""
    handles: list[Any] = []
    if {was for curve in drawn for was in curve.verified} == {True, False}:
        for face, label in ((FAINT, "verified by decoding"), ("white", "replay only")):
            handles.append(line_mark(label, FAINT, linestyle="none", marker="o", markersize=5.5, markerfacecolor=face))
    if any(low is not None for curve in drawn for low in curve.lows):
        handles.append(band_mark())
    return handles
