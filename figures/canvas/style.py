"""One visual style for every figure: colours and markers fixed per method, font sizes, headings.

Colours are those of Okabe and Ito (2008), which stay apart under the common colour-vision deficiencies; where more
methods than colours exist, Paul Tol's "muted" scheme adds darker ones. Every method has a marker of its own as well,
so that a print in black and white can be read.

Sizes are chosen for a README: a figure is 8 inches wide, and a column of 840 pixels shows 8.5 points as 12 pixels.
Everything is set on the artists themselves; no global setting of matplotlib is read or changed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

WIDTH = 8.0  # inches
DPI = 200

HEADLINE_SIZE = 12.0  # points, as all sizes
TITLE_SIZE = 10.0
LABEL_SIZE = 9.5
TEXT_SIZE = 8.5
NOTE_SIZE = 8.0
LEGEND_LINE = 0.2  # inches
# A legend's entry: line, gaps, and per letter of DejaVu Sans at TEXT_SIZE, in the mean.
_ENTRY_INCHES, _LETTER_INCHES = 0.56, 0.073

INK = "#1a1a1a"
FAINT = "#595959"
RULE = "#d9d9d9"
#: Light (few) to dark (many): ColorBrewer's YlGnBu, monotone in lightness and readable under every colour-vision
#: deficiency, without its palest part, which could be taken for the white of "none".
SEQUENTIAL = LinearSegmentedColormap.from_list(
    "draftgraph", [colormaps["YlGnBu"](0.14 + 0.86 * step / 255) for step in range(256)]
)


@dataclass(frozen=True)
class MethodStyle:
    """How a method looks in every figure.

    Attributes:
        label: in legends.
        colour: as ``#rrggbb``.
        marker: a matplotlib marker.
    """

    label: str
    colour: str
    marker: str


#: In the order of legends: what we compare with first, our searches after it, the bound last.
METHOD_STYLES: dict[str, MethodStyle] = {
    "plain": MethodStyle("plain decoding", "#595959", "x"),
    "chain": MethodStyle("confidence chain", "#CC79A7", "s"),
    "tree_greedy": MethodStyle("tree greedy", "#E69F00", "D"),
    "sequoia": MethodStyle("Sequoia tree", "#56B4E9", "v"),
    "published": MethodStyle("published rule", "#D55E00", "^"),
    "greedy": MethodStyle("greedy", "#0072B2", "o"),
    "cut": MethodStyle("minimum cut", "#CC6677", "X"),
    "exact": MethodStyle("exact", "#009E73", "*"),
    "optuna": MethodStyle("Optuna", "#882255", "P"),
    "random": MethodStyle("random graph", "#999933", "d"),
    "lp_bound": MethodStyle("bound on search prompts", "#000000", "None"),
}
#: Not graphs but limits: drawn as dotted lines without markers, never chosen as the best method.
BOUNDS = frozenset({"lp_bound"})

_SPARE = (("#AA4499", "<"), ("#44AA99", ">"), ("#6699CC", "8"), ("#661100", "H"))
#: Readings of the published rule where they are told apart; the first is how it looks where only one is drawn.
PUBLISHED = "published"
READING_STYLES: dict[str, MethodStyle] = {
    "degree1/all": METHOD_STYLES[PUBLISHED],
    "degree0": MethodStyle("", "#0072B2", "o"),
    "degree1/chosen": MethodStyle("", "#661100", "<"),
    "total/all": MethodStyle("", "#009E73", ">"),
    "total/chosen": MethodStyle("", "#CC79A7", "s"),
}


def method_style(method: str) -> MethodStyle:
    """The style of ``method``; a name that is not ours gets a spare colour by its spelling, the same in all runs.

    ``published:READING`` is one reading of the published rule.
    """
    if method in METHOD_STYLES:
        return METHOD_STYLES[method]
    name, _, reading = method.partition(":")
    if name == PUBLISHED and reading in READING_STYLES:
        style = READING_STYLES[reading]
        return MethodStyle(f"published, {reading}", style.colour, style.marker)
    colour, marker = _SPARE[sum(method.encode()) % len(_SPARE)]
    return MethodStyle(method.replace("_", " "), colour, marker)


def method_order(method: str) -> tuple[int, str]:
    """A sort key: methods in the order of ``METHOD_STYLES``, unknown ones after them by name."""
    known = list(METHOD_STYLES)
    name = method.partition(":")[0]
    return (known.index(name) if name in known else len(known), method)


def marker_size(style: MethodStyle) -> float:
    """Points; a star of the same size looks smaller than the others."""
    return 8.0 if style.marker == "*" else 5.5


def darker(colour: str) -> str:
    """A darker shade, for text: light hues have too little contrast on white."""
    return "#" + "".join(f"{int(int(colour[n : n + 2], 16) * 0.75):02x}" for n in (1, 3, 5))


def on_colour(red: float, green: float, blue: float) -> str:
    """What text on a coloured cell is written in: ink on light cells, white on dark ones."""
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.55 else "white"


def legend_columns(handles: Sequence[Artist], most: int) -> int:
    """How many entries of a legend stand side by side: at most ``most``, and as their labels leave room.

    matplotlib fills a legend column by column and gives each column the width of its longest label.
    """
    widths = [_ENTRY_INCHES + _LETTER_INCHES * len(str(handle.get_label())) for handle in handles]
    for columns in range(min(len(handles), most), 1, -1):
        lines = -(-len(handles) // columns)
        if sum(max(widths[start : start + lines]) for start in range(0, len(widths), lines)) <= WIDTH:
            return columns
    return 1


def legend_inches(handles: Sequence[Artist], most: int) -> float:
    """The height of such a legend."""
    return LEGEND_LINE * -(-len(handles) // legend_columns(handles, most)) if handles else 0.0


def figure_legend(figure: Figure, handles: Sequence[Artist], most: int, below: float) -> float:
    """A legend without a frame, centred ``below`` inches above the lower edge; returns where the next one begins."""
    if not handles:
        return below
    figure.legend(
        handles=list(handles), loc="lower center", bbox_to_anchor=(0.5, below / figure.get_figheight()),
        ncols=legend_columns(handles, most), fontsize=TEXT_SIZE, frameon=False, labelcolor=INK,
        handlelength=2.4, columnspacing=1.5, borderaxespad=0.0, borderpad=0.2, labelspacing=0.3,
    )  # fmt: skip
    return below + legend_inches(handles, most)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty white figure of ``width`` x ``height`` inches with a canvas that needs no display."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def set_heading(figure: Figure, headline: str, note: str = "", footer: float = 0.0) -> None:
    """Write what the figure shows on top of it, and keep the panels below (call it once, last).

    Args:
        headline: one sentence that states what is seen; wrapped to the figure's width.
        note: how to read it, smaller; wrapped too.
        footer: inches to keep free at the bottom.
    """
    width, height = figure.get_size_inches()
    edge = 0.1
    top = edge
    for text, size, weight, colour in (
        (headline, HEADLINE_SIZE, "bold", INK),
        (note, NOTE_SIZE, "normal", FAINT),
    ):
        if not text:
            continue
        lines = _wrap(figure, text.strip(), size, weight, (width - 2 * edge) * figure.dpi)
        figure.text(
            edge / width, 1 - top / height, "\n".join(lines),
            fontsize=size, fontweight=weight, color=colour, ha="left", va="top", linespacing=1.25,
        )  # fmt: skip
        top += len(lines) * size * 1.3 / 72 + 0.05
    engine = figure.get_layout_engine()
    if engine is None:
        raise ValueError("set_heading needs a figure of new_figure, this one has no layout engine")
    top += 0.05
    engine.set(rect=(0, footer / height, 1, 1 - (top + footer) / height))  # type: ignore[call-arg]


def _wrap(figure: Figure, text: str, size: float, weight: str, pixels: float) -> list[str]:
    """``text`` in the fewest lines of at most ``pixels``, about equally long; measured with the font that draws it."""
    font = FontProperties(size=size, weight=weight)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    # No line may begin with "%" or break "D = 10".
    words = text.replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0").split(" ")

    def width(piece: str) -> float:
        return float(renderer.get_text_width_height_descent(piece, font, False)[0])

    # Each word is measured once: a measurement takes longer than everything else here.
    widths = [width(word) for word in words]
    space = width("n n") - width("nn")

    def fill(limit: float) -> list[str]:
        lines: list[str] = []
        used = 0.0
        for word, wide in zip(words, widths, strict=True):
            if lines and used + space + wide <= limit:
                lines[-1] += " " + word
                used += space + wide
            else:
                lines.append(word)
                used = wide
        return lines

    lines = fill(pixels)
    # A last line of one word reads as an accident: narrow the lines as far as their number allows.
    for part in (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6):
        narrower = fill(part * pixels)
        if len(narrower) > len(lines):
            break
        lines = narrower
    return lines


def style_axes(axes: Axes, *, x_label: str = "", y_label: str = "", title: str = "", grid: str = "y") -> None:
    """Set fonts, spines and grid of one panel; ``grid`` is "x", "y", "both" or ""."""
    axes.tick_params(labelsize=TEXT_SIZE, colors=INK, length=3, width=0.8)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
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
