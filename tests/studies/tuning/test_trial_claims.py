"""Exactly N finished trials over all workers, whoever dies when."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from studies.tuning.storage import open_storage
from studies.tuning.trial_claims import FINISHED, TrialClaims, is_gone, this_worker
from tests.support import study_toys
from tests.support.paths import ROOT
from tests.support.study_toys import CONFIG, data, values


def start_worker(*arguments: object) -> subprocess.Popen:
    code = "import sys; from tests.support.study_toys import main; main(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(worker: subprocess.Popen) -> dict:
    out, error = worker.communicate(timeout=120)
    assert worker.returncode == 0, error
    return json.loads(out.splitlines()[-1])


def study_in(storage: str) -> optuna.Study:
    return optuna.load_study(study_name="draftgraph", storage=open_storage(storage))


def finished(study: optuna.Study) -> int:
    return sum(trial.state in FINISHED for trial in study.trials)


def test_two_processes_on_one_journal_finish_exactly_n(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    workers = [start_worker(storage, 30, 60, 0.02, 2) for _ in range(2)]
    told = [finish(worker) for worker in workers]
    study = study_in(storage)
    assert finished(study) == 30
    assert sum(found["own"] for found in told) == 30
    assert all(found["own"] > 0 for found in told), told
    assert all(trial.state is not TrialState.RUNNING for trial in study.trials)
    warm = [trial.user_attrs["warm_start"] for trial in study.trials if "warm_start" in trial.user_attrs]
    assert len(warm) == len(set(warm)) == 5


def test_a_killed_worker_loses_nothing_and_the_resumed_study_is_the_uninterrupted_one(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    worker = start_worker(storage, 100, 60, 0.05)
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.strip() == "finished 8":
            break
    worker.kill()
    worker.communicate()
    before = study_in(storage)
    kept = values(before)
    assert 8 <= len(kept) < 100
    resumed = finish(start_worker(storage, len(kept) + 6))
    assert resumed == {"own": 6, "finished": len(kept) + 6}
    after = values(study_in(storage))
    assert after[: len(kept)] == kept
    whole = study_toys.run_study(data(), CONFIG, len(kept) + 6)
    assert after == values(whole.study)


def claims(trials: int = 4, patience: float = 60.0) -> TrialClaims:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return TrialClaims(study, trials, patience)


def run(claimed: TrialClaims) -> bool:
    trial = claimed.claim()
    if trial is None:
        return False
    claimed.tell(trial, trial.suggest_float("x", 0, 1))
    return True


def test_nobody_runs_a_trial_too_many() -> None:
    claimed = claims(3)
    others = [claimed.study.ask() for _ in range(2)]
    ours = claimed.claim()
    assert ours is not None
    # Two workers that ask at once both pass the count before asking; the position of the trial decides.
    late = claimed.study.ask()
    assert not claimed._is_ours(late)
    claimed.study.tell(late, state=TrialState.FAIL)
    for trial in (*others, ours):
        claimed.tell(trial, 0.0)
    assert claimed.claim() is None
    assert finished(claimed.study) == 3


def test_a_process_that_is_gone_is_replaced_at_once() -> None:
    claimed = claims(2, patience=1000)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    trial = claimed.study.ask()
    trial.set_user_attr("worker", {**this_worker(), "process": dead.pid, "started": "1"})
    while run(claimed):
        pass
    assert [trial.state for trial in claimed.study.trials] == [TrialState.FAIL, *[TrialState.COMPLETE] * 2]


def test_a_worker_elsewhere_is_given_patience() -> None:
    claimed = claims(2, patience=0.5)
    trial = claimed.study.ask()
    trial.set_user_attr("worker", {"machine": "another", "process": 1, "started": "1"})
    start = time.monotonic()
    while run(claimed):
        pass
    assert time.monotonic() - start >= 0.5
    assert finished(claimed.study) == 2
    # It lived after all: its result comes too late and does not count.
    assert not claimed.tell(trial, 0.0)
    assert finished(claimed.study) == 2


def test_a_sign_of_life_starts_the_patience_anew() -> None:
    claimed = claims(1, patience=1000)
    trial = claimed.study.ask()
    assert claimed._bury(claimed.trials()) == 0
    first = claimed._seen[0]
    trial.report(0.5, 3)
    assert claimed._bury(claimed.trials()) == 0
    assert claimed._seen[0] != first


def test_a_lost_warm_start_is_queued_again() -> None:
    claimed = claims(3, patience=1000)
    claimed.study.enqueue_trial({"x": 0.25}, user_attrs={"warm_start": "mine"})
    lost = claimed.claim()
    assert lost is not None
    claimed.give_back(lost)
    while run(claimed):
        pass
    complete = [trial for trial in claimed.study.trials if trial.state is TrialState.COMPLETE]
    assert len(complete) == 3
    assert [trial.params["x"] for trial in complete if trial.user_attrs.get("warm_start") == "mine"] == [0.25]


def test_more_warm_starts_than_trials() -> None:
    claimed = claims(2)
    for n in range(4):
        claimed.study.enqueue_trial({"x": n / 4})
    while run(claimed):
        pass
    assert finished(claimed.study) == 2


@pytest.mark.parametrize("worker", [None, {}, {"machine": "another", "process": 1}])
def test_a_process_of_another_machine_is_never_called_gone(worker: object) -> None:
    assert not is_gone(worker)
    assert not is_gone(this_worker())
