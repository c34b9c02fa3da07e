"""Peak memory against the draft budget, a line per context length and batch: predicted, and measured where it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from figures.canvas.output import Table
from figures.canvas.style import FAINT, INK, TEXT_SIZE, figure_legend, legend_inches, new_figure, set_heading
from figures.canvas.style import style_axes as style
from figures.records import fields
from figures.records.fields import MEMORY_FORMAT, Item
from verify.files.strict_json import fail

_TABLE = ("context_length", "batch", "drafts", "predicted_bytes", "measured_bytes", "error")
#: Of context lengths: Okabe and Ito's colours, which stay apart where lines run close together.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: Of batches.
_DASHES: tuple[Literal["-"] | tuple[int, tuple[int, ...]], ...] = (
    "-",
    (0, (5, 2)),
    (0, (7, 2, 1, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
_MARKERS = ("o", "s", "^", "D")
GIB = 2**30


@dataclass(frozen=True)
class MemoryPoint:
    """One load: bytes predicted, and measured or None."""

    context_length: int
    batch: int
    drafts: int
    predicted: int
    measured: int | None

    def error(self) -> float | None:
        """(predicted - measured) / measured."""
        return None if self.measured is None else self.predicted / self.measured - 1


@dataclass(frozen=True)
class Memory:
    """A file of ``draftgraph memory`` that was read."""

    model: str
    device: str
    dtype: str
    weights: int
    available: int
    points: tuple[MemoryPoint, ...]

    def lines(self) -> dict[tuple[int, int], list[MemoryPoint]]:
        """The points of each (context length, batch), by drafts."""
        found: dict[tuple[int, int], list[MemoryPoint]] = {}
        for point in self.points:
            found.setdefault((point.context_length, point.batch), []).append(point)
        return {key: sorted(points, key=lambda point: point.drafts) for key, points in sorted(found.items())}


def load_memory(path: str | Path) -> Memory:
    """Read a file of ``draftgraph memory``.

    Raises:
        FigureDataError: no such file, another format or unit, no rows, or a row without its numbers.
    """
    return fields.read_saved(Path(path), _memory)


def _memory(outer: Item) -> Memory:
    fields.check_format(outer, MEMORY_FORMAT)
    if fields.text(outer, "unit", "file") != "bytes":
        fail("file.unit", '"bytes"', outer["unit"])
    return Memory(
        model=fields.text(outer, "model", "file"),
        device=fields.device(outer),
        dtype=fields.text(outer, "dtype", "file"),
        weights=fields.count(outer, "weights", "file"),
        available=fields.count(outer, "available", "file"),
        points=fields.some_rows(outer, _point),
    )


def _point(item: Item, where: str) -> MemoryPoint:
    return MemoryPoint(
        context_length=fields.count(item, "context_length", where),
        batch=fields.count(item, "batch", where),
        drafts=fields.count(item, "drafts", where),
        predicted=fields.count(item, "predicted", where),
        measured=fields.optional_count(item, "measured", where),
    )


def table_memory(memory: Memory) -> Table:
    """Every load, one row each."""
    return Table(
        _TABLE,
        tuple(
            (point.context_length, point.batch, point.drafts, point.predicted, point.measured, point.error())
            for points in memory.lines().values()
            for point in points
        ),
    )


def draw_memory(memory: Memory) -> Figure:
    """Draw predicted peaks as lines and measured ones as markers, in GiB, with the weights and what the device has.

    The context length is a line's colour, the batch its dashes and marker.
    """
    lines = memory.lines()
    contexts = sorted({context for context, _ in lines})
    batches = sorted({batch for _, batch in lines})
    highest = max(max(point.predicted, point.measured or 0) for point in memory.points)
    scale, unit = (GIB, "GiB") if highest >= GIB / 10 else (2**20, "MiB")
    measured = any(point.measured is not None for point in memory.points)
    fits = memory.available <= 1.6 * highest
    handles = _handles(contexts, batches, measured, fits)
    below = 0.1 + legend_inches(handles, 4)
    figure = new_figure(height=4.2 + below)
    axes = figure.subplots()
    style(axes, x_label="draft budget D (draft nodes per forward)", y_label=f"peak memory ({unit})")
    for (context, batch), points in lines.items():
        look = _look(contexts.index(context), batches.index(batch))
        drafts = [point.drafts for point in points]
        axes.plot(
            drafts, [point.predicted / scale for point in points], color=look.colour, linestyle=look.dashes,
            linewidth=1.5, zorder=3, gid=f"predicted-{context}-{batch}",
        )  # fmt: skip
        markers = [(point.drafts, point.measured / scale) for point in points if point.measured is not None]
        if markers:
            axes.plot(
                *zip(*markers, strict=True), color=look.colour, linestyle="none", marker=look.marker, markersize=5.5,
                markerfacecolor="none", markeredgewidth=1.2, zorder=4, gid=f"measured-{context}-{batch}",
            )  # fmt: skip
    axes.axhline(memory.weights / scale, color=FAINT, linewidth=1.0, linestyle=":", zorder=1, gid="weights")
    if fits:
        axes.axhline(memory.available / scale, color=INK, linewidth=1.2, linestyle=":", zorder=1, gid="available")
    axes.set_ylim(0, 1.06 * max(highest, memory.available if fits else 0) / scale)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=TEXT_SIZE)
    figure_legend(figure, handles, 4, 0.02)
    read = "Lines: predicted from the model's sizes. Markers: measured." if measured else "Predicted from sizes alone."
    only = f", batch {batches[0]}" if len(batches) == 1 else ""
    set_heading(
        figure, headline(memory), f"{read} {memory.model}, {memory.device}, {memory.dtype}{only}.", footer=below
    )
    return figure


@dataclass(frozen=True)
class _Look:
    colour: str
    dashes: Literal["-"] | tuple[int, tuple[int, ...]]
    marker: str


def _look(context: int, batch: int) -> _Look:
    """How the line of the n-th context length and the m-th batch looks."""
    return _Look(_COLOURS[context % len(_COLOURS)], _DASHES[batch % len(_DASHES)], _MARKERS[batch % len(_MARKERS)])


def _handles(contexts: Sequence[int], batches: Sequence[int], measured: bool, fits: bool) -> list[Artist]:
    """One entry a context length and, where there are several, one a batch."""
    handles: list[Artist] = [
        Line2D([], [], color=_look(n, 0).colour, linewidth=2.0, label=f"context {context}")
        for n, context in enumerate(contexts)
    ]
    for m, batch in enumerate(batches if len(batches) > 1 else ()):
        look = _look(0, m)
        entry = Line2D([], [], color=FAINT, linestyle=look.dashes, linewidth=1.5, label=f"batch {batch}")
        if measured:
            entry.set(marker=look.marker, markersize=5.5, markerfacecolor="none")
        handles.append(entry)
    handles.append(Line2D([], [], color=FAINT, linewidth=1.0, linestyle=":", label="weights"))
    if fits:
        handles.append(Line2D([], [], color=INK, linewidth=1.2, linestyle=":", label="memory of the device"))
    return handles


def headline(memory: Memory) -> str:
    """How far predictions are off, or what the largest load is predicted to need."""
    errors = [error for point in memory.points if (error := point.error()) is not None]
    top = max(memory.points, key=lambda point: point.predicted)
    if errors:
        low, high = 100 * min(errors), 100 * max(errors)
        return f"Predicted peaks are {low:+.1f} % to {high:+.1f} % off the measured ones"
    return (
        f"{top.drafts} drafts at context {top.context_length} and batch {top.batch} are predicted to need "
        f"{top.predicted / GIB:.3g} GiB, of which {memory.weights / GIB:.3g} GiB are weights"
    )
