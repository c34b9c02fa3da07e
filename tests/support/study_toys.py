"""Small studies over toy decodes, for tests in this process and in others."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import optuna

from calibrate.traces.table import MANIFEST_NAME, TRACE_FORMAT_VERSION, Traces, traces_to_table, write_shard
from studies.tuning.optuna_study import StudyConfig, StudyData, run_study
from studies.tuning.study_data import study_data
from tests.support.toy import toy_traces

CONFIG = StudyConfig(budgets=(2, 5), folds=2)


def traces(seed: int = 0, prompts: int = 8) -> Traces:
    return toy_traces(seed, prompts=prompts, blocks=1, length=7, noise=0.3)


def data(seed: int = 0, config: StudyConfig = CONFIG, prompts: int = 8, domains: bool = False) -> StudyData:
    named = (
        {prompt_index: "even" if prompt_index % 2 == 0 else "odd" for prompt_index in range(prompts)}
        if domains
        else None
    )
    return study_data(traces(seed, prompts), config, domains=named)


def values(study: optuna.Study) -> list[Any]:
    """Number-free history: parameters and values of the trials that count, in order."""
    counted = [trial for trial in study.trials if trial.state is optuna.trial.TrialState.COMPLETE]
    return [(trial.params, trial.values) for trial in counted]


def write_folder(found: Traces, folder: Path, **facts: Any) -> Path:
    """A trace folder as ``draftgraph record`` writes it."""
    folder.mkdir(parents=True)
    write_shard(folder / "shard-00000.parquet", traces_to_table(found))
    run = {
        "model": "toy",
        "model_revision": None,
        "dtype": "float32",
        "cache": "dual",
        "temperature": 0.0,
        "generation_length": 14,
        **found.metadata,
        "prompts": len(set(found.prompt_index.tolist())),
        "prompt_set_hash": "0" * 64,
        **facts,
    }
    (folder / MANIFEST_NAME).write_text(json.dumps({"version": TRACE_FORMAT_VERSION, "run": run}))
    return folder


def main(storage: str, trials: str, nap: str = "0", meet: str = "1") -> None:
    """A worker in a process of its own; prints how many trials are finished after each, and in the end its share.

    It begins when ``meet`` workers have come to the folder of the journal.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = data()
    if int(meet) > 1:
        folder = Path(storage).parent
        (folder / f"here-{os.getpid()}").touch()
        while len(list(folder.glob("here-*"))) < int(meet):
            time.sleep(0.01)

    def report(finished: int) -> None:
        print(f"finished {finished}", flush=True)
        time.sleep(float(nap))

    done = run_study(found, CONFIG, int(trials), storage=storage, on_trial=report)
    print(json.dumps({"own": done.own, "finished": done.finished}), flush=True)
