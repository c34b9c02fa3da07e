"""A draft graph drawn in layers: the block now at the left, each layer one denoising step further ahead.

The area of a node is the number of anchors at which its state came true, its colour the probability that the draft is
accepted. Labels name ranks, most confident first: "1-3 5:2" fills the positions ranked 1, 2 and 3 with their best
token and the position ranked 5 with its second-best.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from drafting.graph import DraftGraph
from figures.canvas.layered_layout import place_in_layers
from figures.canvas.marks import line_mark
from figures.canvas.output import Table
from figures.canvas.page import colour_bar, finish, new_figure, style_axes
from figures.canvas.style import INK, SEQUENTIAL, SMALL_SIZE, WIDTH, method_style
from figures.canvas.words import percent, plural, prompts_of
from figures.records.run import FigureDataError, ResultRow, Run, best_row
from verify.graph.file import GraphFile
from verify.graph.formulas import ROOT, Formula

#: More nodes than this cannot be labelled legibly on a page; draw_all takes the largest budget up to it.
LARGEST_BUDGET = 32
#: With more nodes than this, the root included, nobody can follow a line or read a page of that size.
LARGEST_DRAWN = 257

LARGEST_AREA, SMALLEST_AREA = 260.0, 14.0  # points squared, as matplotlib gives marker sizes
LINE_CHARACTERS = 8


@dataclass(frozen=True)
class LaidOutGraph:
    """A graph with all that is drawn of it; lists are aligned with ``nodes`` (the root first).

    ``counts`` and ``reach`` are the node attributes of :meth:`drafting.graph.DraftGraph.annotate`, None where the graph
    does not have them; ``edges`` are those that no longer path implies, so that a threshold rule's graph does not drown
    in them.
    """

    nodes: tuple[Formula, ...]
    layers: list[int]
    places: list[float]
    edges: list[tuple[int, int]]
    counts: list[int] | None
    reach: list[float] | None


def lay_out(graph: GraphFile | DraftGraph) -> LaidOutGraph:
    """Layers (most denoising steps from the root), places with few crossings, and the attributes of the nodes."""
    dag = graph if isinstance(graph, DraftGraph) else DraftGraph.from_graph_file(graph)
    layer_of = dag.layers()
    nodes = graph.nodes if isinstance(graph, GraphFile) else (ROOT, *graph.draft_nodes())
    layers = [layer_of[node] for node in nodes]
    index = {node: number for number, node in enumerate(nodes)}
    reduced = nx.transitive_reduction(dag)
    edges = sorted((index[a], index[b]) for a, b in reduced.edges)
    places = place_in_layers(layers, edges)
    counts = _per_node(dag, nodes, "count")
    return LaidOutGraph(
        nodes=nodes,
        layers=layers,
        places=places,
        edges=edges,
        counts=None if counts is None else [int(count) for count in counts],
        reach=_per_node(dag, nodes, "reach"),
    )


def _per_node(graph: DraftGraph, nodes: Sequence[Formula], attribute: str) -> list[float] | None:
    """An attribute of every node; None where a node lacks it."""
    values = [graph.nodes[node].get(attribute) for node in nodes]
    return None if None in values else [float(value) for value in values]


def node_label(node: Formula) -> str:
    """A formula in as few characters as it takes: ranks whose vocabulary rank is 1 stand alone, runs as "1–4"."""
    if node == ROOT:
        return "block\nnow"
    words: list[str] = []
    run: list[int] = []
    for i, j in (*node, (0, 0)):
        if run and (j != 1 or i != run[-1] + 1):
            words += [f"{run[0]}–{run[-1]}"] if len(run) > 2 else [str(rank) for rank in run]
            run = []
        if j == 1:
            run.append(i)
        elif j:
            words.append(f"{i}:{j}")
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= LINE_CHARACTERS:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return "\n".join(lines)


def graph_row(run: Run, policy: str, budget: int | None = None) -> ResultRow:
    """The best graph that was saved for ``policy``: of ``budget``, or of the largest up to ``LARGEST_BUDGET``.

    Raises:
        FigureDataError: there is none.
    """
    rows = [row for row in run.select(policy=policy) if row.graph and row.budget > 0]
    rows = [row for row in rows if row.method not in ("plain", "chain")]
    budgets = {row.budget for row in rows if row.budget <= LARGEST_BUDGET} if budget is None else {budget}
    rows = [row for row in rows if row.budget == max(budgets, default=0)]
    if not rows:
        size = f"up to {LARGEST_BUDGET}" if budget is None else f"of {budget}"
        raise FigureDataError(
            f"{run.directory}: no row of a calibrated graph with a graph file, policy {policy}, budget {size}"
        )
    return best_row(run, rows)


def table_graph_layers(graph: GraphFile | DraftGraph) -> Table:
    """Every drawn node, one row each; parents are indices, those that are drawn as lines."""
    laid = lay_out(graph)
    rows = []
    for index, node in enumerate(laid.nodes):
        parents = [str(a) for a, b in laid.edges if b == index]
        rows.append(
            (
                index,
                " ".join(f"{i}:{j}" for i, j in node),
                laid.layers[index],
                None if laid.counts is None else laid.counts[index],
                None if laid.reach is None else laid.reach[index],
                " ".join(parents),
            )
        )
    return Table(("node", "formula", "layer", "count", "reach", "parents"), tuple(rows))


def draw_graph_layers(graph: GraphFile | DraftGraph) -> Figure:
    """Draw a graph file or a graph: areas and colours where it says how often its states came true.

    >>> from drafting.graph import DraftGraph
    >>> figure = draw_graph_layers(DraftGraph.from_formulas([((1, 1),), ((2, 1),), ((1, 1), (2, 1))], step_size=1))
    >>> [axis.get_xlabel() for axis in figure.axes]
    ['denoising steps ahead']

    Raises:
        FigureDataError: more nodes than can be labelled (:data:`LARGEST_DRAWN`), or bad per-node values in a file.
    """
    laid = lay_out(graph)
    if len(laid.nodes) > LARGEST_DRAWN:
        raise FigureDataError(
            f"the graph has {len(laid.nodes) - 1} draft nodes, expected at most {LARGEST_DRAWN - 1}; a drawing of more "
            "cannot be read, so draw a graph of a smaller budget"
        )
    depth = max(laid.layers)
    tallest = max(laid.places) - min(laid.places)
    # In inches: a label of LINE_CHARACTERS is half an inch wide; the largest node 0.25 and a line of text 0.11 high.
    width = max(WIDTH, 1.2 + 0.55 * (depth + 1))
    body = max(1.4, (0.26 + 0.11 * _label_lines(laid)) * (tallest + 1.3))
    figure = new_figure(height=body + 0.45, width=width)
    axes = figure.subplots()
    style_axes(axes, x_label="denoising steps ahead", grid="")
    _draw_edges(axes, laid)
    _draw_nodes(axes, laid)
    axes.set_xlim(-0.55, depth + 0.55)
    # Labels hang below their nodes, so there is more room below; the first place is at the top.
    axes.set_ylim(max(laid.places) + 0.85, min(laid.places) - 0.45)
    axes.set_yticks([])
    axes.set_xticks(range(depth + 1))
    axes.tick_params(length=0)
    if laid.reach is not None:
        colours = ScalarMappable(_reach_scale(laid.reach), SEQUENTIAL)
        colour_bar(figure, axes, colours, "probability of\nacceptance (%)", shrink=0.9, pad=0.01, aspect=16)
    finish(figure, headline(graph, laid), _note(laid), [] if laid.counts is None else _sizes(laid.counts), columns=3)
    return figure


def headline(graph: GraphFile | DraftGraph, laid: LaidOutGraph) -> str:
    """How far the graph looks ahead, and what it is worth on held-out prompts if the file says so."""
    text = f"D = {len(laid.nodes) - 1}: looks up to {plural(max(laid.layers), 'step')} ahead"
    if isinstance(graph, DraftGraph):
        if "validity" not in graph.graph:
            return text
        graph = graph.to_graph_file()
    search = graph.provenance.get("search")
    label = f", {method_style(search).label}" if isinstance(search, str) else ""
    text = f"{graph.validity.policy}{label}, {text}"
    for split in ("test", "validation", "search"):
        stated = graph.values.get(split, {})
        if stated.get("accepted_drafts") is not None:
            prompts = stated.get("prompts")
            where = prompts_of(split, [prompts if type(prompts) is int else None])
            return f"{text}, {stated['accepted_drafts']:.2f} drafts accepted per anchor on {where}"
    return text


def _note(laid: LaidOutGraph) -> str:
    text = (
        "Labels are ranks, most confident first: “1–3 5:2” fills the positions ranked 1 to 3 with their best token "
        "and the one ranked 5 with its 2nd-best."
    )
    if laid.reach is not None and len(laid.nodes) > 1:
        first = max(range(1, len(laid.nodes)), key=lambda index: (laid.reach or [])[index])
        label = node_label(laid.nodes[first]).replace("\n", " ")
        text += f" Likeliest draft: “{label}”, accepted at {percent(laid.reach[first])} of anchors."
    return text


def _draw_edges(axes: Axes, laid: LaidOutGraph) -> None:
    """Curves that leave and arrive horizontally, so that lines into one node can be told apart."""
    steps = [n / 20 for n in range(21)]
    lines = []
    for a, b in laid.edges:
        ease = [3 * t**2 - 2 * t**3 for t in steps]
        lines.append(
            [
                (
                    laid.layers[a] + t * (laid.layers[b] - laid.layers[a]),
                    laid.places[a] + e * (laid.places[b] - laid.places[a]),
                )
                for t, e in zip(steps, ease, strict=True)
            ]
        )
    axes.add_collection(LineCollection(lines, colors="#a6a6a6", linewidths=0.8, zorder=1, gid="edges"))


def _reach_scale(reach: list[float]) -> Normalize:
    """From 0 to the likeliest draft, rounded up to the next 10 %, so that all colours are used."""
    return Normalize(0.0, max(10.0, 10.0 * math.ceil(10.0 * max(reach[1:], default=0.1) - 1e-9)), clip=True)


def _label_lines(laid: LaidOutGraph) -> int:
    """Lines of the tallest label with a node below it; the layers of one node have all the height there is."""
    sizes = Counter(laid.layers)
    crowded = (node for node, layer in zip(laid.nodes, laid.layers, strict=True) if sizes[layer] > 1)
    return max((node_label(node).count("\n") + 1 for node in crowded), default=1)


def _areas(counts: list[int]) -> list[float]:
    """Areas in proportion to the counts, but never too small to see."""
    largest = max(counts[1:], default=0) or 1
    return [max(SMALLEST_AREA, LARGEST_AREA * count / largest) for count in counts[1:]]


def _draw_nodes(axes: Axes, laid: LaidOutGraph) -> None:
    drafts = range(1, len(laid.nodes))
    areas = _areas(laid.counts) if laid.counts is not None else [90.0 for _ in drafts]
    shades: Any = "#0072B2"
    if laid.reach is not None:
        scale = _reach_scale(laid.reach)
        shades = [SEQUENTIAL(scale(100 * laid.reach[index])) for index in drafts]
    axes.scatter(
        [laid.layers[0]], [laid.places[0]], s=120, c="white", edgecolors=INK, linewidths=1.2,
        marker="s", zorder=3, gid="root",
    )  # fmt: skip
    if len(laid.nodes) > 1:
        axes.scatter(
            [laid.layers[index] for index in drafts], [laid.places[index] for index in drafts],
            s=areas, c=shades, edgecolors=INK, linewidths=0.6, zorder=3, gid="drafts",
        )  # fmt: skip
    for index, node in enumerate(laid.nodes):
        area = 120.0 if index == 0 else areas[index - 1]
        axes.annotate(
            node_label(node), (laid.layers[index], laid.places[index]),
            xytext=(0, -((area / math.pi) ** 0.5) - 1.5), textcoords="offset points",
            ha="center", va="top", fontsize=SMALL_SIZE, color=INK, linespacing=0.95, zorder=4,
            path_effects=[patheffects.withStroke(linewidth=2.0, foreground="white")], gid=f"label/{index}",
        )  # fmt: skip


def _sizes(counts: list[int]) -> list[Line2D]:
    """Three circles that say which area is which count."""
    largest = max(counts[1:], default=0)
    shown = sorted({_round_number(largest * part) for part in (1.0, 0.3, 0.05)} - {0})
    handles = []
    for count in shown:
        text = f"{count:,}" if count != shown[-1] else f"{count:,} anchors whose next steps pass through the state"
        size = max(SMALLEST_AREA, LARGEST_AREA * count / largest) ** 0.5
        handles.append(line_mark(text, INK, linestyle="none", marker="o", markerfacecolor="white", markersize=size))
    return handles


def _round_number(value: float) -> int:
    """The largest 1, 2 or 5 times a power of ten that is at most ``value``; 0 below 1."""
    if value < 1:
        return 0
    power = 10 ** (len(str(int(value))) - 1)
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value)
