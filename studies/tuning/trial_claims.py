"""How any number of workers finish exactly N trials of one study.

Optuna numbers the trials of a study without gaps, atomically, in every storage. Call a trial *live* unless it FAILED.
**A worker runs a trial only if fewer than N live trials have a lower number.** Then at most N are ever finished: take
the finished trial with the highest number; when it was claimed fewer than N live ones stood below it, and from then on
these only become fewer, as no trial is ever inserted below and none comes back from FAILED. And at least N are
finished, because a worker stops only when it counts N.

A trial of a worker that died would stay RUNNING for ever. It is declared dead, and FAILED, when

* it names a process of this machine that is no longer there, or
* a worker that has nothing else to do has watched it for ``patience`` seconds by its own clock without any change.

A warm start among them is put back into the queue first. Should the worker live after all, its result is refused by the
storage, because FAILED is final; the worker drops it and goes on.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from studies.tuning.storage import states_of

PATIENCE = 60.0
_POLL = 0.1
_WORKER = "worker"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def this_worker() -> dict[str, Any]:
    """Who we are: machine (with its boot and process namespace, where it has them), process, and its start."""
    return {"machine": _machine(), "process": os.getpid(), "started": _start_of(os.getpid())}


def is_gone(worker: Any) -> bool:
    """Whether ``worker`` (see :func:`this_worker`) ran on this machine and does not any more."""
    if not isinstance(worker, dict) or worker.get("machine") != _machine():
        return False
    process = int(worker["process"])
    if worker.get("started") is not None:
        return _start_of(process) != worker["started"]
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _machine() -> str:
    parts = [platform.node()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass
    return "/".join(parts)


def _start_of(process: int) -> str | None:
    """Start time of a process in clock ticks since boot; None where there is no /proc, or no such process."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


@dataclass
class TrialClaims:
    """Claims trials of ``study`` until ``wanted`` are finished over all workers.

    Attributes:
        study: an Optuna study; its sampler and pruner are the caller's business.
        wanted: N.
        patience: seconds after which a trial that does not move counts as dead.
    """

    study: optuna.Study
    wanted: int
    patience: float = PATIENCE
    _seen: dict[int, tuple[int, float]] = field(default_factory=dict)

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def finished(self) -> int:
        """Trials finished by anyone."""
        return states_of(self.trials(), *FINISHED)

    def position(self) -> int:
        """Live trials so far: the position that the next new trial takes among them."""
        found = self.trials()
        return len(found) - states_of(found, TrialState.FAIL)

    def claim(self) -> Trial | None:
        """The next trial to run, or None when ``wanted`` are finished. Waits while others run the last ones."""
        while True:
            found = self.trials()
            if states_of(found, *FINISHED) >= self.wanted:
                return None
            live = len(found) - states_of(found, TrialState.FAIL)
            if live >= self.wanted and not states_of(found, TrialState.WAITING):
                if not self._bury(found):
                    time.sleep(_POLL)
                continue
            trial = self.study.ask()
            if self._is_ours(trial):
                trial.set_user_attr(_WORKER, this_worker())
                return trial
            self.study.tell(trial, state=TrialState.FAIL)

    def recover(self) -> int:
        """FAIL the trials of processes of this machine that are gone; returns how many."""
        return self._bury([trial for trial in self.trials() if is_gone(trial.user_attrs.get(_WORKER))])

    def tell(self, trial: Trial, values: float | list[float]) -> bool:
        """Store a result. False when the trial was declared dead meanwhile, so that the result does not count."""
        try:
            self.study.tell(trial, values)
        except (UpdateFinishedTrialError, ValueError):
            if self.trials()[trial.number].state is TrialState.FAIL:
                return False
            raise
        return True

    def give_back(self, trial: Trial) -> None:
        """FAIL a trial that was claimed and will not be run to its end."""
        cached = self.trials()[trial.number]
        if cached.state is TrialState.RUNNING:
            self._fail(cached)

    def _is_ours(self, trial: Trial) -> bool:
        below = sum(other.number < trial.number and other.state is not TrialState.FAIL for other in self.trials())
        return below < self.wanted

    def _bury(self, found: list[FrozenTrial]) -> int:
        now = time.monotonic()
        buried = 0
        for trial in found:
            if trial.state is not TrialState.RUNNING:
                continue
            signs, since = self._seen.get(trial.number, (-1, now))
            if signs != len(trial.intermediate_values):
                self._seen[trial.number] = (len(trial.intermediate_values), now)
                since = now
            if is_gone(trial.user_attrs.get(_WORKER)) or now - since >= self.patience:
                self._fail(trial)
                buried += 1
        return buried

    def _fail(self, trial: FrozenTrial) -> None:
        fixed = trial.system_attrs.get("fixed_params")
        if fixed:
            # First the new one, then the end of the old one: a worker between the two must find no free place.
            attributes = {name: value for name, value in trial.user_attrs.items() if name != _WORKER}
            self.study.enqueue_trial(fixed, user_attrs=attributes)
        with suppress(UpdateFinishedTrialError, ValueError):  # another worker was quicker, or the trial ended after all
            self.study.tell(trial.number, state=TrialState.FAIL)
