"""What a forward costs against its rows: medians with quartiles.

The points are what was measured; straight lines join them, and nothing is known of how the time changes between two.
Two lines help to read it: the time without drafts, and the time of as many forwards as there are blocks in one, above
which packing drafts into a forward costs more than running them one after the other.
"""

from __future__ import annotations

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibrate.measuring.latency_table import LatencyTable
from figures.canvas.marks import band_mark, draw_band, line_mark
from figures.canvas.output import Table
from figures.canvas.page import finish, new_figure, style_axes, thin_ticks
from figures.canvas.style import FAINT, INK, LABEL_SIZE, TEXT_SIZE
from figures.canvas.words import plural

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
    figure = new_figure(height=3.9)
    axes = figure.subplots()
    style_axes(
        axes, x_label="query tokens per forward pass, batch × L × (1 + D)", y_label="time of a forward pass (ms)"
    )
    axes.plot(
        latency.query_tokens, latency.latency, color=COLOUR, linewidth=1.4, marker="o",
        markersize=4.5, zorder=4, gid="median",
    )  # fmt: skip
    handles: list[Artist] = [line_mark("median", COLOUR, linewidth=1.4, marker="o", markersize=4.5)]
    if len(latency.query_tokens) > 1:
        draw_band(axes, latency.query_tokens, latency.low, latency.high, COLOUR, "quartiles", alpha=0.18)
        handles.append(band_mark("quartiles", COLOUR))
    handles += [
        line_mark("without drafts", FAINT, linewidth=0.9, linestyle="--"),
        line_mark("1 + D forwards one by one", FAINT, linewidth=1.0, linestyle=":"),
    ]
    axes.axhline(latency.latency[0], color=FAINT, linewidth=0.9, linestyle="--", zorder=1, gid="plain")
    blocks = [latency.latency[0] * (1 + drafts) for drafts in latency.drafts]
    axes.plot(latency.query_tokens, blocks, color=FAINT, linewidth=1.0, linestyle=":", zorder=2, gid="separate")
    top = 1.08 * max(latency.high)
    axes.set_ylim(0, top)
    margin = 0.03 * (latency.query_tokens[-1] - latency.query_tokens[0]) or 1.0
    axes.set_xlim(latency.query_tokens[0] - margin, latency.query_tokens[-1] + margin)
    thin_ticks(axes.xaxis, latency.query_tokens, 0.06)
    _draw_drafts_axis(axes, latency)
    note = f"Medians of {plural(latency.repeats, 'forward')}. {_where(latency)} A refresh forward takes "
    note += f"{latency.refresh:.3g} ms."
    if latency.note:
        note += f" {latency.note[0].upper()}{latency.note[1:].rstrip('.')}."
    finish(figure, headline(latency), note, handles, columns=4)
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
    thin_ticks(upper.xaxis, latency.query_tokens, 0.045)
    names = dict(zip(latency.query_tokens, latency.drafts, strict=True))
    upper.xaxis.set_major_formatter(lambda value, _: str(names.get(round(value), "")))
    upper.tick_params(labelsize=TEXT_SIZE, colors=INK, length=3, width=0.8)
    upper.set_xlabel("drafts D in the forward", fontsize=LABEL_SIZE, color=INK)
    for spine in upper.spines.values():
        spine.set_visible(False)
