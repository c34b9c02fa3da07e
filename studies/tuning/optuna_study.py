"""Optuna tunes the parametric constructor on held-out prompts. One worker's loop; any number may share a study.

Three kinds of study:

* ``forwards``: fewest forward passes on held-out prompts, averaged over the budgets;
* ``rows``: most tokens per forward against fewest rows per forward, with the budget as one more parameter;
* ``domains``: fewest forwards on each of two domains, which may be at odds.

A trial's sampler is seeded by the study's seed and the trial's position among the live trials. So a study of one
process is the same every time, bit for bit, and one that was killed and resumed is the same as one that was not.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import Trial

from drafting.parametric.candidates import MAX_STATES
from drafting.parametric.parameters import PARAMETERS, WARM_STARTS
from studies.tuning.fold_objective import FoldObjective
from studies.tuning.storage import StorageError, open_storage, shown, storage_guard
from studies.tuning.trial_claims import PATIENCE, TrialClaims

Kind = Literal["forwards", "rows", "domains"]

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
    patience: float = PATIENCE,
    on_trial: Callable[[int], None] | None = None,
) -> WorkerResult:
    """Make or join a study and work on it until ``trials`` are finished over all workers.

    Args:
        data: folds and facts of the traces.
        config: what the trials depend on.
        trials: finished trials wanted in all; those there already count.
        storage: see :mod:`studies.tuning.storage`.
        name: of the study in its storage.
        patience: see :mod:`studies.tuning.trial_claims`.
        on_trial: told how many trials are finished, after each.

    Raises:
        StudyError: the study there is one over other traces or of another configuration.
        studies.tuning.storage.StorageError: the storage cannot be opened, or went away; what is finished is kept in it.
    """
    if trials < 1:
        raise StudyError(f"a study needs at least one trial, got {trials}")
    opened = open_storage(storage)
    with storage_guard(storage, "cannot be used"), _quiet():
        study = _make_or_join(opened, name, data, config, storage)
        claims = TrialClaims(study, trials, patience)
        claims.recover()
        own, done = 0, claims.finished()
    while True:
        with storage_guard(storage, f"went away in mid-study {name!r}", done), _quiet():
            study.sampler = _sampler(config, claims.position())
            trial = claims.claim()
            done = claims.finished() if trial is None else done
        if trial is None:
            return WorkerResult(study, own, done)
        try:
            kept = _run_trial(trial, data, config, claims, storage, done)
        except StorageError:
            raise
        except BaseException:
            with suppress(Exception):
                claims.give_back(trial)
            raise
        own += kept
        with storage_guard(storage, f"went away in mid-study {name!r}", done):
            done = claims.finished()
        if on_trial is not None:
            on_trial(done)


def _run_trial(
    trial: Trial, data: StudyData, config: StudyConfig, claims: TrialClaims, storage: str | None, done: int
) -> bool:
    """One trial from its parameters to its values; whether the storage took them."""
    gone = f"went away in mid-study {claims.study.study_name!r}"
    with storage_guard(storage, gone, done):
        parameters = _suggest(trial, data.objective.names)
        budget = _suggest_budget(trial, data, config)
    parts = []
    scale = len(data.objective.prompt_indices) / data.objective.plain.sum()
    for part in data.objective.run(parameters):
        parts.append(part.forwards)
        if config.prune is not None:
            with storage_guard(storage, gone, done), _quiet():
                for prompt_index, share in zip(
                    part.prompt_indices.tolist(), part.forwards.mean(axis=0) * scale, strict=True
                ):
                    trial.report(float(share), int(prompt_index))
                if len(parts) < len(data.objective.held_out) and trial.should_prune():
                    trial.set_user_attr("pruned_after", int(sum(found.shape[1] for found in parts)))
                    break
    values = objective_values(np.concatenate(parts, axis=1), data, config, budget)
    with storage_guard(storage, gone, done), _quiet():
        return claims.tell(trial, values)


def objective_values(
    forwards: np.ndarray, data: StudyData, config: StudyConfig, budget: int | None = None
) -> float | list[float]:
    """The value or values of forwards per budget and prompt ([budgets, M], or the first prompts of them).

    ``forwards``: forward passes per denoising step, mean over the budgets (1 is plain decoding). After pruning it is
    taken over the prompts seen, which the pruner found to be worse than the best trial's, so it is never the best.
    ``rows``: (tokens per forward, rows per forward). ``domains``: the first kind's value for either domain.
    """
    seen = forwards.shape[1]
    plain = data.objective.plain
    if config.kind == "forwards":
        return float(forwards.mean(axis=0).sum() / plain.sum() * (len(plain) / seen))
    if config.kind == "rows":
        assert budget is not None
        row = data.objective.budgets.index(budget)
        return [float(data.tokens.sum() / forwards[row].sum()), float(data.block_length * (1 + budget))]
    assert data.domains is not None
    named = np.array([data.domains[int(prompt_index)] for prompt_index in data.objective.prompt_indices])
    return [float(forwards[:, named == d].mean(axis=0).sum() / plain[named == d].sum()) for d in _two(data)]


def directions(config: StudyConfig) -> list[StudyDirection]:
    """Per objective."""
    least, most = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
    return {"forwards": [least], "rows": [most, least], "domains": [least, least]}[config.kind]


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
    try:
        study = optuna.create_study(storage=opened, study_name=name, directions=directions(config), pruner=pruner)
    except DuplicatedStudyError:
        study = optuna.load_study(storage=opened, study_name=name, pruner=pruner)
        found = _settled_facts(study)
        if found is not None:
            _check_same(found, facts, name, storage)
            return study
    # Facts first: whoever joins waits for them, and may start before all warm starts are queued.
    study.set_user_attr(_FACTS, facts)
    for title, values in WARM_STARTS.items():
        known = {key: value for key, value in values.items() if key in data.objective.names}
        if config.kind == "rows":
            known["budget"] = data.objective.budgets[len(data.objective.budgets) // 2]
        study.enqueue_trial(known, user_attrs={"warm_start": title})
    return study


def _settled_facts(study: optuna.Study) -> dict[str, Any] | None:
    """What the study says it is; None when its maker died before saying so and nothing was done in it."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while _FACTS not in study.user_attrs:
        if time.monotonic() > deadline:
            if study.get_trials(deepcopy=False):
                raise StudyError(
                    f"the study {study.study_name!r} was not made by draftgraph; give another --study-name"
                )
            return None
        time.sleep(0.05)
    found: dict[str, Any] = study.user_attrs[_FACTS]
    return found


def _check_same(found: dict[str, Any], wanted: dict[str, Any], name: str, storage: str | None) -> None:
    where = f"the study {name!r} in {shown(storage)}"
    if found.get("trace_hash") != wanted["trace_hash"]:
        raise StudyError(
            f"{where} was made over other traces: there trace hash {found.get('trace_hash')}, now "
            f"{wanted['trace_hash']}; give the traces it was made with, or another --study-name"
        )
    there, now = ({**facts.get("config", {}), **facts, "config": None} for facts in (found, wanted))
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
    if config.kind != "rows":
        return None
    return trial.suggest_int("budget", data.objective.budgets[0], data.objective.budgets[-1], log=True)


class _quiet(warnings.catch_warnings):
    """Optuna marks the pruner and (before 5.0) two sampler options experimental; we know."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore", ExperimentalWarning)
        return entered
