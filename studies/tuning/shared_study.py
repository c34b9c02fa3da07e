"""Studies that any number of workers share: made or joined, compared with what they are of, sampled by position.

A study notes in its storage what its trials depend on; who joins it with anything else is refused, so that no study
mixes two questions. A trial's sampler is made anew from the trial's position among the live trials. So a study of one
process is the same every time, bit for bit, and one that was killed and resumed is the same as one that was not.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.study import MaxTrialsCallback, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from studies.tuning.storage import GRACE_SECONDS, open_storage, shown, storage_guard

_FACTS = "draftgraph"
_SETTLE_SECONDS = 10.0  # for the maker of a study to write down what it is a study of


class StudyError(ValueError):
    """A study that cannot be made, or is not the one asked for."""


@dataclass(frozen=True, eq=False)
class Question:
    """What a study asks.

    Attributes:
        facts: what the trials depend on, as plain JSON values with a ``trace_hash``; compared on every resume.
        objective: one trial from its parameters to its value or values.
        directions: per value.
        sampler: of the trial at a position among the live trials.
        warm_starts: known parameters that are tried first, by name.
        pruner: none when left out.
    """

    facts: Mapping[str, Any]
    objective: Callable[[Trial], float | Sequence[float]]
    directions: Sequence[StudyDirection]
    sampler: Callable[[int], optuna.samplers.BaseSampler]
    warm_starts: Mapping[str, Mapping[str, Any]]
    pruner: optuna.pruners.BasePruner = field(default_factory=optuna.pruners.NopPruner)


@dataclass(frozen=True, eq=False)
class WorkerResult:
    """What one worker did: the study as it stands, the trials it finished itself, and all finished ones."""

    study: optuna.Study
    own: int
    finished: int


def work_on(
    question: Question,
    trials: int,
    *,
    storage: str | None = None,
    name: str = "draftgraph",
    on_trial: Callable[[int], None] | None = None,
) -> WorkerResult:
    """Make or join a study and work on it until ``trials`` are finished over all workers.

    Every worker ends the trial it is in, so several may finish up to one trial each, less one, beyond ``trials``.

    Args:
        question: what is asked.
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
    with storage_guard(storage, "cannot be used"), quiet():
        study = _make_or_join(opened, name, question, storage)
        own, done = 0, finished_trials(study)

    def prepare_next(study: optuna.Study, _: FrozenTrial | None = None) -> None:
        study.sampler = question.sampler(_live_trials(study))

    def count(study: optuna.Study, _: FrozenTrial) -> None:
        nonlocal own, done
        own, done = own + 1, finished_trials(study)
        if on_trial is not None:
            on_trial(done)

    if done < trials:
        # The guard asks for ``done`` only when the storage is gone.
        with storage_guard(storage, f"went away while the study {name!r} ran", lambda: done), quiet():
            prepare_next(study)
            study.optimize(question.objective, callbacks=[MaxTrialsCallback(trials), prepare_next, count])
    return WorkerResult(study, own, done)


def seeded_sampler(seed: int, position: int, *, multivariate: bool) -> optuna.samplers.BaseSampler:
    """The sampler of the trial at ``position`` of a study with ``seed``."""
    own = int(np.random.SeedSequence([seed, position]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=own, multivariate=multivariate, constant_liar=True)


def finished_trials(study: optuna.Study) -> int:
    """Trials finished by any worker."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _live_trials(study: optuna.Study) -> int:
    """Trials that did not fail: the position that the next new trial takes among them."""
    return sum(trial.state is not TrialState.FAIL for trial in study.get_trials(deepcopy=False))


def _make_or_join(
    opened: optuna.storages.BaseStorage, name: str, question: Question, storage: str | None
) -> optuna.Study:
    found = None
    try:
        study = optuna.create_study(
            storage=opened, study_name=name, directions=question.directions, pruner=question.pruner
        )
        joined = False
    except DuplicatedStudyError:
        study = optuna.load_study(storage=opened, study_name=name, pruner=question.pruner)
        joined = True
    if joined:
        found = _settled_facts(study)
    if found is not None:
        _check_same(found, dict(question.facts), name, storage)
    optuna.storages.fail_stale_trials(study)
    _queue_warm_starts(study, question.warm_starts)
    if found is None:
        study.set_user_attr(_FACTS, dict(question.facts))  # last: whoever joins waits for them, and finds all queued
    return study


def _queue_warm_starts(study: optuna.Study, warm_starts: Mapping[str, Mapping[str, Any]]) -> None:
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
    for title, values in warm_starts.items():
        if title not in there:
            study.enqueue_trial(dict(values), user_attrs={"warm_start": title})


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


class quiet(warnings.catch_warnings):
    """Without the warnings that the pruner, heartbeats and retries are experimental in Optuna."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore", ExperimentalWarning)
        return entered
