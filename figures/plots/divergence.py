"""Does speculation change more than batching does? Prompts that differ, and how narrow the decisions were there.

On the left, per way of decoding, the share of prompts whose tokens differ from those of plain decoding at batch 1, and
of those whose path does. On the right, how close the first differing decision was, beside all decisions of the decode:
rounding can only turn those that were nearly even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from figures.canvas.marks import line_mark
from figures.canvas.output import Table
from figures.canvas.page import finish, new_figure, style_axes
from figures.canvas.style import FAINT, INK, TEXT_SIZE
from figures.canvas.words import cautious, plural
from figures.records.divergence import BATCH, DRAFTS, PATH, TOKENS, DivergenceFile, Way
from figures.records.words import facts

#: Colour and marker of each way of decoding; a way that is not known is drawn in grey.
WAYS = {
    "repeat": ("#595959", "x"),
    BATCH: ("#D55E00", "s"),
    "blank": ("#E69F00", "^"),
    DRAFTS: ("#0072B2", "o"),
}
ALL_COLOUR = "#8c8c8c"
#: Margins below this one are drawn on a linear scale, so that exact ties have a place.
NARROWEST = 1e-5
_TABLE = ("panel", "way", "what", "value", "low", "high")


def table_divergence(found: DivergenceFile) -> Table:
    """Every point of both panels, one row each; shares as fractions."""
    rows: list[tuple[Any, ...]] = []
    for way in found.arms:
        for what, (count, low, high) in (("tokens differ", way.tokens), ("path parts", way.path)):
            rows.append(("prompts", way.arm, what, count / way.prompts if way.prompts else None, low, high))
    rows += [
        ("margins", way.arm, "margin of a divergence", margin, None, None)
        for way in found.arms
        for margin in found.margins(way.arm)
    ]
    last = max(len(found.decision_margin_quantiles) - 1, 1)
    rows += [
        ("margins", "all decisions", f"quantile {k / last:.3f}", margin, None, None)
        for k, margin in enumerate(found.decision_margin_quantiles)
    ]
    return Table(_TABLE, tuple(rows))


def draw_divergence(found: DivergenceFile) -> Figure:
    """Draw shares of prompts with intervals on the left, margins of divergences beside all decisions on the right."""
    figure = new_figure(height=3.1)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    _draw_shares(left, found)
    _draw_margins(right, found)
    note = "Against plain decoding, one sequence at a time; 95 % intervals over prompts."
    if found.decision_margin_quantiles:
        note += f" Grey: all {plural(found.decisions, 'decision')} of it."
    note += f" {facts(found.config, ('model', 'policy', 'cache', 'drafts'))}"
    finish(figure, cautious(headline(found), [found.prompts], "test"), note.rstrip(), _handles(found), columns=6)
    return figure


def headline(found: DivergenceFile) -> str:
    """Speculation against batching: by tokens where any differ, else by paths, as the paired test of the file says."""
    drafts, batch = found.way(DRAFTS), found.way(BATCH)
    start = f"In {found.dtype}"
    if drafts is None or batch is None:
        return f"{start}: which ways of decoding differ from plain decoding at batch 1"
    prompts = plural(found.prompts, "prompt")
    if not any(way.tokens[0] or way.path[0] for way in (drafts, batch)):
        return f"{start} neither speculation nor batching changed any of {prompts}"
    measure, what = (TOKENS, "other tokens") if drafts.tokens[0] or batch.tokens[0] else (PATH, "another path")
    first, second = (way.tokens[0] if measure == TOKENS else way.path[0] for way in (drafts, batch))
    counts = f"{what} in {first} against {second} of {prompts}"
    text = "" if measure == TOKENS else "neither changes a token; "
    verdict = found.verdict(measure)
    if verdict in ("more", "fewer"):
        return f"{start} {text}speculation changes {verdict} prompts than batching alone: {counts}"
    return f"{start} {text}speculation cannot be told from batching alone: {counts}"


def _look(way: Way) -> tuple[str, str]:
    return WAYS.get(way.arm, (ALL_COLOUR, "d"))


def _draw_shares(axes: Axes, found: DivergenceFile) -> None:
    style_axes(axes, x_label="prompts that differ (%)", title="how often", grid="x")
    places = range(len(found.arms))
    for place, way in zip(places, found.arms, strict=True):
        colour, _ = _look(way)
        for offset, (count, low, high), filled in ((-0.13, way.tokens, True), (0.13, way.path, False)):
            axes.hlines(place + offset, 100 * low, 100 * high, color=colour, linewidth=1.6, alpha=0.55)
            axes.plot(
                [100 * count / way.prompts if way.prompts else 0.0], [place + offset], linestyle="none", marker="o",
                markersize=6.5, color=colour, markerfacecolor=colour if filled else "white", markeredgewidth=1.4,
                clip_on=False, zorder=4, gid=f"{way.arm}-{'tokens' if filled else 'path'}",
            )  # fmt: skip
    axes.set_yticks(list(places), [way.label for way in found.arms], fontsize=TEXT_SIZE, color=INK)
    axes.set_ylim(len(found.arms) - 0.5, -0.5)
    highest = max((high for way in found.arms for _, _, high in (way.tokens, way.path)), default=0.0)
    axes.set_xlim(0, min(100.0, max(105 * highest, 1.0)))


def _draw_margins(axes: Axes, found: DivergenceFile) -> None:
    style_axes(
        axes, x_label="margin of the decision (probability)", y_label="share at most this narrow",
        title="how narrow the decision was", grid="both",
    )  # fmt: skip
    axes.set_xscale("symlog", linthresh=NARROWEST, linscale=0.4)
    axes.xaxis.set_major_locator(FixedLocator([0, *(10.0**power for power in range(-4, 1))]))
    axes.xaxis.set_major_formatter(lambda value, _: "0" if value == 0 else _power(round(np.log10(value))))
    if found.decision_margin_quantiles:
        shares = np.linspace(0, 1, len(found.decision_margin_quantiles))
        axes.plot(found.decision_margin_quantiles, shares, color=ALL_COLOUR, linewidth=1.6, zorder=2, gid="all")
    for way in found.arms:
        margins = found.margins(way.arm)
        if not margins:
            continue
        colour, marker = _look(way)
        count = len(margins)
        axes.plot(
            [margins[0], *margins], np.arange(count + 1) / count, color=colour, linewidth=1.8,
            drawstyle="steps-post", zorder=3, gid=f"{way.arm}-margins",
        )  # fmt: skip
        axes.plot(
            margins, np.arange(1, count + 1) / count, linestyle="none", color=colour, marker=marker, markersize=4.5,
            zorder=4, clip_on=False,
        )  # fmt: skip
    if not any(found.margins(way.arm) for way in found.arms):
        axes.text(
            0.5, 0.5, "no decode parted", transform=axes.transAxes, ha="center", va="center", fontsize=TEXT_SIZE,
            color=FAINT,
        )  # fmt: skip
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _power(exponent: int) -> str:
    """ "10⁻³" in plain characters: texts of a page are never parsed as mathematics."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _handles(found: DivergenceFile) -> list[Line2D]:
    point = {"linestyle": "none", "marker": "o", "markersize": 6.5}
    handles = [line_mark("other tokens", INK, **point), line_mark("other path", INK, markerfacecolor="white", **point)]
    for way in found.arms:
        if found.margins(way.arm):
            colour, marker = _look(way)
            handles.append(line_mark(way.label, colour, marker=marker, markersize=4.5))
    if found.decision_margin_quantiles:
        handles.append(line_mark("all decisions", ALL_COLOUR, linewidth=1.6))
    return handles
