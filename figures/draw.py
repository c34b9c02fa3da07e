"""All figures of a run at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from figures.accepted_histogram import draw_accepted_histogram, pairs, table_accepted_histogram
from figures.curves import table_nfe_vs_budget
from figures.data import FigureDataError, Run, load_run
from figures.graph_layers import draw_graph_layers, graph_row, lay_out, table_graph_layers
from figures.nfe_vs_budget import draw_nfe_vs_budget
from figures.output import Table, file_name, save_figure
from figures.rank_heatmaps import draw_rank_heatmaps, rank_counts, table_rank_heatmaps

Drawing = tuple[str, Callable[[], Figure], Callable[[], Table]]


class FigureWarning(UserWarning):
    """A figure was left out because the run holds no data for it."""


def draw_all(run_directory: str | Path) -> list[Path]:
    """Draw every figure that the run has data for into ``run_directory``/figures.

    Each figure is three files, PNG, SVG and CSV (see :func:`figures.output.save_figure`). A figure whose data were
    never recorded (no histograms, no rank counts, no graph files) is left out with a :class:`FigureWarning`.

    Returns:
        the paths of all files, in the order drawn.

    Raises:
        FigureDataError: results.json or a graph file is missing or broken.
        OSError: a file cannot be written.
    """
    run = load_run(run_directory)
    paths: list[Path] = []
    for name, draw, table in _drawings(run):
        paths += save_figure(draw(), run.directory / "figures" / name, table())
    return paths


def _drawings(run: Run) -> list[Drawing]:
    """File stem, figure and table of everything that this run can show."""
    found: list[Drawing] = []
    if any(row.method != "plain" for row in run.rows):
        found += [
            (
                "nfe_vs_budget",
                lambda: draw_nfe_vs_budget(run, "nfe_reduction"),
                lambda: table_nfe_vs_budget(run, "nfe_reduction"),
            ),
            (
                "accepted_length_vs_budget",
                lambda: draw_nfe_vs_budget(run, "accepted_length"),
                lambda: table_nfe_vs_budget(run, "accepted_length"),
            ),
        ]
    else:
        _left_out(run, "rows other than plain decoding's", "curves over the budget")
    for policy in run.policies():
        found += _graph(run, policy)
    found += _histogram(run)
    for policy in run.policies():
        found += _ranks(run, policy)
    return found


def _graph(run: Run, policy: str) -> list[Drawing]:
    try:
        row = graph_row(run, policy)
    except FigureDataError:
        _left_out(run, f"saved graphs of policy {policy}", "graph drawing")
        return []
    lay_out(run.load_graph(row))  # a broken file is found before anything is drawn
    return [
        (
            file_name("graph", policy),
            lambda: draw_graph_layers(run, policy),
            lambda: table_graph_layers(run, policy),
        )
    ]


def _histogram(run: Run) -> list[Drawing]:
    try:
        pairs(run)
    except FigureDataError:
        _left_out(run, "histograms of a calibrated graph", "accepted-length histogram")
        return []
    return [("accepted_histogram", lambda: draw_accepted_histogram(run), lambda: table_accepted_histogram(run))]


def _ranks(run: Run, policy: str) -> list[Drawing]:
    try:
        rank_counts(run, policy)
    except FigureDataError:
        _left_out(run, f"rank_counts of policy {policy}", "rank heat maps")
        return []
    return [
        (
            file_name("ranks", policy),
            lambda: draw_rank_heatmaps(run, policy),
            lambda: table_rank_heatmaps(run, policy),
        )
    ]


def _left_out(run: Run, missing: str, figure: str) -> None:
    warnings.warn(f"{run.directory}/results.json has no {missing}: no {figure} drawn", FigureWarning, stacklevel=4)
