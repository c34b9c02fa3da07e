"""All figures of a run, a study or a saved file at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from figures.canvas.output import Table, save_figure
from figures.plots.ablation import SEARCH_STUDIES, as_run
from figures.plots.accepted_histogram import draw_accepted_histogram, pairs, table_accepted_histogram
from figures.plots.calibration_size import draw_calibration_size, table_calibration_size
from figures.plots.curves import Metric, table_nfe_vs_budget
from figures.plots.divergence import draw_divergence, table_divergence
from figures.plots.domain_matrix import calibrated_methods, draw_domain_matrix, matrix, table_domain_matrix
from figures.plots.graph_layers import draw_graph_layers, graph_row, lay_out, table_graph_layers
from figures.plots.latency_rows import draw_latency_rows, table_latency_rows
from figures.plots.nfe_vs_budget import draw_nfe_vs_budget
from figures.plots.nfe_vs_rows import draw_nfe_vs_rows, row_curves, table_nfe_vs_rows
from figures.plots.optuna_overview import draw_optuna_overview, finished, table_optuna_overview
from figures.plots.pareto import draw_pareto, fronts, table_pareto
from figures.plots.quality import draw_quality, table_quality
from figures.plots.rank_heatmaps import draw_rank_heatmaps, rank_counts, table_rank_heatmaps
from figures.plots.setting_curves import draw_setting_curves, shown_rows, table_setting_curves
from figures.plots.speedup import draw_speedup, table_speedup
from figures.records.ablation import Ablation, load_ablation
from figures.records.budget import load_budget
from figures.records.calibration_size import load_calibration_size
from figures.records.divergence import load_divergence
from figures.records.latency import load_latency
from figures.records.quality import load_quality
from figures.records.record import MAX_BYTES
from figures.records.run import FigureDataError, Run, load_run
from figures.records.saved import (
    ABLATION,
    BUDGET,
    CALIBRATION_SIZE,
    DIVERGENCE,
    LATENCY,
    QUALITY,
    RUN,
    STUDY,
    FigureWarning,
    figures_folder,
    saved_files,
    stem,
)
from figures.records.study import load_study
from figures.records.words import file_name
from verify.files.strict_json import StrictJsonError, read_json
from verify.graph.file import GRAPH_FORMAT, GraphFileError, load_graph

Drawing = tuple[str, Callable[[], Figure], Callable[[], Table]]
Kind = Callable[[Path], list[Drawing]]
GRAPH = "graph"


def draw_all(path: str | Path, folder: str | Path | None = None) -> list[Path]:
    """Draw every figure that ``path`` has data for.

    Args:
        path: a saved file, or a directory with such files in it: ``results.json`` of ``calibrate`` or ``ablate``,
            ``study.json``, or what ``quality``, ``calibration-size``, ``latency``, ``budget`` and
            ``verify`` wrote; or one graph file. Figures of files with other names than these two carry the file's name.
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
    for file, kind in [(path, GRAPH)] if is_graph(path) else saved_files(path):
        drawings += _OF_KIND[kind](file)
    folder = Path(folder) if folder is not None else figures_folder(path)
    paths: list[Path] = []
    for name, draw, table in drawings:
        paths += save_figure(draw(), folder / name, table())
    return paths


def is_graph(path: Path) -> bool:
    """Whether ``path`` is a graph file; only one that is named is drawn, never all those of a folder."""
    try:
        outer = read_json(path, MAX_BYTES) if path.is_file() else None
    except StrictJsonError:
        return False  # the reader of saved files says what is wrong with it
    return isinstance(outer, dict) and outer.get("format") == GRAPH_FORMAT


def _of_run(file: Path) -> list[Drawing]:
    return _drawings(load_run(file))


def _of_ablation(file: Path) -> list[Drawing]:
    ablation = load_ablation(file)
    if ablation.study in SEARCH_STUDIES:
        return _curves(as_run(ablation))
    if ablation.study == "domain":
        return [_domains(ablation, method) for method in calibrated_methods(ablation)]
    shown_rows(ablation)  # a study without test prompts is found before anything is drawn
    return [_drawing(file_name("ablation", ablation.study), draw_setting_curves, table_setting_curves, ablation)]


def _domains(ablation: Ablation, method: str) -> Drawing:
    matrix(ablation, method)
    return _drawing(file_name("domain_matrix", method), draw_domain_matrix, table_domain_matrix, ablation, method)


def _of_study(file: Path) -> list[Drawing]:
    study = load_study(file)
    if study.axes:
        fronts(study, "validation")
        return [_drawing(stem("pareto", file), draw_pareto, table_pareto, study)]
    finished(study)
    return [_drawing(stem("optuna", file), draw_optuna_overview, table_optuna_overview, study)]


def _of_graph(file: Path) -> list[Drawing]:
    try:
        graph = load_graph(file)
    except GraphFileError as error:
        raise FigureDataError(str(error)) from None
    lay_out(graph)  # bad per-node values are found before anything is drawn
    return [_drawing("graph", draw_graph_layers, table_graph_layers, graph)]


def _one(figure: str, load: Callable[[Path], Any], draw: Callable[..., Figure], table: Callable[..., Table]) -> Kind:
    """A kind of file with one figure."""
    return lambda file: [_drawing(stem(figure, file), draw, table, load(file))]


def _drawing(name: str, draw: Callable[..., Figure], table: Callable[..., Table], *shown: Any) -> Drawing:
    return name, partial(draw, *shown), partial(table, *shown)


_OF_KIND: dict[str, Kind] = {
    RUN: _of_run,
    ABLATION: _of_ablation,
    STUDY: _of_study,
    GRAPH: _of_graph,
    CALIBRATION_SIZE: _one("calibration_size", load_calibration_size, draw_calibration_size, table_calibration_size),
    LATENCY: _one("latency", load_latency, draw_latency_rows, table_latency_rows),
    BUDGET: _one("speedup", load_budget, draw_speedup, table_speedup),
    DIVERGENCE: _one("divergence", load_divergence, draw_divergence, table_divergence),
    QUALITY: _one("quality", load_quality, draw_quality, table_quality),
}


def _drawings(run: Run) -> list[Drawing]:
    """File stem, figure and table of everything that this run can show."""
    found: list[Drawing] = []
    if any(row.method != "plain" for row in run.rows):
        found += _curves(run)
    else:
        _left_out(run, "rows other than plain decoding's", "curves over the budget")
    if any(row_curves(run, panel) for panel in run.panels()):
        found.append(_drawing("nfe_vs_rows", draw_nfe_vs_rows, table_nfe_vs_rows, run))
    for policy in run.policies():
        found += _graph(run, policy)
    found += _histogram(run)
    for policy in run.policies():
        found += _ranks(run, policy)
    return found


def _curves(run: Run) -> list[Drawing]:
    metrics: tuple[Metric, ...] = ("nfe_reduction", "accepted_drafts")
    names = ("nfe_vs_budget", "accepted_drafts_vs_budget")
    return [
        _drawing(name, draw_nfe_vs_budget, table_nfe_vs_budget, run, metric)
        for name, metric in zip(names, metrics, strict=True)
    ]


def _graph(run: Run, policy: str) -> list[Drawing]:
    try:
        row = graph_row(run, policy)
    except FigureDataError:
        _left_out(run, f"saved graphs of policy {policy}", "graph drawing")
        return []
    graph = run.load_graph(row)
    lay_out(graph)  # a broken file is found before anything is drawn
    return [_drawing(file_name("graph", policy), draw_graph_layers, table_graph_layers, graph)]


def _histogram(run: Run) -> list[Drawing]:
    try:
        pairs(run)
    except FigureDataError:
        _left_out(run, "histograms of a calibrated graph", "accepted-length histogram")
        return []
    return [_drawing("accepted_histogram", draw_accepted_histogram, table_accepted_histogram, run)]


def _ranks(run: Run, policy: str) -> list[Drawing]:
    try:
        rank_counts(run, policy)
    except FigureDataError:
        _left_out(run, f"rank_counts of policy {policy}", "rank heat maps")
        return []
    return [_drawing(file_name("ranks", policy), draw_rank_heatmaps, table_rank_heatmaps, run, policy)]


def _left_out(run: Run, missing: str, figure: str) -> None:
    warnings.warn(f"{run.directory}/results.json has no {missing}: no {figure} drawn", FigureWarning, stacklevel=5)
