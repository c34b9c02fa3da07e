"""One visual style for every figure: colours and markers fixed per method, font sizes.

Colours are those of Okabe and Ito (2008), which stay apart under the common colour-vision deficiencies; where more
methods than colours exist, Paul Tol's "muted" scheme adds darker ones. Every method has a marker of its own as well,
so that a print in black and white can be read.

Sizes are chosen for a README: a figure is 8 inches wide, and a column of 840 pixels shows 8.5 points as 12 pixels.
Everything is set on the artists themselves; no global setting of matplotlib is read or changed here.
"""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap

from figures.records.run import PUBLISHED

WIDTH = 8.0  # inches
DPI = 200

HEADLINE_SIZE = 12.0  # points, as all sizes
TITLE_SIZE = 10.0
LABEL_SIZE = 9.5
TEXT_SIZE = 8.5
NOTE_SIZE = 8.0
SMALL_SIZE = 7.0  # the least that can be read: labels of nodes and cells

INK = "#1a1a1a"
FAINT = "#595959"
RULE = "#d9d9d9"
BACKDROP = "#b3b3b3"  # lines that are only there for comparison
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
    "informed": MethodStyle("informed drafts", "#332288", "h"),
    "random": MethodStyle("random graph", "#999933", "d"),
    "lp_bound": MethodStyle("bound on search prompts", "#000000", "None"),
}

_SPARE = (("#AA4499", "<"), ("#44AA99", ">"), ("#6699CC", "8"), ("#661100", "H"))
#: Readings of the published rule where they are told apart; the first is how it looks where only one is drawn.
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
