"""Which ranks the steps ahead really commit: position rank against vocabulary rank, and against steps ahead.

These tables are why a small graph is enough: nearly all the weight lies in a few cells. Colours are logarithmic, as
counts fall by orders of magnitude; cells that never occurred are white.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator

from figures.canvas.output import Table
from figures.canvas.page import colour_bar, finish, new_figure, style_axes
from figures.canvas.style import INK, SEQUENTIAL, SMALL_SIZE, TEXT_SIZE, on_colour
from figures.canvas.words import cautious, percent, prompts_of
from figures.records.run import FigureDataError, RankCounts, Run

#: Cells carry their share as a number from here on: of all pairs at the left, of the pairs of one step at the right.
WRITTEN_SHARE = {"position_by_vocabulary": 0.01, "position_by_depth": 0.1}
#: Fewer pairs than this say nothing in per cent.
WRITTEN_PAIRS = 10
_KINDS = ("position_by_vocabulary", "position_by_depth")
_OTHER = {"position_by_vocabulary": "vocabulary rank j", "position_by_depth": "denoising steps ahead"}


def rank_counts(run: Run, policy: str) -> RankCounts:
    """The tables of ``policy``: of the search prompts, which graphs are made from, else of any split.

    Tables without any pair do not count: a rule that fills whole blocks at once leaves nothing to draft.

    Raises:
        FigureDataError: there are none.
    """
    filled = [item for item in run.rank_counts if any(map(any, item.position_by_vocabulary))]
    own = [item for item in filled if item.policy == policy]
    if not own:
        raise FigureDataError(
            f"{run.directory}/results.json: no committed pairs in rank_counts of policy {policy} "
            f"(there are those of {', '.join(sorted({i.policy for i in filled})) or 'no policy'})"
        )
    return min(own, key=lambda item: ("search", "validation", "test").index(item.split))


def table_rank_heatmaps(run: Run, policy: str) -> Table:
    """Every cell of both tables, zeros too; ``other_rank`` is the vocabulary rank or the steps ahead."""
    item = rank_counts(run, policy)
    rows = [
        (item.policy, item.split, kind, i, other, count)
        for kind in _KINDS
        for i, row in enumerate(getattr(item, kind), start=1)
        for other, count in enumerate(row, start=1)
    ]
    return Table(("policy", "split", "table", "position_rank", "other_rank", "pairs"), tuple(rows))


def draw_rank_heatmaps(run: Run, policy: str) -> Figure:
    """Draw both tables of ``policy`` side by side on one logarithmic colour scale.

    Raises:
        FigureDataError: the run has no rank counts of this policy.
    """
    item = rank_counts(run, policy)
    tables = [_cropped(np.array(getattr(item, kind), dtype=float)) for kind in _KINDS]
    deepest = max(len(table) for table in tables)
    figure = new_figure(height=0.5 + max(2.6, min(5.0, 0.17 * deepest)))
    ratios = [max(3, table.shape[1]) for table in tables]
    ratios = [max(ratio, 0.35 * sum(ratios)) for ratio in ratios]  # neither panel shrinks to a strip
    grid = figure.subplots(1, 2, sharey=True, width_ratios=ratios)
    norm = LogNorm(1, max(2.0, *(table.max() for table in tables)))
    titles = ("next step", "next and further steps")  # short: panels may be narrow
    for axes, kind, table, title in zip(grid, _KINDS, tables, titles, strict=True):
        image = _draw_table(axes, table, norm, kind)
        style_axes(axes, x_label=_OTHER[kind], title=title, grid="")
        axes.set_ylim(deepest + 0.5, 0.5)
        _set_ticks(axes, deepest, table.shape[1])
    grid[1].tick_params(axis="y", length=0)
    style_axes(grid[0], y_label="position rank i (1 = most confident)", grid="")
    bar = colour_bar(figure, list(grid), image, "committed pairs (count, log scale)", pad=0.01, aspect=30)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    numbers = [row.prompts for row in run.select(policy=policy, split=item.split)]
    note = (
        f"Counted on {prompts_of(item.split, numbers)}; white cells never occurred. Numbers are percentages: at the "
        f"left of all pairs, at the right of the pairs that one step ahead commits. {run.setting()}"
    )
    finish(figure, cautious(headline(item), numbers, item.split), note)
    return figure


def headline(item: RankCounts) -> str:
    """How much of the next step the first ranks cover."""
    table = np.array(item.position_by_vocabulary, dtype=float)
    best = table[:, 0].sum() / table.sum()
    first = table[:3].sum() / table.sum()
    return (
        f"{item.policy}: {percent(first)} of the next commits are among the 3 most confident positions, "
        f"{percent(best)} take the best token"
    )


def _cropped(table: np.ndarray) -> np.ndarray:
    """Without the rows and columns behind the last count."""
    rows, columns = np.nonzero(table)
    return table[: rows.max() + 1, : columns.max() + 1]


def _draw_table(axes: Axes, table: np.ndarray, norm: LogNorm, kind: str) -> AxesImage:
    """One image with rank 1 at the top left, and the shares of the large cells."""
    rows, columns = table.shape
    image = axes.imshow(
        np.ma.masked_equal(table, 0), cmap=SEQUENTIAL, norm=norm, aspect="auto", interpolation="nearest",
        extent=(0.5, columns + 0.5, rows + 0.5, 0.5),
    )  # fmt: skip
    whole = table.sum() if kind == "position_by_vocabulary" else np.maximum(table.sum(axis=0), 1)
    for (row, column), share in np.ndenumerate(table / whole):
        if share >= WRITTEN_SHARE[kind] and table[row, column] >= WRITTEN_PAIRS:
            red, green, blue, _ = SEQUENTIAL(norm(table[row, column]))
            axes.text(
                column + 1, row + 1, f"{100 * share:.0f}",
                ha="center", va="center", fontsize=SMALL_SIZE, color=on_colour(red, green, blue),
            )  # fmt: skip
    return image


def _set_ticks(axes: Axes, rows: int, columns: int) -> None:
    """Every rank where there are few, else 1, 5, 10, ..."""
    for axis, count in ((axes.yaxis, rows), (axes.xaxis, columns)):
        axis.set_major_locator(FixedLocator(range(1, count + 1) if count <= 12 else [1, *range(5, count + 1, 5)]))
    axes.tick_params(labelsize=TEXT_SIZE, colors=INK, length=2)
