"""All figures of a run, a study or a saved file at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from figures.canvas.output import Table, file_name, save_figure
from figures.plots.ablation import SEARCH_STUDIES, Ablation, as_run, load_ablation
from figures.plots.accepted_histogram import draw_accepted_histogram, pairs, table_accepted_histogram
from figures.plots.calibration_size import draw_calibration_size, load_calibration_size, table_calibration_size
from figures.plots.curves import table_nfe_vs_budget
from figures.plots.divergence import draw_divergence, load_divergence, table_divergence
from figures.plots.domain_matrix import calibrated_methods, draw_domain_matrix, matrix, table_domain_matrix
from figures.plots.graph_layers import draw_graph_layers, graph_row, lay_out, table_graph_layers
from figures.plots.latency_rows import draw_latency_rows, table_latency_rows
from figures.plots.nfe_vs_budget import draw_nfe_vs_budget
from figures.plots.optuna_overview import draw_optuna_overview, finished, table_optuna_overview
from figures.plots.pareto import draw_pareto, fronts, table_pareto
from figures.plots.rank_heatmaps import draw_rank_heatmaps, rank_counts, table_rank_heatmaps
from figures.plots.setting_curves import draw_setting_curves, shown_rows, table_setting_curves
from figures.plots.speedup import draw_speedup, load_speedup, table_speedup
from figures.records.latency import load_latency
from figures.records.run import FigureDataError, Run, load_run
from figures.records.saved import (
    ABLATION,
    BUDGET,
    CALIBRATION_SIZE,
    DIVERGENCE,
    LATENCY,
    RUN,
    STUDY,
    FigureWarning,
    figures_folder,
    saved_files,
    stem,
)
from figures.records.study import load_study

Drawing = tuple[str, Callable[[], Figure], Callable[[], Table]]


def draw_all(path: str | Path, folder: str | Path | None = None) -> list[Path]:
    """Draw every figure that ``path`` has data for.

    Args:
        path: a saved file, or a directory with such files in it: ``results.json`` of ``calibrate`` or ``ablate``,
            ``study.json``, or what ``calibration-size``, ``latency``, ``budget`` and ``verify``
            wrote. Figures of files with other names than these two carry the file's name.
        folder: where figures go instead of ``path/figures``, or ``NAME-figures`` beside the file ``NAME.json``
            (:func:`figures.records.saved.figures_folder`).

    Each figure is three files, PNG, SVG and CSV (see :func:`figures.canvas.output.save_figure`). A figure whose data
    were never recorded (no histograms, no rank counts, no graph files) is left out with a :class:`FigureWarning`.

    Returns:
        the paths of all files, in the order drawn.

    Raises:
        FigureDataError: there is nothing that can be drawn, or results.json, study.json, the file given or a graph
            file is missing or broken. Everything is read before the first figure is written.
        OSError: a file cannot be written.
    """
    path = Path(path)
    if not path.is_dir() and not path.is_file():
        raise FigureDataError(f"{path}: expected a run directory, found no directory there, and no file")
    drawings: list[Drawing] = []
    for file, kind in saved_files(path):
        drawings += _OF_KIND[kind](file)
    folder = Path(folder) if folder is not None else figures_folder(path)
    paths: list[Path] = []
    for name, draw, table in drawings:
        paths += save_figure(draw(), folder / name, table())
    return paths


def _of_run(file: Path) -> list[Drawing]:
    return _drawings(load_run(file))


def _of_ablation(file: Path) -> list[Drawing]:
    ablation = load_ablation(file)
    if ablation.study in SEARCH_STUDIES:
        return _curves(as_run(ablation))
    if ablation.study == "domain":
        return [_domains(ablation, method) for method in calibrated_methods(ablation)]
    shown_rows(ablation)  # a study without test prompts is found before anything is drawn
    return [
        (
            file_name("ablation", ablation.study),
            lambda: draw_setting_curves(ablation),
            lambda: table_setting_curves(ablation),
        )
    ]


def _domains(ablation: Ablation, method: str) -> Drawing:
    matrix(ablation, method)
    return (
        file_name("domain_matrix", method),
        lambda: draw_domain_matrix(ablation, method),
        lambda: table_domain_matrix(ablation, method),
    )


def _of_calibration_size(file: Path) -> list[Drawing]:
    curve = load_calibration_size(file)
    name = stem("calibration_size", file)
    return [(name, lambda: draw_calibration_size(curve), lambda: table_calibration_size(curve))]


def _of_study(file: Path) -> list[Drawing]:
    study = load_study(file)
    if study.axes:
        fronts(study, "validation")
        return [(stem("pareto", file), lambda: draw_pareto(study), lambda: table_pareto(study))]
    finished(study)
    return [(stem("optuna", file), lambda: draw_optuna_overview(study), lambda: table_optuna_overview(study))]


def _of_latency(file: Path) -> list[Drawing]:
    latency = load_latency(file)
    return [(stem("latency", file), lambda: draw_latency_rows(latency), lambda: table_latency_rows(latency))]


def _of_budget(file: Path) -> list[Drawing]:
    speedup = load_speedup(file)
    return [(stem("speedup", file), lambda: draw_speedup(speedup), lambda: table_speedup(speedup))]


def _of_divergence(file: Path) -> list[Drawing]:
    found = load_divergence(file)
    return [(stem("divergence", file), lambda: draw_divergence(found), lambda: table_divergence(found))]


_OF_KIND: dict[str, Callable[[Path], list[Drawing]]] = {
    RUN: _of_run,
    ABLATION: _of_ablation,
    CALIBRATION_SIZE: _of_calibration_size,
    STUDY: _of_study,
    LATENCY: _of_latency,
    BUDGET: _of_budget,
    DIVERGENCE: _of_divergence,
}


def _drawings(run: Run) -> list[Drawing]:
    """File stem, figure and table of everything that this run can show."""
    found: list[Drawing] = []
    if any(row.method != "plain" for row in run.rows):
        found += _curves(run)
    else:
        _left_out(run, "rows other than plain decoding's", "curves over the budget")
    for policy in run.policies():
        found += _graph(run, policy)
    found += _histogram(run)
    for policy in run.policies():
        found += _ranks(run, policy)
    return found


def _curves(run: Run) -> list[Drawing]:
    return [
        (
            "nfe_vs_budget",
            lambda: draw_nfe_vs_budget(run, "nfe_reduction"),
            lambda: table_nfe_vs_budget(run, "nfe_reduction"),
        ),
        (
            "accepted_drafts_vs_budget",
            lambda: draw_nfe_vs_budget(run, "accepted_drafts"),
            lambda: table_nfe_vs_budget(run, "accepted_drafts"),
        ),
    ]


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
    warnings.warn(f"{run.directory}/results.json has no {missing}: no {figure} drawn", FigureWarning, stacklevel=5)
