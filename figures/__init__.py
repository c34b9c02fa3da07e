"""Figures of study results, drawn from saved files alone; nothing computes here that a table would need.

The public names are imported on first use, so that ``import figures`` does not load matplotlib.
"""

from verify.lazy import public_names

# public name -> the module that defines it
_HOMES = {
    "FigureDataError": "figures.records.record",
    "FigureWarning": "figures.records.saved",
    "Run": "figures.records.run",
    "Table": "figures.canvas.output",
    "draw_accepted_histogram": "figures.plots.accepted_histogram",
    "draw_all": "figures.draw",
    "draw_calibration_size": "figures.plots.calibration_size",
    "draw_divergence": "figures.plots.divergence",
    "draw_domain_matrix": "figures.plots.domain_matrix",
    "draw_graph_layers": "figures.plots.graph_layers",
    "draw_latency_rows": "figures.plots.latency_rows",
    "draw_nfe_vs_budget": "figures.plots.nfe_vs_budget",
    "draw_optuna_overview": "figures.plots.optuna_overview",
    "draw_pareto": "figures.plots.pareto",
    "draw_rank_heatmaps": "figures.plots.rank_heatmaps",
    "draw_quality": "figures.plots.quality",
    "draw_setting_curves": "figures.plots.setting_curves",
    "draw_speedup": "figures.plots.speedup",
    "load_ablation": "figures.records.ablation",
    "load_calibration_size": "figures.records.calibration_size",
    "load_divergence": "figures.records.divergence",
    "load_latency": "figures.records.latency",
    "load_quality": "figures.records.quality",
    "load_run": "figures.records.run",
    "load_budget": "figures.records.budget",
    "load_study": "figures.records.study",
    "save_figure": "figures.canvas.output",
}

__getattr__, __dir__, __all__ = public_names(__name__, _HOMES)
