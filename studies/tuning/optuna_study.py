"""Optuna tunes the parametric constructor on held-out prompts. One worker's loop; any number may share a study.

Three kinds of study:

* ``forwards``: fewest forward passes on held-out prompts, averaged over the budgets;
* ``query_tokens``: most tokens per forward against fewest query tokens per forward, with the budget as one more
  parameter;
* ``domains``: fewest forwards on each of two domains, which may be at odds.

A trial's sampler is seeded by the study's seed and the trial's position among the live trials. So a study of one
process is the same every time, bit for bit, and one that was killed and resumed is the same as one that was not.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.study import MaxTrialsCallback, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from drafting.parametric.candidates import MAX_STATES
from drafting.parametric.parameters import PARAMETERS, WARM_STARTS
from studies.tuning.fold_objective import FoldObjective
from studies.tuning.storage import GRACE_SECONDS, open_storage, shown, storage_guard

Kind = Literal["forwards", "query_tokens", "domains"]

STUDY_VERSION = 1
_FACTS = "draftgraph"
# scipy permutes all 2^n signs for up to 13 pairs with ties (forwards tie often), which takes seconds; never ask it to.
_PRUNE_FROM = 14
_SETTLE_SECONDS = 10.0  # for the maker of a study to write down what it is a study of


class StudyError(ValueError):
    """A study that cannot be made, or is not the one asked for."""


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


@dataclass(frozen=True, eq=False)
class WorkerResult:
    """What one worker did: the study as it stands, the trials it finished itself, and all finished ones."""

    study: optuna.Study
    own: int
    finished: int


def run_study(
    data: StudyData,
    config: StudyConfig,
    trials: int,
    *,
    storage: str | None = None,
    name: str = "draftgraph",
    on_trial: Callable[[int], None] | None = None,
) -> WorkerResult:
    """Make or join a study and work on it until ``trials`` are finished over all workers.

    Every worker ends the trial it is in, so several may finish up to one trial each, less one, beyond ``trials``.

    Args:
        data: folds and facts of the traces.
        config: what the trials depend on.
        trials: finished trials in all; those there already count.
        storage: see :mod:`studies.tuning.storage`.
        name: of the study in its storage.
        on_trial: called with the number of finished trials, after each.

    Raises:
        StudyError: the study there is one over other traces or of another configuration.
        studies.tuning.journal.StorageError: the storage cannot be opened, or went away; what is finished is kept in it.
    """
    if trials < 1:
        raise StudyError(f"a study needs at least one trial, got {trials}")
    opened = open_storage(storage)
    with storage_guard(storage, "cannot be used"), _quiet():
        study = _make_or_join(opened, name, data, config, storage)
        own, done = 0, finished_trials(study)

    def prepare_next(study: optuna.Study, _: FrozenTrial | None = None) -> None:
        study.sampler = _sampler(config, _live_trials(study))

    def count(study: optuna.Study, _: FrozenTrial) -> None:
        nonlocal own, done
        own, done = own + 1, finished_trials(study)
        if on_trial is not None:
            on_trial(done)

    if done < trials:
        # The guard asks for ``done`` only when the storage is gone.
        with storage_guard(storage, f"went away while the study {name!r} ran", lambda: done), _quiet():
            prepare_next(study)
            study.optimize(
                lambda trial: _objective(trial, data, config),
                callbacks=[MaxTrialsCallback(trials), prepare_next, count],
            )
    return WorkerResult(study, own, done)


def finished_trials(study: optuna.Study) -> int:
    """Trials finished by any worker."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _live_trials(study: optuna.Study) -> int:
    """Trials that did not fail: the position that the next new trial takes among them."""
    return sum(trial.state is not TrialState.FAIL for trial in study.get_trials(deepcopy=False))


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
            "name the prompt set that was recorded, for example --prompts bundled --split calibration"
        )
    return names


def _make_or_join(
    opened: optuna.storages.BaseStorage, name: str, data: StudyData, config: StudyConfig, storage: str | None
) -> optuna.Study:
    facts = study_facts(data, config)
    if config.kind == "domains":
        _two(data)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if config.prune is not None:
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=config.prune, n_startup_steps=_PRUNE_FROM)
    found = None
    try:
        study = optuna.create_study(storage=opened, study_name=name, directions=directions(config), pruner=pruner)
        joined = False
    except DuplicatedStudyError:
        study = optuna.load_study(storage=opened, study_name=name, pruner=pruner)
        joined = True
    if joined:
        found = _settled_facts(study)
    if found is not None:
        _check_same(found, facts, name, storage)
    optuna.storages.fail_stale_trials(study)
    _queue_warm_starts(study, data, config)
    if found is None:
        study.set_user_attr(_FACTS, facts)  # last: whoever joins waits for them, and finds all warm starts queued
    return study


def _queue_warm_starts(study: optuna.Study, data: StudyData, config: StudyConfig) -> None:
    """Queue the warm starts that are not finished, queued or running.

    A worker that was interrupted or killed leaves one behind. Heartbeats tell a database which workers live; in a
    journal, a warm start that has been running for longer than a worker may be silent counts as lost.
    """
    silent = datetime.now() - timedelta(seconds=GRACE_SECONDS)
    there = {
        trial.user_attrs.get("warm_start")
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.WAITING)
        or (trial.state is TrialState.RUNNING and trial.datetime_start is not None and trial.datetime_start > silent)
    }
    for title, values in WARM_STARTS.items():
        known = {key: value for key, value in values.items() if key in data.objective.names}
        if config.kind == "query_tokens":
            known["budget"] = data.objective.budgets[len(data.objective.budgets) // 2]
        if title not in there:
            study.enqueue_trial(known, user_attrs={"warm_start": title})


def _settled_facts(study: optuna.Study) -> dict[str, Any] | None:
    """What the study says it is; None when its maker died before saying so and no trial of it was begun."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while _FACTS not in study.user_attrs:
        if time.monotonic() > deadline:
            if any(trial.state is not TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
                raise StudyError(
                    f"the study {study.study_name!r} was not made by draftgraph; give another --study-name"
                )
            return None
        time.sleep(0.05)
    found: dict[str, Any] = study.user_attrs[_FACTS]
    return found


def _check_same(found: dict[str, Any], expected: dict[str, Any], name: str, storage: str | None) -> None:
    where = f"the study {name!r} in {shown(storage)}"
    if found.get("trace_hash") != expected["trace_hash"]:
        raise StudyError(
            f"{where} was made over other traces: there trace hash {found.get('trace_hash')}, now "
            f"{expected['trace_hash']}; give the traces it was made with, or another --study-name"
        )
    there, now = ({**facts.get("config", {}), **facts, "config": None} for facts in (found, expected))
    different = sorted(key for key in {*there, *now} if there.get(key) != now.get(key))
    if different:
        listed = "; ".join(f"{key}: there {there.get(key)!r}, now {now.get(key)!r}" for key in different)
        raise StudyError(f"{where} has another configuration ({listed}); give the same, or another --study-name")


def _sampler(config: StudyConfig, position: int) -> optuna.samplers.BaseSampler:
    seed = int(np.random.SeedSequence([config.seed, position]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=seed, multivariate=config.kind == "forwards", constant_liar=True)


def _suggest(trial: Trial, names: tuple[str, ...]) -> dict[str, float]:
    return {p.name: trial.suggest_float(p.name, p.low, p.high) for p in PARAMETERS if p.name in names}


def _suggest_budget(trial: Trial, data: StudyData, config: StudyConfig) -> int | None:
    if config.kind != "query_tokens":
        return None
    return trial.suggest_int("budget", data.objective.budgets[0], data.objective.budgets[-1], log=True)


class _quiet(warnings.catch_warnings):
    """Without the warnings that the pruner, heartbeats and retries are experimental in Optuna."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore", ExperimentalWarning)
        return entered
