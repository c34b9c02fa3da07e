"""Several workers and workers that die: no finished trial is lost, no warm start, and few trials are run too many."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from drafting.parametric.parameters import WARM_STARTS
from studies.tuning import shared_study, storage
from studies.tuning.optuna_study import run_study
from studies.tuning.shared_study import finished_trials
from studies.tuning.storage import open_storage
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


def kill_after(worker: subprocess.Popen, line: str) -> None:
    assert worker.stdout is not None
    for said in worker.stdout:
        if said.strip() == line:
            break
    worker.kill()
    worker.communicate()


def study_in(where: str) -> optuna.Study:
    return optuna.load_study(study_name="draftgraph", storage=open_storage(where))


def finished_warm_starts(study: optuna.Study) -> list[str]:
    titles = [trial.user_attrs.get("warm_start") for trial in study.trials if trial.state is TrialState.COMPLETE]
    return [title for title in titles if title is not None]


def test_two_processes_on_one_journal_share_a_study(tmp_path: Path) -> None:
    where = str(tmp_path / "study.journal")
    workers = [start_worker(where, 30, 0.02, 2) for _ in range(2)]
    found = [finish(worker) for worker in workers]
    study = study_in(where)
    assert finished_trials(study) in (30, 31)  # each worker ends the trial it is in
    assert sum(one["own"] for one in found) == finished_trials(study)
    assert all(one["own"] > 0 for one in found), found
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    assert sorted(finished_warm_starts(study)) == sorted(WARM_STARTS)


def test_a_study_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    where = str(tmp_path / "study.journal")

    def stop(finished: int) -> None:
        if finished == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(data(), CONFIG, 100, storage=where, on_trial=stop)
    resumed = run_study(data(), CONFIG, 14, storage=where)
    assert (resumed.own, resumed.finished) == (6, 14)
    assert values(resumed.study) == values(run_study(data(), CONFIG, 14).study)


def test_a_killed_worker_loses_no_finished_trial(tmp_path: Path) -> None:
    where = str(tmp_path / "study.journal")
    kill_after(start_worker(where, 100, 0.05), "finished 8")
    kept = values(study_in(where))
    assert 8 <= len(kept) < 100
    assert finish(start_worker(where, len(kept) + 6)) == {"own": 6, "finished": len(kept) + 6}
    assert values(study_in(where))[: len(kept)] == kept


def test_a_database_hears_that_a_worker_is_dead_and_its_trial_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"sqlite:///{tmp_path / 'study.db'}"
    run_study(data(), CONFIG, 7, storage=where)
    study = study_in(where)
    dead = study.ask()
    drawn = dead.suggest_float("smoothing", 0.0, 1.0)
    study._storage.record_heartbeat(dead._trial_id)  # as its worker did before it was killed
    monkeypatch.setattr(storage, "GRACE_SECONDS", 1)
    time.sleep(2.2)  # the clock of a database counts whole seconds
    resumed = run_study(data(), CONFIG, 9, storage=where).study
    assert resumed.trials[dead.number].state is TrialState.FAIL
    again = [trial for trial in resumed.trials if trial.system_attrs.get("failed_trial") == dead.number]
    assert [(trial.state, trial.params["smoothing"]) for trial in again] == [(TrialState.COMPLETE, drawn)]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_warm_start_that_a_dead_worker_held_is_run_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    where = str(tmp_path / "study.journal") if kind == "journal" else f"sqlite:///{tmp_path / 'study.db'}"
    run_study(data(), CONFIG, 1, storage=where)
    study_in(where).ask()  # the second warm start; its worker is killed before it says anything
    young = run_study(data(), CONFIG, 5, storage=where).study
    assert len(set(finished_warm_starts(young))) == 4  # it may yet be alive
    monkeypatch.setattr(shared_study, "GRACE_SECONDS", 0)
    resumed = run_study(data(), CONFIG, 8, storage=where).study
    assert sorted(finished_warm_starts(resumed)) == sorted(WARM_STARTS)


def test_an_interrupted_warm_start_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = str(tmp_path / "study.journal")
    found = data()
    objective = found.objective.run

    def interrupted(parameters: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(found.objective, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(found, CONFIG, 10, storage=where)
    monkeypatch.setattr(found.objective, "run", objective)
    resumed = run_study(found, CONFIG, 10, storage=where).study
    assert resumed.trials[0].state is TrialState.FAIL
    assert sorted(finished_warm_starts(resumed)) == sorted(WARM_STARTS)
