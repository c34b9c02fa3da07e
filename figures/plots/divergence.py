"""Does speculation change more than batching does? Prompts that differ, and how narrow the decisions were there.

On the left, per way of decoding, the share of prompts whose tokens differ from those of plain decoding at batch 1, and
of those whose path does. On the right, how close the first differing decision was, beside all decisions of the decode:
rounding can only turn those that were nearly even.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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
from figures.records import fields
from figures.records.fields import DIVERGENCE_FORMAT, Item
from figures.records.words import facts
from verify.files.strict_json import Words, fail

BATCH, DRAFTS = "batch", "drafts"
TOKENS, PATH = "tokens", "path"
VERDICTS = ("more", "fewer", "cannot be told apart")
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


@dataclass(frozen=True)
class Way:
    """One way of decoding: prompts that differ with 95 % intervals of their shares, and margins, ascending."""

    name: str
    label: str
    batch: int
    prompts: int
    tokens: tuple[int, float, float]
    path: tuple[int, float, float]
    margins: tuple[float, ...]


@dataclass(frozen=True)
class Divergence:
    """A divergence file that was read.

    Attributes:
        dtype: of the model.
        prompts: decoded.
        ways: in the order of the file.
        verdicts: of speculation against batching, by measure.
        quantiles: of the margins of all decisions, evenly spaced from 0 to 1; empty where there are none.
        decisions: how many these are.
        config: what was decoded.
    """

    path: Path
    dtype: str
    prompts: int
    ways: tuple[Way, ...]
    verdicts: dict[str, str]
    quantiles: tuple[float, ...]
    decisions: int
    config: dict[str, Any]

    def way(self, name: str) -> Way | None:
        return next((way for way in self.ways if way.name == name), None)


def load_divergence(path: str | Path) -> Divergence:
    """Read a file of ``draftgraph verify --out``.

    Raises:
        FigureDataError: no such file, another format, no way of decoding or one twice, more prompts that differ than
            prompts, an interval the wrong way round, or a divergence of a way that is not there.
    """
    path = Path(path)
    return fields.read_saved(path, lambda outer: _divergence(path, outer))


def _divergence(path: Path, outer: Item) -> Divergence:
    fields.check_format(outer, DIVERGENCE_FORMAT)
    if not fields.each(outer, "arms", lambda item, where: item):
        fail("arms", "at least one way of decoding", Words("none"))
    margins = _margins(outer)
    ways = fields.each(outer, "arms", lambda item, where: _way(item, where, margins))
    names = [way.name for way in ways]
    if len(set(names)) != len(names):
        fail("arms", "each way once", names)
    if foreign := sorted(set(margins) - set(names)):
        fail("divergences", f"ways among {', '.join(names)}", foreign)
    found = fields.each(outer, "comparisons", _verdict)
    quantiles = fields.numbers(outer, "decision_margin_quantiles", "file")
    if list(quantiles) != sorted(quantiles):
        fail("file.decision_margin_quantiles", "ascending numbers", Words("others"))
    config = outer.get("config")
    return Divergence(
        path=path,
        dtype=fields.text(outer, "dtype", "file"),
        prompts=fields.count(outer, "prompts", "file"),
        ways=ways,
        verdicts={measure: verdict for first, second, measure, verdict in found if (first, second) == (DRAFTS, BATCH)},
        quantiles=quantiles,
        decisions=fields.count(outer, "decisions", "file"),
        config=config if isinstance(config, dict) else {},
    )


def _margins(outer: Item) -> dict[str, list[float]]:
    margins: dict[str, list[float]] = {}
    for name, margin in fields.each(
        outer,
        "divergences",
        lambda item, where: (fields.text(item, "arm", where), fields.optional_number(item, "margin", where)),
    ):
        margins.setdefault(name, [])
        if margin is not None:
            margins[name].append(margin)
    return margins


def _way(item: Item, where: str, margins: dict[str, list[float]]) -> Way:
    name, prompts = fields.text(item, "arm", where), fields.count(item, "prompts", where)
    return Way(
        name=name,
        label=fields.text(item, "label", where),
        batch=fields.count(item, "batch", where),
        prompts=prompts,
        tokens=_share(item, "tokens_differ", where, prompts),
        path=_share(item, "path_parts", where, prompts),
        margins=tuple(sorted(margins.get(name, ()))),
    )


def _share(item: Item, name: str, where: str, prompts: int) -> tuple[int, float, float]:
    count = fields.count(item, name, where)
    low, high = fields.interval(item, name, where)
    if count > prompts or low is None or high is None:
        fail(f"{where}.{name}", f"at most {prompts} prompts, with the interval of their share", count)
    return count, low or 0.0, high or 0.0


def _verdict(item: Item, where: str) -> tuple[str, str, str, str]:
    verdict = fields.text(item, "verdict", where)
    if verdict not in VERDICTS:
        fail(f"{where}.verdict", f"one of {', '.join(VERDICTS)}", verdict)
    first, second, measure = (fields.text(item, name, where) for name in ("first", "second", "measure"))
    return first, second, measure, verdict


def table_divergence(found: Divergence) -> Table:
    """Every point of both panels, one row each; shares as fractions."""
    rows: list[tuple[Any, ...]] = []
    for way in found.ways:
        for what, (count, low, high) in (("tokens differ", way.tokens), ("path parts", way.path)):
            rows.append(("prompts", way.name, what, count / way.prompts if way.prompts else None, low, high))
    rows += [
        ("margins", way.name, "margin of a divergence", margin, None, None)
        for way in found.ways
        for margin in way.margins
    ]
    last = max(len(found.quantiles) - 1, 1)
    rows += [
        ("margins", "all decisions", f"quantile {k / last:.3f}", margin, None, None)
        for k, margin in enumerate(found.quantiles)
    ]
    return Table(_TABLE, tuple(rows))


def draw_divergence(found: Divergence) -> Figure:
    """Draw shares of prompts with intervals on the left, margins of divergences beside all decisions on the right."""
    figure = new_figure(height=3.1)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    _draw_shares(left, found)
    _draw_margins(right, found)
    note = "Against plain decoding, one sequence at a time; 95 % intervals over prompts."
    if found.quantiles:
        note += f" Grey: all {plural(found.decisions, 'decision')} of it."
    note += f" {facts(found.config, ('model', 'policy', 'cache', 'drafts'))}"
    finish(figure, cautious(headline(found), [found.prompts], "test"), note.rstrip(), _handles(found), columns=6)
    return figure


def headline(found: Divergence) -> str:
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
    verdict = found.verdicts.get(measure)
    if verdict in ("more", "fewer"):
        return f"{start} {text}speculation changes {verdict} prompts than batching alone: {counts}"
    return f"{start} {text}speculation cannot be told from batching alone: {counts}"


def _look(way: Way) -> tuple[str, str]:
    return WAYS.get(way.name, (ALL_COLOUR, "d"))


def _draw_shares(axes: Axes, found: Divergence) -> None:
    style_axes(axes, x_label="prompts that differ (%)", title="how often", grid="x")
    places = range(len(found.ways))
    for place, way in zip(places, found.ways, strict=True):
        colour, _ = _look(way)
        for offset, (count, low, high), filled in ((-0.13, way.tokens, True), (0.13, way.path, False)):
            axes.hlines(place + offset, 100 * low, 100 * high, color=colour, linewidth=1.6, alpha=0.55)
            axes.plot(
                [100 * count / way.prompts if way.prompts else 0.0], [place + offset], linestyle="none", marker="o",
                markersize=6.5, color=colour, markerfacecolor=colour if filled else "white", markeredgewidth=1.4,
                clip_on=False, zorder=4, gid=f"{way.name}-{'tokens' if filled else 'path'}",
            )  # fmt: skip
    axes.set_yticks(list(places), [way.label for way in found.ways], fontsize=TEXT_SIZE, color=INK)
    axes.set_ylim(len(found.ways) - 0.5, -0.5)
    highest = max((high for way in found.ways for _, _, high in (way.tokens, way.path)), default=0.0)
    axes.set_xlim(0, min(100.0, max(105 * highest, 1.0)))


def _draw_margins(axes: Axes, found: Divergence) -> None:
    style_axes(
        axes, x_label="margin of the decision (probability)", y_label="share at most this narrow",
        title="how narrow the decision was", grid="both",
    )  # fmt: skip
    axes.set_xscale("symlog", linthresh=NARROWEST, linscale=0.4)
    axes.xaxis.set_major_locator(FixedLocator([0, *(10.0**power for power in range(-4, 1))]))
    axes.xaxis.set_major_formatter(lambda value, _: "0" if value == 0 else _power(round(np.log10(value))))
    if found.quantiles:
        shares = np.linspace(0, 1, len(found.quantiles))
        axes.plot(found.quantiles, shares, color=ALL_COLOUR, linewidth=1.6, zorder=2, gid="all")
    for way in found.ways:
        if not way.margins:
            continue
        colour, marker = _look(way)
        count = len(way.margins)
        axes.plot(
            [way.margins[0], *way.margins], np.arange(count + 1) / count, color=colour, linewidth=1.8,
            drawstyle="steps-post", zorder=3, gid=f"{way.name}-margins",
        )  # fmt: skip
        axes.plot(
            way.margins, np.arange(1, count + 1) / count, linestyle="none", color=colour, marker=marker, markersize=4.5,
            zorder=4, clip_on=False,
        )  # fmt: skip
    if not any(way.margins for way in found.ways):
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


def _handles(found: Divergence) -> list[Line2D]:
    point = {"linestyle": "none", "marker": "o", "markersize": 6.5}
    handles = [line_mark("other tokens", INK, **point), line_mark("other path", INK, markerfacecolor="white", **point)]
    for way in found.ways:
        if way.margins:
            colour, marker = _look(way)
            handles.append(line_mark(way.label, colour, marker=marker, markersize=4.5))
    if found.quantiles:
        handles.append(line_mark("all decisions", ALL_COLOUR, linewidth=1.6))
    return handles
