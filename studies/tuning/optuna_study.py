"""Optuna tunes the parametric constructor on held-out prompts. One worker's loop; any number may share a study.

Three kinds of study:

* ``forwards``: fewest forward passes on held-out prompts, averaged over the budgets;
* ``query_tokens``: most tokens per forward against fewest query tokens per forward, with the budget as one more
  parameter;
* ``domains``: fewest forwards on each of two domains, which may be at odds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import Trial

from drafting.parametric.candidates import MAX_STATES
from drafting.parametric.parameters import PARAMETERS, WARM_STARTS
from studies.tuning.fold_objective import FoldObjective
from studies.tuning.shared_study import Question, StudyError, WorkerResult, quiet, seeded_sampler, work_on

Kind = Literal["forwards", "query_tokens", "domains"]

STUDY_VERSION = 1
# scipy permutes all 2^n signs for up to 13 pairs with ties (forwards tie often), which takes seconds; never ask it to.
_PRUNE_FROM = 14


@dataclass(frozen=True)
class StudyConfig:
    """What the trials of a study depend on, besides the traces; kept in its storage, compared on every resume.

    Attributes:
        kind: see the module.
        budgets: draft nodes; the objective is the mean over them (``rows``: the largest bounds the parameter).
        folds: parts that the search prompts are cut into.
        seed: of the cut and of the sampler.
        prune: p-value of the Wilcoxon pruner (``forwards`` only), asked after each fold once 14 prompts were seen;
            None: every trial runs to its end.
        max_states: candidate states kept per fold.
    """

    kind: Kind = "forwards"
    budgets: tuple[int, ...] = (3, 5, 8, 10, 16)
    folds: int = 4
    seed: int = 0
    prune: float | None = None
    max_states: int = MAX_STATES

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise StudyError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.prune is not None and not 0 < self.prune < 1:
            raise StudyError(f"prune is a p-value between 0 and 1, for example 0.1, got {self.prune}")
        if self.prune is not None and self.kind != "forwards":
            raise StudyError(
                f"a study of kind {self.kind!r} has two objectives, and pruning needs one; leave prune out"
            )
        if self.seed < 0:
            raise StudyError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True, eq=False)
class StudyData:
    """What is searched on.

    Attributes:
        objective: the folds.
        trace_hash: of the traces, search and test, as they were recorded.
        block_length: positions per block.
        tokens: tokens that each prompt of ``objective.prompt_indices`` generated, int64 [M].
        domains: domain of each prompt, or None.
    """

    objective: FoldObjective
    trace_hash: str
    block_length: int
    tokens: np.ndarray
    domains: Mapping[int, str] | None = None


def run_study(
    data: StudyData,
    config: StudyConfig,
    trials: int,
    *,
    storage: str | None = None,
    name: str = "draftgraph",
    on_trial: Callable[[int], None] | None = None,
) -> WorkerResult:
    """Make or join a study over ``data`` and work on it; see :func:`studies.tuning.shared_study.work_on`.

    Args:
        data: folds and facts of the traces.
        config: what the trials depend on.
        trials, storage, name, on_trial: as there.

    Raises:
        StudyError: as there; or prompts that are not of two domains, for a study of that kind.
        studies.tuning.journal.StorageError: as there.
    """
    if config.kind == "domains":
        _two(data)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if config.prune is not None:
        with quiet():
            pruner = optuna.pruners.WilcoxonPruner(p_threshold=config.prune, n_startup_steps=_PRUNE_FROM)
    question = Question(
        facts=study_facts(data, config),
        objective=lambda trial: _objective(trial, data, config),
        directions=directions(config),
        sampler=lambda position: seeded_sampler(config.seed, position, multivariate=config.kind == "forwards"),
        warm_starts=_warm_starts(data, config),
        pruner=pruner,
    )
    return work_on(question, trials, storage=storage, name=name, on_trial=on_trial)


def _warm_starts(data: StudyData, config: StudyConfig) -> dict[str, dict[str, Any]]:
    """The known graphs that trials begin from, as parameters."""
    extra = (
        {"budget": data.objective.budgets[len(data.objective.budgets) // 2]} if config.kind == "query_tokens" else {}
    )
    return {
        title: {key: value for key, value in values.items() if key in data.objective.names} | extra
        for title, values in WARM_STARTS.items()
    }


def _objective(trial: Trial, data: StudyData, config: StudyConfig) -> float | list[float]:
    """One trial from its parameters to its value or values."""
    parameters = _suggest(trial, data.objective.names)
    budget = _suggest_budget(trial, data, config)
    parts = []
    scale = len(data.objective.prompt_indices) / data.objective.plain.sum()
    for part in data.objective.run(parameters):
        parts.append(part.forwards)
        if config.prune is not None:
            means = part.forwards.mean(axis=0) * scale
            for prompt_index, share in zip(part.prompt_indices.tolist(), means, strict=True):
                trial.report(float(share), int(prompt_index))
            if len(parts) < len(data.objective.held_out) and trial.should_prune():
                trial.set_user_attr("pruned_after", int(sum(found.shape[1] for found in parts)))
                break
    return objective_values(np.concatenate(parts, axis=1), data, config, budget)


def objective_values(
    forwards: np.ndarray, data: StudyData, config: StudyConfig, budget: int | None = None
) -> float | list[float]:
    """The value or values of forwards per budget and prompt ([budgets, M], or the first prompts of them).

    ``forwards``: forward passes per denoising step, mean over the budgets (1 is plain decoding). After pruning it is
    taken over the prompts seen, which the pruner found to be worse than the best trial's, so it is never the best.
    ``query_tokens``: (tokens per forward, query tokens per forward). ``domains``: the first kind's value for either
    domain.
    """
    seen = forwards.shape[1]
    plain = data.objective.plain
    if config.kind == "forwards":
        return float(forwards.mean(axis=0).sum() / plain.sum() * (len(plain) / seen))
    if config.kind == "query_tokens":
        assert budget is not None
        row = data.objective.budgets.index(budget)
        return [float(data.tokens.sum() / forwards[row].sum()), float(data.block_length * (1 + budget))]
    assert data.domains is not None
    named = np.array([data.domains[int(prompt_index)] for prompt_index in data.objective.prompt_indices])
    return [float(forwards[:, named == d].mean(axis=0).sum() / plain[named == d].sum()) for d in _two(data)]


def directions(config: StudyConfig) -> list[StudyDirection]:
    """Per objective."""
    least, most = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
    return {"forwards": [least], "query_tokens": [most, least], "domains": [least, least]}[config.kind]


def study_facts(data: StudyData, config: StudyConfig) -> dict[str, Any]:
    """What a study notes about itself and compares on a resume."""
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
    return {
        "version": STUDY_VERSION,
        "trace_hash": data.trace_hash,
        "parameters": list(data.objective.names),
        "config": settings,
    }


def _two(data: StudyData) -> list[str]:
    names = sorted(
        set((data.domains or {}).get(int(prompt_index), "") for prompt_index in data.objective.prompt_indices)
    )
    if len(names) != 2:
        raise StudyError(
            f"a study of kind 'domains' needs prompts of exactly two domains, got {', '.join(names) or 'none'}; "
            "record prompts of two, for example bundled/lists+code, and name them with --prompts"
        )
    return names


def _suggest(trial: Trial, names: tuple[str, ...]) -> dict[str, float]:
    return {p.name: trial.suggest_float(p.name, p.low, p.high) for p in PARAMETERS if p.name in names}


def _suggest_budget(trial: Trial, data: StudyData, config: StudyConfig) -> int | None:
    if config.kind != "query_tokens":
        return None
    return trial.suggest_int("budget", data.objective.budgets[0], data.objective.budgets[-1], log=True)
