"""Which texts of a figure can be read: all of them inside it, none over another."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def visible_texts(figure: Figure) -> dict[str, Bbox]:
    """The drawn texts with their boxes in pixels; keys are the texts, numbered."""
    figure.draw_without_rendering()
    hidden: set[int] = set()
    for axes in figure.axes:
        if not axes.get_visible():
            hidden |= {id(text) for text in axes.findobj(Text)}
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                # A tick out of view keeps its text, but it is not drawn.
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    hidden |= {id(tick.label1), id(tick.label2)}
    found = {}
    for number, text in enumerate(figure.findobj(Text)):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            found[f"{number}: {text.get_text()}"] = text.get_window_extent()
    return found


def overlapping(boxes: dict[str, Bbox], slack: float = 1.0) -> list[tuple[str, str]]:
    """Pairs of texts that share more than ``slack`` pixels in both directions."""
    names = list(boxes)
    pairs = []
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            common = Bbox.intersection(boxes[first], boxes[second])
            if common is not None and common.width > slack and common.height > slack:
                pairs.append((first, second))
    return pairs


def outside(figure: Figure, boxes: dict[str, Bbox]) -> list[str]:
    """Texts that stick out of the figure."""
    whole = figure.bbox
    return [
        name
        for name, box in boxes.items()
        if box.x0 < whole.x0 - 1 or box.y0 < whole.y0 - 1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1
    ]


def assert_legible(figure: Figure) -> None:
    """Every text lies inside the figure, clear of every other, and is at least 7 points high."""
    boxes = visible_texts(figure)
    assert boxes
    assert not outside(figure, boxes)
    assert not overlapping(boxes)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7.0
