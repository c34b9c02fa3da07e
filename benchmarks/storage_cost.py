"""What a trial costs in each storage, and what the trial itself costs.

    python benchmarks/storage_cost.py [TRACES] [--trials 60] [--postgres URL] [--out FILE]

The same seeded study runs in memory, in a journal, in SQLite, and with ``--postgres`` in that database too, in turn, in
one process. Without a trace folder it searches toy decodes, so small that a trial is nearly nothing and the storage is
all there is to see. ``own`` is the constructor and the replay alone, measured on the same folds: what is above it is
Optuna's sampler, and what is above ``memory`` is the storage.

Processor seconds tell what an idle machine would need; wall seconds also hold the waiting for the disk (a journal is
flushed after every operation) and whatever else the machine did, which the load says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calibrate.traces.table import Traces, read_traces
from drafting.parametric.parameters import PARAMETERS
from studies.tuning.optuna_study import StudyConfig, run_study
from studies.tuning.study_data import study_data
from tests.support.toy import toy_traces


def per_trial(run: Callable[[], object], trials: int) -> dict[str, float]:
    """Wall and processor milliseconds of ``run``, divided by ``trials``."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {
        "milliseconds": round((time.perf_counter() - wall) / trials * 1000, 2),
        "processor_milliseconds": round((time.process_time() - cpu) / trials * 1000, 2),
    }


def measure(found: Traces, config: StudyConfig, trials: int, postgres: str | None) -> list[dict[str, Any]]:
    """One row per storage."""
    data = study_data(found, config)
    rng = np.random.default_rng(0)
    values = [
        {p.name: float(rng.uniform(p.low, p.high)) for p in PARAMETERS if p.name in data.objective.names}
        for _ in range(trials)
    ]
    rows = [{"storage": "own", **per_trial(lambda: [data.objective.forwards(value) for value in values], trials)}]
    with tempfile.TemporaryDirectory() as folder:
        places = {"memory": None, "journal": f"{folder}/study.journal", "sqlite": f"sqlite:///{folder}/study.db"}
        if config.prune is not None:
            del places["sqlite"]  # a transaction per prompt: nobody should
        elif postgres is not None:
            places["postgresql"] = postgres
        for name, storage in places.items():
            # The making of tables and warm starts is not the cost of a trial.
            run_study(data, config, 1, storage=storage)
            done = trials if storage is None else trials + 1
            cost = per_trial(lambda storage=storage, done=done: run_study(data, config, done, storage=storage), trials)
            rows.append({"storage": name, **cost})
            print(rows[-1], file=sys.stderr, flush=True)
    memory = next(row for row in rows if row["storage"] == "memory")
    for row in rows:
        for name in ("milliseconds", "processor_milliseconds"):
            row[f"{name}_times_memory"] = round(row[name] / memory[name], 2)
    return rows


def main() -> None:
    """Measure and write the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, nargs="?", help="a trace folder; toy decodes without")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--postgres", help="the URL of an empty database")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "storage_cost.json")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    toy = toy_traces(0, prompts=8, blocks=1, length=7, noise=0.3)
    searched = {"toy": (toy, StudyConfig(budgets=(2, 5), folds=2))}
    if options.traces is not None:
        searched[options.traces.name] = (read_traces(options.traces), StudyConfig())
    results = []
    for name, (found, config) in searched.items():
        for prune in (None, 0.1):
            if prune is not None and len(np.unique(found.prompt_index)) < 20:
                continue  # the pruner waits for more prompts than there are
            chosen = StudyConfig(budgets=config.budgets, folds=config.folds, prune=prune)
            results.append(
                {
                    "traces": name,
                    "prompts": len(np.unique(found.prompt_index)),
                    "steps": found.n_steps,
                    "budgets": list(config.budgets),
                    "folds": config.folds,
                    "prune": prune,
                    "trials": options.trials,
                    "rows": measure(found, chosen, options.trials, options.postgres),
                }
            )
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "python": platform.python_version(),
        "optuna": optuna.__version__,
    }
    options.out.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
