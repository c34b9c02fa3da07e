"""The page around the panels: its size, heading, legends, and texts that are shown as they were written.

A plot asks for the height of its panels and draws them; :func:`finish` writes the heading above and the legends below
and makes the figure as much taller as these need. Everything is set on the artists themselves.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, NullLocator

from figures.canvas.style import (
    DPI,
    FAINT,
    HEADLINE_SIZE,
    INK,
    LABEL_SIZE,
    NOTE_SIZE,
    RULE,
    TEXT_SIZE,
    TITLE_SIZE,
    WIDTH,
)

LEGEND_LINE = 0.2  # inches
#: Entries of a legend that stand side by side where their labels leave room.
LEGEND_COLUMNS = 5
EDGE = 0.1  # inches that stay free around the heading
#: Characters of a legend's entry.
LONGEST_LABEL = 80
_ENTRY_INCHES = 0.6  # line and gaps of a legend's entry
#: Every budget axis of every figure is linear, as rows and time grow with D; an axis that is not says so in its label.
BUDGET_LABEL = "draft budget D (draft nodes per forward)"


class Page(Figure):
    """A figure that shows every text literally.

    Names in saved files may hold anything. matplotlib would take ``$...$`` for mathematics and stop at what it cannot
    parse, so no text of a page is parsed, those that matplotlib makes itself while drawing included. Control
    characters, which no font can draw, become the replacement character.
    """

    def draw(self, renderer: Any) -> None:
        with rc_context({"text.parse_math": False}):  # for tick labels, which are made during this call
            for text in self.findobj(Text):
                text.set_parse_math(False)
                text.set_text(drawable(text.get_text()))
            super().draw(renderer)


def drawable(text: str) -> str:
    """``text`` with the replacement character for every control character but the newline."""
    return "".join("\ufffd" if char != "\n" and unicodedata.category(char)[0] == "C" else char for char in text)


def new_figure(height: float, width: float = WIDTH) -> Page:
    """An empty white figure of ``width`` x ``height`` inches with a canvas that needs no display."""
    figure = Page(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_grid(count: int, x_label: str, y_label: str, share_x: bool = True) -> tuple[Page, list[Axes]]:
    """A figure of ``count`` panels with one y axis, two panels a line, labelled at its outer edges only."""
    columns = min(2, count)
    lines = -(-count // columns)
    figure = new_figure(3.3 if lines == 1 else 2.8 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=share_x, sharey=True)
    for index, axes in enumerate(grid.flat):
        axes.set_visible(index < count)
        style_axes(
            axes,
            x_label=x_label if index + columns >= count else "",
            y_label=y_label if index % columns == 0 else "",
        )
        if index + columns >= count:
            axes.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def finish(
    figure: Figure, headline: str, note: str = "", *legends: Sequence[Artist], columns: int = LEGEND_COLUMNS
) -> None:
    """Write what the figure shows on top of it and the legends below; the panels keep their height. Call it once.

    Args:
        figure: one of :func:`new_figure`, with all its panels.
        headline: one sentence that states what is seen; wrapped to the figure's width.
        note: how to read it, smaller; wrapped too.
        legends: the entries of each legend, the upper one first; empty ones are left out.
        columns: the most entries side by side.
    """
    engine = figure.get_layout_engine()
    if engine is None:
        raise ValueError("finish needs a figure of new_figure, this one has no layout engine")
    width, body = figure.get_size_inches()
    shown = [handles for handles in legends if handles]
    entries = []
    for handles in shown:
        labels, widths = _legend_labels(figure, handles)
        side_by_side = legend_columns(widths, columns)
        entries.append((handles, labels, side_by_side, LEGEND_LINE * -(-len(handles) // side_by_side)))
    footer = sum(entry[-1] for entry in entries) + (EDGE if shown else 0.0)
    texts = [
        (_wrap(figure, text.strip(), size, weight, (width - 2 * EDGE) * figure.dpi), size, weight, colour)
        for text, size, weight, colour in (
            (headline, HEADLINE_SIZE, "bold", INK),
            (note, NOTE_SIZE, "normal", FAINT),
        )
        if text
    ]
    inches = [len(lines) * size * 1.3 / 72 + 0.05 for lines, size, _, _ in texts]
    top = EDGE + sum(inches) + 0.05
    height = body + top + footer
    figure.set_size_inches(width, height)
    down = EDGE
    for (lines, size, weight, colour), used in zip(texts, inches, strict=True):
        figure.text(
            EDGE / width, 1 - down / height, "\n".join(lines),
            fontsize=size, fontweight=weight, color=colour, ha="left", va="top", linespacing=1.25,
        )  # fmt: skip
        down += used
    below = 0.02
    for handles, labels, side_by_side, used in reversed(entries):
        figure.legend(
            handles=list(handles), labels=labels, loc="lower center", bbox_to_anchor=(0.5, below / height),
            ncols=side_by_side, fontsize=TEXT_SIZE, frameon=False, labelcolor=INK,
            handlelength=2.4, columnspacing=1.5, borderaxespad=0.0, borderpad=0.2, labelspacing=0.3,
        )  # fmt: skip
        below += used
    engine.set(rect=(0, footer / height, 1, body / height))  # type: ignore[call-arg]


def legend_columns(widths: Sequence[float], most: int) -> int:
    """How many entries of a legend stand side by side: at most ``most``, and as ``widths`` (inches) leave room.

    matplotlib fills a legend column by column, the first columns with one entry more where they do not come out even,
    and gives each column the width of its widest entry.
    """
    for columns in range(min(len(widths), most), 1, -1):
        if sum(max(column) for column in np.array_split(np.array(widths), columns)) <= WIDTH:
            return columns
    return 1


def _legend_labels(figure: Figure, handles: Sequence[Artist]) -> tuple[list[str], list[float]]:
    """Labels, long ones cut, and how wide their entries are in inches."""
    font = FontProperties(size=TEXT_SIZE)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    labels = [drawable(str(handle.get_label())) for handle in handles]
    labels = [label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…" for label in labels]
    wide = [renderer.get_text_width_height_descent(label, font, False)[0] / figure.dpi for label in labels]
    return labels, [_ENTRY_INCHES + inches for inches in wide]


def _wrap(figure: Figure, text: str, size: float, weight: str, pixels: float) -> list[str]:
    """``text`` in lines of at most ``pixels``, measured with the font that draws it.

    Lines are filled; only where the last one would be a word or two are the others narrowed a little, if that costs no
    line. A word longer than a line, such as a path, is broken.
    """
    font = FontProperties(size=size, weight=weight)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]

    def width(piece: str) -> float:
        return float(renderer.get_text_width_height_descent(piece, font, False)[0])

    words: list[tuple[str, float]] = []
    # No line may begin with "%" or break "D = 10". Each word is measured once, as measuring takes most of the time.
    joined = drawable(text.replace("\n", " ")).replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0")
    for word in filter(None, joined.split(" ")):
        wide = width(word)
        while wide > pixels:
            part = max(1, int(len(word) * pixels / wide * 0.95))
            words.append((word[:part], width(word[:part])))
            word, wide = word[part:], width(word[part:])
        words.append((word, wide))
    space = width("n n") - width("nn")

    def fill(limit: float) -> tuple[list[str], float]:
        lines: list[str] = []
        used = 0.0
        for word, wide in words:
            if lines and used + space + wide <= limit:
                lines[-1] += " " + word
                used += space + wide
            else:
                lines.append(word)
                used = wide
        return lines, used

    lines, last = fill(pixels)
    for share in (0.95, 0.9, 0.85):
        if len(lines) == 1 or last >= pixels / 3:
            break
        narrower, used = fill(share * pixels)
        if len(narrower) > len(lines):
            break
        lines, last = narrower, used
    return lines


def style_axes(axes: Axes, *, x_label: str = "", y_label: str = "", title: str = "", grid: str = "y") -> None:
    """Set fonts, spines and grid of one panel; ``grid`` is "x", "y", "both" or "" (a panel without spines)."""
    axes.tick_params(labelsize=TEXT_SIZE, colors=INK, length=3, width=0.8)
    for name, spine in axes.spines.items():
        spine.set_visible(bool(grid) and name in ("left", "bottom"))
        spine.set_color(FAINT)
        spine.set_linewidth(0.8)
    if x_label:
        axes.set_xlabel(x_label, fontsize=LABEL_SIZE, color=INK)
    if y_label:
        axes.set_ylabel(y_label, fontsize=LABEL_SIZE, color=INK)
    if title:
        axes.set_title(title, fontsize=TITLE_SIZE, color=INK, loc="left")
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color=RULE, linewidth=0.6)  # type: ignore[arg-type]


def colour_bar(figure: Figure, axes: Axes | Sequence[Axes], mappable: Any, label: str, **options: Any) -> Any:
    """A colour bar without a frame beside ``axes``; its minor ticks carry no labels."""
    bar = figure.colorbar(mappable, ax=axes, **options)
    bar.set_label(label, fontsize=LABEL_SIZE, color=INK)
    bar.ax.yaxis.set_minor_formatter(lambda value, _: "")
    bar.ax.tick_params(which="both", labelsize=TEXT_SIZE, colors=INK)
    bar.outline.set_visible(False)
    return bar


def value_limits(values: Iterable[float | None], below: float = 0.04, above: float = 0.06) -> tuple[float, float]:
    """Limits of an axis around ``values`` (None counts for nothing), with shares of the span to spare."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    span = (high - low) or 0.05 * abs(high) or 1.0
    return low - below * span, high + above * span


def thin_ticks(axis: Axis, values: Iterable[float], room: float = 0.055) -> None:
    """Ticks at ``values`` and nowhere else: both ends, and between them, from the right, whatever has room for both.

    ``room`` is the least distance of two ticks, as a share of the span of all values.
    """
    place = axis.get_transform().transform
    ordered = sorted(set(values), reverse=True)
    first = ordered[-1]
    least = room * float(place(ordered[0]) - place(first))
    ticks = ordered[:1]
    for value in ordered[1:]:
        if value == first or min(place(ticks[-1]) - place(value), place(value) - place(first)) >= least:
            ticks.append(value)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:.0f}")


def budget_axis(axes: Axes, budgets: Iterable[int], label: bool = True) -> None:
    """The x axis of every figure over budgets: linear, a tick at each measured budget that has room."""
    known = sorted(set(budgets))
    span = max(known[-1] - known[0], 1)
    axes.set_xlim(known[0] - 0.03 * span, known[-1] + 0.03 * span)
    thin_ticks(axes.xaxis, known)
    if label:
        axes.set_xlabel(BUDGET_LABEL, fontsize=LABEL_SIZE, color=INK)
