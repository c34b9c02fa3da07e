"""What a forward costs against its rows: medians with quartiles.

The points are what was measured; straight lines join them, and nothing is known of how the time changes between two.
Two lines help to read it: the time without drafts, and the time of as many forwards as there are blocks in one, above
which packing drafts into a forward costs more than running them one after the other.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from calibrate.measuring.latency_table import LatencyTable
from figures.canvas.output import Table
from figures.canvas.style import (
    FAINT,
    INK,
    LABEL_SIZE,
    TEXT_SIZE,
    figure_legend,
    legend_inches,
    new_figure,
    set_heading,
    style_axes,
)

COLOUR = "#0072B2"
#: A draft that makes the forward at most this much longer is called nearly free.
NEARLY_FREE = 1.1
_TABLE = ("drafts", "query_tokens", "milliseconds", "low", "high", "times_plain")


def times_plain(latency: LatencyTable) -> list[float]:
    """Each median over that without drafts."""
    return [value / latency.latency[0] for value in latency.latency]


def nearly_free(latency: LatencyTable) -> int:
    """The largest measured number of drafts up to which every forward takes at most 1.1 times the plain one."""
    free = 0
    for drafts, times in zip(latency.drafts, times_plain(latency), strict=True):
        if times > NEARLY_FREE:
            break
        free = drafts
    return free


def _where(latency: LatencyTable) -> str:
    """What was measured, in words."""
    return (
        f"{latency.device}, {latency.dtype}, batch {latency.batch}, context {latency.context_length}, block length "
        f"{latency.block_length}, {latency.backend} drafts. Model: {latency.model}."
    )


def table_latency_rows(latency: LatencyTable) -> Table:
    """Every measured point, one row each."""
    columns = (latency.drafts, latency.query_tokens, latency.latency, latency.low, latency.high, times_plain(latency))
    return Table(_TABLE, tuple(zip(*columns, strict=True)))


def draw_latency_rows(latency: LatencyTable) -> Figure:
    """Draw the time of a forward against its rows, with the number of drafts on top."""
    handles = _handles(latency)
    below = 0.1 + legend_inches(handles, 4)
    figure = new_figure(height=4.6 + below)
    axes = figure.subplots()
    style_axes(
        axes, x_label="query tokens per forward pass, batch × L × (1 + D)", y_label="time of a forward pass (ms)"
    )
    single = len(latency.query_tokens) == 1
    axes.plot(
        latency.query_tokens, latency.latency, color=COLOUR, linewidth=1.4, marker="o",
        markersize=4.5, zorder=4, gid="median",
    )  # fmt: skip
    if not single:
        axes.fill_between(
            latency.query_tokens, latency.low, latency.high, color=COLOUR, alpha=0.18, linewidth=0, gid="quartiles"
        )
    axes.axhline(latency.latency[0], color=FAINT, linewidth=0.9, linestyle="--", zorder=1, gid="plain")
    blocks = [latency.latency[0] * (1 + drafts) for drafts in latency.drafts]
    axes.plot(latency.query_tokens, blocks, color=FAINT, linewidth=1.0, linestyle=":", zorder=2, gid="separate")
    top = 1.08 * max(latency.high)
    axes.set_ylim(0, top)
    margin = 0.03 * (latency.query_tokens[-1] - latency.query_tokens[0]) or 1.0
    axes.set_xlim(latency.query_tokens[0] - margin, latency.query_tokens[-1] + margin)
    axes.xaxis.set_major_locator(
        FixedLocator([latency.query_tokens[index] for index in _ticks(latency.query_tokens, 0.06)])
    )
    _draw_drafts_axis(axes, latency)
    figure_legend(figure, handles, 4, 0.02)
    note = f"Medians of {latency.repeats} forwards. {_where(latency)} A refresh forward takes {latency.refresh:.3g} ms."
    if latency.note:
        note += f" {latency.note[0].upper()}{latency.note[1:].rstrip('.')}."
    set_heading(figure, headline(latency), note, footer=below)
    return figure


def headline(latency: LatencyTable) -> str:
    """What the largest number of drafts costs, and how many are nearly free."""
    times, last, free = times_plain(latency), latency.drafts[-1], nearly_free(latency)
    if last == 0:
        return f"A forward pass without drafts takes {latency.latency[0]:.3g} ms"
    if free == last:
        return f"Up to {last} drafts make a forward at most {100 * (NEARLY_FREE - 1):.0f} % longer"
    text = f"{last} drafts make a forward {times[-1]:.2f} times as long"
    if free:
        return f"{text}; up to {free} cost at most {100 * (NEARLY_FREE - 1):.0f} %"
    return f"{text}, and the first {'one' if latency.drafts[1] == 1 else latency.drafts[1]} {times[1]:.2f} times"


def _draw_drafts_axis(axes: Axes, latency: LatencyTable) -> None:
    """The number of drafts on top, every one where there is room."""
    upper = axes.twiny()
    upper.set_xlim(axes.get_xlim())
    ticks = _ticks(latency.query_tokens, 0.045)
    upper.xaxis.set_major_locator(FixedLocator([latency.query_tokens[index] for index in ticks]))
    names = {latency.query_tokens[index]: str(latency.drafts[index]) for index in ticks}
    upper.xaxis.set_major_formatter(lambda value, _: names.get(round(value), ""))
    upper.tick_params(labelsize=TEXT_SIZE, colors=INK, length=3, width=0.8)
    upper.set_xlabel("drafts D in the forward", fontsize=LABEL_SIZE, color=INK)
    for spine in upper.spines.values():
        spine.set_visible(False)


def _ticks(rows: tuple[int, ...], room: float) -> list[int]:
    """Indices of the rows that get a label, from the right, ``room`` of the whole span apart."""
    ticks: list[int] = []
    for index in reversed(range(len(rows))):
        if not ticks or rows[ticks[-1]] - rows[index] >= room * (rows[-1] - rows[0]):
            ticks.append(index)
    return ticks


def _handles(latency: LatencyTable) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=COLOUR, linewidth=1.4, marker="o", markersize=4.5, label="median"),
        Line2D([], [], color=FAINT, linewidth=0.9, linestyle="--", label="without drafts"),
        Line2D([], [], color=FAINT, linewidth=1.0, linestyle=":", label="1 + D forwards one by one"),
    ]
    if len(latency.query_tokens) > 1:
        handles.insert(1, Patch(color=COLOUR, alpha=0.25, linewidth=0, label="quartiles"))
    return handles
