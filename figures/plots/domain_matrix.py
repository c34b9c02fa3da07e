"""Does a graph travel? Held-out nfe reduction of graphs made on one domain (rows) and run on another (columns).

The last row and the last column are all domains together, where the study has them. The confidence chain stands below
as a row of its own: it is made on nothing, so what a foreign graph keeps above it is what calibration on other prompts
is still worth.
"""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures.canvas.output import Table
from figures.canvas.page import colour_bar, finish, new_figure, style_axes
from figures.canvas.style import LABEL_SIZE, SEQUENTIAL, SMALL_SIZE, method_style, on_colour
from figures.canvas.words import cautious, percent, prompts_of
from figures.plots.ablation import best_method, usual_budget
from figures.records.ablation import ALL_DOMAINS, ARROW, Ablation, AblationRow
from figures.records.record import FigureDataError
from figures.records.run import BASELINES

CHAIN = "chain"
FRAME = "#E69F00"  # stands out from every colour of the map
_TABLE = ("method", "budget", "made_on", "run_on", "prompts", "nfe_reduction", "low", "high")


@dataclass(frozen=True)
class Matrix:
    """``cells[made_on, run_on]`` of one calibrated method; ``chain[run_on]`` where the study has it."""

    method: str
    budget: int
    made_on: list[str]
    run_on: list[str]
    cells: dict[tuple[str, str], AblationRow]
    chain: dict[str, AblationRow]


def matrix(ablation: Ablation, method: str | None = None, budget: int | None = None) -> Matrix:
    """The matrix of ``method`` at ``budget``.

    Args:
        ablation: a study of domains.
        method: by default the calibrated one that is best on search prompts.
        budget: draft nodes; by default 10, or the largest studied.

    Raises:
        FigureDataError: no test rows, a setting that is not "made on -> run on", no such method, or an empty cell.
    """
    chosen = usual_budget(ablation, budget)
    rows = [row for row in ablation.held_out() if row.budget == chosen]
    method = best_method(ablation, chosen) if method is None else method
    cells: dict[tuple[str, str], AblationRow] = {}
    chain: dict[str, AblationRow] = {}
    for row in rows:
        made_on, arrow, run_on = row.setting.partition(ARROW)
        if not arrow:
            raise FigureDataError(f'{ablation.path}: expected settings "made on -> run on", found "{row.setting}"')
        if row.method == method:
            cells[made_on, run_on] = row
        elif row.method == CHAIN:
            chain.setdefault(run_on, row)  # the same for every domain it is "made" on
    names = list(dict.fromkeys(made for made, _ in cells)), list(dict.fromkeys(run for _, run in cells))
    if not cells:
        raise FigureDataError(f"{ablation.path}: no test rows of {method} at budget {chosen}")
    missing = [f"{made}{ARROW}{run}" for made in names[0] for run in names[1] if (made, run) not in cells]
    if missing:
        raise FigureDataError(f"{ablation.path}: the study is not finished, it lacks {', '.join(missing)} for {method}")
    return Matrix(method, chosen, *names, cells, {run: row for run, row in chain.items() if run in names[1]})


def calibrated_methods(ablation: Ablation) -> list[str]:
    """The methods that a matrix can be drawn for; a baseline is made on nothing."""
    return [method for method in ablation.methods() if method not in BASELINES]


def table_domain_matrix(ablation: Ablation, method: str | None = None, budget: int | None = None) -> Table:
    """Every cell, one row each; the chain is made on nothing."""
    found = matrix(ablation, method, budget)
    named = [(made, run, found.cells[made, run]) for made in found.made_on for run in found.run_on]
    rows = [*named, *((None, run, found.chain[run]) for run in found.run_on if run in found.chain)]
    return Table(
        _TABLE,
        tuple(
            (row.method, row.budget, made, run, row.prompts, row.nfe_reduction, row.nfe_reduction_low,
             row.nfe_reduction_high)
            for made, run, row in rows
        ),
    )  # fmt: skip


def draw_domain_matrix(ablation: Ablation, method: str | None = None, budget: int | None = None) -> Figure:
    """Draw the matrix with a number and its interval in every cell; the graph made on a column's domain is framed.

    Raises:
        FigureDataError: as :func:`matrix`.
    """
    found = matrix(ablation, method, budget)
    lines = [*found.made_on, *([CHAIN] if found.chain else [])]
    values = [row.nfe_reduction for row in (*found.cells.values(), *found.chain.values())]
    norm = Normalize(min(values), max(max(values), min(values) + 1e-9))
    figure = new_figure(height=0.85 + 0.62 * len(lines))
    axes = figure.subplots()
    style_axes(
        axes, x_label="run on prompts of", y_label="graph made on",
        title=f"{method_style(found.method).label}, D = {found.budget}", grid="",
    )  # fmt: skip
    for column, run in enumerate(found.run_on):
        for line, made in enumerate(found.made_on):
            _draw_cell(axes, column, line, found.cells[made, run], norm, framed=made == run)
        if run in found.chain:
            _draw_cell(axes, column, len(lines) - 0.85, found.chain[run], norm, framed=False)
    axes.set_xlim(-0.5, len(found.run_on) - 0.5)
    bottom = len(lines) - (0.35 if found.chain else 0.5)
    axes.set_ylim(bottom, -0.5)
    axes.set_xticks(range(len(found.run_on)), found.run_on)
    places = [*range(len(found.made_on)), *([len(lines) - 0.85] if found.chain else [])]
    axes.set_yticks(places, [*found.made_on, *(["confidence\nchain"] if found.chain else [])])
    axes.tick_params(length=0)
    colour_bar(figure, axes, ScalarMappable(norm, SEQUENTIAL), "NFE reduction (×)", pad=0.02, aspect=18)
    note = (
        f"NFE reduction (× fewer forwards) on {prompts_of('test', ablation.test_prompts())} of the column, 95 % "
        "intervals over prompts in brackets. Framed: the graph made on the domain it is run on. Read down a "
        f"column, for domains differ in what can be saved. Graphs are not compared in pairs here. {ablation.about()}"
    )
    finish(figure, headline(found), note.rstrip())
    return figure


def headline(found: Matrix) -> str:
    """Which shares of the NFE reduction graphs keep on a domain, against the graph made there.

    Graphs of another domain and one of all domains have a range each; on all domains together no graph is foreign.
    """
    foreign, pooled = list[float](), list[float]()
    for (made, run), row in found.cells.items():
        if made != run != ALL_DOMAINS and (run, run) in found.cells:
            share = row.nfe_reduction / found.cells[run, run].nfe_reduction
            (pooled if made == ALL_DOMAINS else foreign).append(share)
    parts = [f"graphs made on another domain reach {_range(foreign)}"] if foreign else []
    parts += [f"one made on all domains {'reaches ' * (not foreign)}{_range(pooled)}"] if pooled else []
    if parts:
        text = f"D = {found.budget}: {', '.join(parts)} of the NFE reduction of those made on the same domain"
    else:
        text = f"NFE reduction of {method_style(found.method).label} graphs across domains, D = {found.budget}"
    return cautious(text, [row.prompts for row in found.cells.values()])


def _range(shares: list[float]) -> str:
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"


def _draw_cell(axes: Axes, x: float, y: float, row: AblationRow, norm: Normalize, framed: bool) -> None:
    red, green, blue, _ = SEQUENTIAL(float(norm(row.nfe_reduction)))
    axes.add_patch(
        Rectangle((x - 0.49, y - 0.48), 0.98, 0.96, facecolor=(red, green, blue), linewidth=0, gid=row.setting)
    )
    if framed:
        axes.add_patch(
            Rectangle((x - 0.475, y - 0.46), 0.95, 0.92, fill=False, edgecolor=FRAME, linewidth=2.2, gid="own")
        )
    colour = on_colour(red, green, blue)
    low, high = row.nfe_reduction_low, row.nfe_reduction_high
    rise = 0.0 if low is None else -0.14
    axes.text(
        x, y + rise, f"{row.nfe_reduction:.2f}×", ha="center", va="center", fontsize=LABEL_SIZE, fontweight="bold",
        color=colour,
    )  # fmt: skip
    if low is not None:
        axes.text(x, y + 0.24, f"[{low:.2f}, {high:.2f}]", ha="center", va="center", fontsize=SMALL_SIZE, color=colour)
