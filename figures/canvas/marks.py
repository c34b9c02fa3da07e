"""Marks that several plots share: entries of legends, bands, labels at the ends of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures.canvas.layered_layout import spread
from figures.canvas.style import FAINT, NOTE_SIZE, MethodStyle, marker_size

DASHES = (0, (4, 2))
INTERVAL = "95 % interval"


def line_mark(label: str, colour: str, **look: Any) -> Line2D:
    """A legend's entry of a line or a marker; ``look`` is what Line2D takes."""
    return Line2D([], [], color=colour, label=label, **{"linewidth": 1.8, **look})


def method_mark(style: MethodStyle, **look: Any) -> Line2D:
    """A legend's entry of a method; ``look`` is what Line2D takes, ``label`` included."""
    usual = {"label": style.label, "marker": style.marker, "markersize": marker_size(style)}
    return line_mark(colour=style.colour, **{**usual, **look})


def band_mark(label: str = INTERVAL, colour: str = FAINT) -> Patch:
    """A legend's entry of a band."""
    return Patch(color=colour, alpha=0.2, linewidth=0, label=label)


def draw_band(
    axes: Axes,
    x: Sequence[float],
    low: Sequence[float | None],
    high: Sequence[float | None],
    colour: str,
    gid: str,
    alpha: float = 0.13,
) -> FillBetweenPolyCollection | None:
    """Fill between ``low`` and ``high`` where both are known; nothing where they nowhere are."""
    known = [(at, a, b) for at, a, b in zip(x, low, high, strict=True) if a is not None and b is not None]
    if not known:
        return None
    at, a, b = zip(*known, strict=True)
    return axes.fill_between(at, a, b, color=colour, alpha=alpha, linewidth=0, zorder=1.5, gid=gid)


def label_heights(axes: Axes, labels: Sequence[tuple[float, str, str, str]]) -> None:
    """Write (height, text, colour, gid) to the right of the panel, moved apart where they would overlap.

    The panel must have its final size: call it after :func:`figures.canvas.page.finish`.
    """
    if not labels:
        return
    figure = axes.get_figure(root=True)
    figure.draw_without_rendering()  # type: ignore[union-attr]
    ordered = sorted(labels)
    low, high = axes.get_ylim()
    inches = axes.get_window_extent().height / figure.dpi  # type: ignore[union-attr]
    heights = spread([label[0] for label in ordered], (high - low) * (NOTE_SIZE * 1.2 / 72) / inches)
    for height, (_, text, colour, gid) in zip(heights, ordered, strict=True):
        axes.annotate(
            text, (1.0, height), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
            fontsize=NOTE_SIZE, va="center", ha="left", color=colour, annotation_clip=False, gid=gid,
            path_effects=[patheffects.withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
