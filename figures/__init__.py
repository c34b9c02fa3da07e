"""Figures of study results, drawn from saved files alone; nothing computes here that a table would need.

The public names are imported on first use (PEP 562), so that ``import figures`` does not load matplotlib.
"""

from importlib import import_module
from typing import Any

# public name -> the module that defines it
_HOME = {
    "FigureDataError": "figures.fields",
    "FigureWarning": "figures.saved",
    "Run": "figures.data",
    "Table": "figures.output",
    "draw_accepted_histogram": "figures.accepted_histogram",
    "draw_all": "figures.draw",
    "draw_calibration_size": "figures.calibration_size",
    "draw_divergence": "figures.divergence",
    "draw_domain_matrix": "figures.domain_matrix",
    "draw_graph_layers": "figures.graph_layers",
    "draw_latency_rows": "figures.latency_rows",
    "draw_memory": "figures.memory",
    "draw_nfe_vs_budget": "figures.nfe_vs_budget",
    "draw_optuna_overview": "figures.optuna_overview",
    "draw_pareto": "figures.pareto",
    "draw_rank_heatmaps": "figures.rank_heatmaps",
    "draw_setting_curves": "figures.setting_curves",
    "draw_speedup": "figures.speedup",
    "load_ablation": "figures.ablation",
    "load_calibration_size": "figures.calibration_size",
    "load_divergence": "figures.divergence",
    "load_latency": "figures.latency_rows",
    "load_memory": "figures.memory",
    "load_run": "figures.data",
    "load_speedup": "figures.speedup",
    "load_study": "figures.study_file",
    "save_figure": "figures.output",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'figures' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
