"""What came out of a study: its trials, baselines on the same folds, and the judgement on test prompts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from drafting.parametric.candidates import Candidates
from drafting.parametric.construction import parametric
from drafting.replay import ReplayResult, replay
from drafting.searches.result import SearchResult
from figures.records.record import read_object, save_record
from figures.records.study import OPTUNA, STUDY_NAME, StudyFile
from studies.statistics.crossval import search_graphs
from studies.statistics.intervals import Comparison, Interval, PromptBootstrap, interval_columns
from studies.tuning.optuna_study import StudyConfig, study_facts
from studies.tuning.shared_study import StudyError
from studies.tuning.study_data import StudyInput
from verify.files.typed_json import from_json, to_json

#: Fixed graphs to beat; "exact" is the proven best graph of its budget on the search prompts.
BASELINES = ("chain", "tree_greedy", "published", "greedy", "cut", "exact")
_IMPORTANCE_TRIALS = 10


def study_results(source: StudyInput, config: StudyConfig, study: optuna.Study) -> dict[str, Any]:
    """The content of ``study.json`` for a study of one objective.

    Raises:
        StudyError: no trial was finished.
    """
    data = source.data
    objective = data.objective
    best = study.best_trial if _complete(study) else None
    if best is None:
        raise StudyError(f"the study {study.study_name!r} has no finished trial")
    tuned = final_graph(source, best.params)
    rows: list[dict[str, Any]] = []
    counts: dict[str, list[ReplayResult]] = {}
    for method in (*BASELINES, OPTUNA):
        if method == OPTUNA:
            held = objective.forwards(best.params)
            graphs = {budget: tuned.nodes[:budget] for budget in objective.budgets}
        else:
            held = objective.baseline(method, data.block_length)
            found = search_graphs(method, objective.anchors, objective.budgets, data.block_length, objective.step_size)
            graphs = {budget: found[budget].nodes for budget in objective.budgets}
        counts[method] = [replay(graphs[budget], source.test) for budget in objective.budgets]
        for budget, forwards, count in zip(objective.budgets, held.sum(axis=1), counts[method], strict=True):
            rows.append(_row(method, budget, "validation", int(objective.plain.sum()), int(forwards)))
            row = _row(method, budget, "test", count.plain_forwards, count.forwards)
            rows.append({**row, **interval_columns(count)})
    against = {method: compare(counts[OPTUNA], counts[method], objective.budgets, method) for method in BASELINES}
    return {
        **shared_header(source, config, study),
        "objective": "forward passes per denoising step on held-out prompts, mean over the budgets",
        "trials": trial_rows(study),
        "best": {
            "number": best.number,
            "value": best.value,
            "params": best.params,
            "warm_start": best.user_attrs.get("warm_start"),
            "nodes": [[list(pair) for pair in node] for node in tuned.nodes],
            "complete": tuned.complete,
        },
        "importances": importances(study),
        "baselines": rows,
        "comparisons": against,
        "pareto": [],
    }


def final_graph(source: StudyInput, params: Mapping[str, float]) -> SearchResult:
    """The graph of tuned parameters, built from all search prompts."""
    return parametric(final_candidates(source), without_budget(params), source.data.objective.budgets[-1])


def final_candidates(source: StudyInput) -> Candidates:
    """Candidates over all search prompts."""
    objective = source.data.objective
    return Candidates.from_anchors(
        objective.anchors,
        objective.budgets[-1],
        objective.step_size,
        source.data.domains,
        reference_budget=objective.budgets[len(objective.budgets) // 2],
    )


def compare(
    first: Sequence[ReplayResult], second: Sequence[ReplayResult], budgets: Sequence[int], name: str
) -> dict[str, Any]:
    """Paired comparison on test prompts, over all budgets together and for each one; difference in nfe reduction."""
    bootstrap = PromptBootstrap(first[0].prompts)
    whole = _comparison_row(bootstrap.compare(ReplayResult.mean(first), ReplayResult.mean(second)), name)
    each = [
        {"budget": budget, **_comparison_row(bootstrap.compare(a, b), name)}
        for budget, a, b in zip(budgets, first, second, strict=True)
    ]
    return {"against": name, **whole, "by_budget": each}


def trial_rows(study: optuna.Study) -> list[dict[str, Any]]:
    """One row per trial, in order: what histories and parallel coordinates are drawn from."""
    return [
        {
            "number": trial.number,
            "params": trial.params,
            **({"value": trial.values[0] if trial.values else None} if len(study.directions) == 1 else {}),
            "values": trial.values or [],
            "state": _state(trial),
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            "warm_start": trial.user_attrs.get("warm_start"),
            "prompts_seen": trial.user_attrs.get("pruned_after"),
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]


def importances(study: optuna.Study) -> list[dict[str, float]]:
    """Per objective, the share of each parameter in what separates good trials from others (PED-ANOVA).

    Empty with fewer than 10 complete trials, which say nothing about 11 parameters.
    """
    if len(_complete(study)) < _IMPORTANCE_TRIALS:
        return []
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in range(len(study.directions)):
            target = None if len(study.directions) == 1 else _value_of(index)
            found.append(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), target=target))
    return found


def write_study(out: str | Path, results: dict[str, Any], overwrite: bool = False) -> Path:
    """Write ``out``/study.json; an older state of the same study is replaced.

    Raises:
        StudyError: another study stands there and ``overwrite`` is off.
        figures.FigureDataError: what stands there cannot be read.
    """
    path = Path(out) / STUDY_NAME
    check_study_output(path, results["config"], results["trace_hash"], overwrite)
    save_record(from_json(StudyFile, to_json(results)), path)
    return path


def check_study_output(path: Path, config: dict[str, Any], trace_hash: str, overwrite: bool) -> None:
    """Raise :class:`StudyError` when ``path`` holds another study and ``overwrite`` is off.

    Raises:
        figures.FigureDataError: what stands there cannot be read.
    """
    if overwrite or not path.exists():
        return
    there = read_object(path)
    if there.get("config") != config or there.get("trace_hash") != trace_hash:
        raise StudyError(f"{path} holds another study; give another --out, or --overwrite")


def shared_header(source: StudyInput, config: StudyConfig, study: optuna.Study) -> dict[str, Any]:
    """What every ``study.json`` begins with."""
    facts = study_facts(source.data, config)
    return {
        "name": study.study_name,
        "trace_hash": facts["trace_hash"],
        "config": facts["config"],
        "run": {key: source.facts.get(key) for key in ("model", "model_revision", "policy", "cache", "block_length")},
        "search_prompts": len(source.data.objective.prompt_indices),
        "test_prompts": len(source.test.prompt_indices()),
        "optuna_version": optuna.__version__,
    }


def _comparison_row(found: Comparison, name: str) -> dict[str, Any]:
    difference: Interval = found.nfe_reduction_difference
    return {
        "difference": difference.estimate,
        "interval": difference.pair(),
        "level": difference.level,
        "prompts": difference.prompts,
        "contains_zero": difference.contains(0.0),
        "distinguishable": found.distinguishable,
        "forwards_ratio": found.nfe_reduction_ratio.estimate,
        "sentence": found.sentence("the Optuna graph", f"the {name} graph"),
    }


def _row(method: str, budget: int, split: str, plain: int, forwards: int) -> dict[str, Any]:
    return {
        "method": method,
        "budget": budget,
        "split": split,
        "forwards_plain": plain,
        "forwards": forwards,
        "nfe_reduction": plain / forwards,
    }


def without_budget(params: Mapping[str, float]) -> dict[str, float]:
    """The parameters of the constructor alone."""
    return {name: value for name, value in params.items() if name != "budget"}


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _state(trial: FrozenTrial) -> str:
    if trial.state is TrialState.COMPLETE and "pruned_after" in trial.user_attrs:
        return "pruned"
    return trial.state.name.lower()


def _value_of(index: int) -> Any:
    return lambda trial: trial.values[index]
