"""How many drafts a forward accepts: the best calibrated graph beside the confidence chain of the same budget."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.canvas.output import Table
from figures.canvas.page import finish, panel_grid
from figures.canvas.style import INK, TEXT_SIZE, TITLE_SIZE, method_style
from figures.canvas.words import cautious, percent, prompts_of
from figures.records.run import BASELINES, FigureDataError, Histogram, ResultRow, Run, best_row

_COLUMNS = ("policy", "budget", "split", "method", "accepted_drafts", "forwards", "share")
BAR_WIDTH = 0.4


@dataclass(frozen=True)
class Pair:
    """What one panel shows: ``best`` beside ``chain`` (None where the run has none of that budget)."""

    policy: str
    budget: int
    split: str
    best: Histogram
    chain: Histogram | None

    def shown(self) -> list[Histogram]:
        """The chain first, as in every legend."""
        return [found for found in (self.chain, self.best) if found is not None]


def pairs(run: Run) -> list[Pair]:
    """Per policy the best graph of the largest budget that has a histogram, on test prompts (else the last split).

    The best is chosen on search prompts, never on test prompts.

    A histogram counts only with a result row of the same method, policy and budget (without one nobody could say
    which graph is best) and with at least one forward in it (a rule that fills whole blocks at once leaves none).

    Raises:
        FigureDataError: no such histogram of a calibrated graph.
    """
    found = []
    for policy in run.policies():
        own = [histogram for histogram in run.histograms if histogram.policy == policy and any(histogram.counts)]
        for split in ("test", "validation", "search"):
            here = [histogram for histogram in own if histogram.split == split]
            rows = [row for row in run.select(policy=policy) if row.method not in BASELINES]
            budgets = sorted({row.budget for row in rows if _find(here, row)})
            if budgets:
                found.append(_pair(run, policy, budgets[-1], split, here))
                break
    if not found:
        raise FigureDataError(
            f"{run.directory}/results.json: no accepted-length histogram of a calibrated graph, "
            "so there is none to draw"
        )
    return found


def _pair(run: Run, policy: str, budget: int, split: str, here: list[Histogram]) -> Pair:
    rows = [row for row in run.select(policy=policy, budget=budget) if _find(here, row)]
    best = _find(here, best_row(run, rows))
    if best is None:
        raise AssertionError("best_row returns one of the rows given")
    chain = next((item for item in here if (item.method, item.budget) == ("chain", budget)), None)
    return Pair(policy, budget, split, best, chain)


def _find(histograms: list[Histogram], row: ResultRow) -> Histogram | None:
    """The histogram of ``row``; one without a reading stands for all readings of its method."""
    for item in histograms:
        if (item.method, item.budget) == (row.method, row.budget) and item.reading in (None, row.reading):
            return item
    return None


def table_accepted_histogram(run: Run) -> Table:
    """Every drawn bar, one row each."""
    rows = [
        (pair.policy, pair.budget, pair.split, item.method, drafts, count, count / sum(item.counts))
        for pair in pairs(run)
        for item in pair.shown()
        for drafts, count in enumerate(item.counts)
    ]
    return Table(_COLUMNS, tuple(rows))


def draw_accepted_histogram(run: Run) -> Figure:
    """Draw the shares of forwards that accept 0, 1, 2, ... drafts, a panel per policy.

    Raises:
        FigureDataError: no histogram of a calibrated graph.
    """
    found = pairs(run)
    figure, grid = panel_grid(len(found), "accepted drafts in one forward", "forwards (%)", share_x=False)
    for axes, pair in zip(grid, found, strict=True):
        _draw_panel(axes, run, pair)
    tallest = max(100 * max(item.counts) / sum(item.counts) for pair in found for item in pair.shown())
    grid[0].set_ylim(0, tallest * 1.3)  # room for the legend, which two lines fill
    where = " and ".join(dict.fromkeys(prompts_of(pair.split, _prompts(run, pair)) for pair in found))
    note = f"Forwards that carry drafts, on {where}; means are over these forwards. {run.setting()}"
    finish(figure, headline(run, found), note)
    return figure


def headline(run: Run, found: list[Pair]) -> str:
    """What the first panel shows: forwards that come to nothing, with the graph and with the chain."""
    first = found[0]
    none = first.best.counts[0] / sum(first.best.counts)
    name = method_style(first.best.method).label
    text = f"{first.policy}, D = {first.budget}: {percent(none)} of forwards accept no draft with the {name} graph"
    if first.chain is not None:
        text += f", {percent(first.chain.counts[0] / sum(first.chain.counts))} with the chain"
    return cautious(text, _prompts(run, first), first.split)


def _prompts(run: Run, pair: Pair) -> list[int | None]:
    return [row.prompts for row in run.select(policy=pair.policy, split=pair.split)]


def _draw_panel(axes: Axes, run: Run, pair: Pair) -> None:
    axes.set_title(f"{pair.policy}, D = {pair.budget}", fontsize=TITLE_SIZE, color=INK, loc="left")
    shown = pair.shown()
    for number, item in enumerate(shown):
        style = method_style(item.method)
        total = sum(item.counts)
        offset = (number - (len(shown) - 1) / 2) * BAR_WIDTH
        mean = _mean(run, pair, item)
        label = style.label if mean is None else f"{style.label}: mean {mean:.2f}"
        axes.bar(
            [drafts + offset for drafts in range(len(item.counts))],
            [100 * count / total for count in item.counts],
            width=BAR_WIDTH, color=style.colour, label=label, gid=item.method, linewidth=0,
            hatch="" if item.method != "chain" else "////", edgecolor="white",
        )  # fmt: skip
    longest = max(max((n for n, count in enumerate(item.counts) if count), default=0) for item in shown)
    axes.set_xlim(-0.6, longest + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    legend = axes.legend(fontsize=TEXT_SIZE, loc="upper right", labelcolor=INK, framealpha=1.0, borderaxespad=0.0)
    legend.get_frame().set_linewidth(0)  # its white ground keeps the grid off the text


def _mean(run: Run, pair: Pair, item: Histogram) -> float | None:
    """The accepted drafts over visited anchors, as the results state it."""
    rows = run.select(policy=pair.policy, budget=pair.budget, split=pair.split, method=item.method)
    rows = [row for row in rows if item.reading in (None, row.reading)]
    return rows[0].accepted_drafts_visited if len(rows) == 1 else None
