"""Studies of two objectives: their Pareto front, judged on test prompts, beside the fronts of fixed methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna

from drafting.nested_replay import NestedReplay
from drafting.parametric.construction import parametric_order
from drafting.replay import replay
from studies.statistics.crossval import search_graphs
from studies.tuning.optuna_study import StudyConfig, objective_values
from studies.tuning.shared_study import StudyError
from studies.tuning.study_data import StudyInput
from studies.tuning.study_results import (
    BASELINES,
    OPTUNA,
    final_candidates,
    importances,
    shared_header,
    trial_rows,
    without_budget,
)

AXES = {
    "query_tokens": (
        {"name": "tokens_per_forward", "direction": "maximize", "unit": "tokens per forward pass, held-out prompts"},
        {"name": "query_tokens", "direction": "minimize", "unit": "query tokens per forward pass, L * (1 + D)"},
    ),
    "domains": (
        {"name": "forwards_per_step", "direction": "minimize", "unit": "forward passes per denoising step"},
        {"name": "forwards_per_step", "direction": "minimize", "unit": "forward passes per denoising step"},
    ),
}


def front(values: np.ndarray, maximize: tuple[bool, ...]) -> np.ndarray:
    """bool [n]: points that no other point beats in one coordinate without losing in another. Equal points all stay.

    ``values`` float64 [n, k]. O(n^2 k).
    """
    signed = np.where(maximize, -values, values)
    no_worse = (signed[:, None, :] <= signed[None, :, :]).all(axis=2)
    better = (signed[:, None, :] < signed[None, :, :]).any(axis=2)
    return np.logical_not((no_worse & better).any(axis=0))


def pareto_results(source: StudyInput, config: StudyConfig, study: optuna.Study) -> dict[str, Any]:
    """The content of ``study.json`` for a study of two objectives.

    ``pareto`` holds Optuna's front and, for every baseline, its own: values on held-out prompts of the folds
    (``values``) and on test prompts (``test_values``; None where the test prompts lack one of the domains). A front
    chosen by its held-out values is too good by them; the test values are what to quote.

    Raises:
        StudyError: no trial was finished.
    """
    if not study.best_trials:
        raise StudyError(f"the study {study.study_name!r} has no finished trial")
    axes = [dict(axis) for axis in AXES[config.kind]]
    if config.kind == "domains":
        for axis, domain in zip(axes, _domains(source), strict=True):
            axis["domain"] = domain
    rows = _optuna_front(source, config, study)
    for method in BASELINES:
        rows += _baseline_front(source, config, method)
    return {
        **shared_header(source, config, study),
        "axes": axes,
        "trials": trial_rows(study),
        "importances": importances(study),
        "pareto": rows,
    }


def _optuna_front(source: StudyInput, config: StudyConfig, study: optuna.Study) -> list[dict[str, Any]]:
    candidates = final_candidates(source)
    budgets = source.data.objective.budgets
    test = NestedReplay(candidates.trie, source.test, budgets)
    rows = []
    # Of trials with the very same values one is enough, the first.
    distinct = {tuple(trial.values): trial for trial in reversed(study.best_trials)}
    for _, trial in sorted(distinct.items()):
        order, _ = parametric_order(candidates, without_budget(trial.params), budgets[-1])
        budget = trial.params.get("budget")
        values = _test_values(source, config, test.prompt_indices, test.plain, test.forwards(order), budget)
        rows.append(_row(OPTUNA, trial.values, values, budget) | {"number": trial.number, "params": trial.params})
    return rows


def _baseline_front(source: StudyInput, config: StudyConfig, method: str) -> list[dict[str, Any]]:
    objective = source.data.objective
    budgets = objective.budgets
    held = objective.baseline(method, source.data.block_length)
    graphs = search_graphs(method, objective.anchors, budgets, source.data.block_length, objective.step_size)
    counts = [replay(graphs[budget].nodes, source.test) for budget in budgets]
    forwards = np.array([count.forwards_per_prompt for count in counts])
    points = []
    for budget in budgets if config.kind == "query_tokens" else (None,):
        values = objective_values(held, source.data, config, budget)
        assert isinstance(values, list)
        tested = _test_values(source, config, counts[0].prompt_indices, counts[0].plain_per_prompt, forwards, budget)
        bound = graphs[budget].gap if budget is not None else None
        points.append(_row(method, values, tested, budget) | {"gap": bound})
    if config.kind != "query_tokens":
        return points
    kept = front(np.array([point["values"] for point in points]), (True, False))
    return [point for point, keep in zip(points, kept, strict=True) if keep]


def _row(method: str, values: list[float], tested: list[float] | None, budget: int | None) -> dict[str, Any]:
    return {"method": method, "budget": budget, "values": list(values), "test_values": tested}


def _test_values(
    source: StudyInput,
    config: StudyConfig,
    prompt_indices: np.ndarray,
    plain: np.ndarray,
    forwards: np.ndarray,
    budget: int | None,
) -> list[float] | None:
    if config.kind == "query_tokens":
        assert budget is not None
        row = source.data.objective.budgets.index(budget)
        return [
            source.test_tokens / float(forwards[row].sum()),
            float(source.data.block_length * (1 + budget)),
        ]
    domains = source.test_domains or {}
    named = np.array([domains.get(int(prompt_index), "") for prompt_index in prompt_indices])
    shares = []
    for domain in _domains(source):
        chosen = named == domain
        if not chosen.any():
            return None
        shares.append(float(forwards[:, chosen].mean(axis=0).sum() / plain[chosen].sum()))
    return shares


def _domains(source: StudyInput) -> list[str]:
    domains = source.data.domains or {}
    return sorted({domains[int(prompt_index)] for prompt_index in source.data.objective.prompt_indices})
