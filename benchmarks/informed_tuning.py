"""What tuning informed drafts with Optuna wins, and whether a calibrated graph still helps: on held-out prompts.

    python benchmarks/informed_tuning.py [--search-prompts 32] [--prompts 48] [--trials 60] [--out FILE]

The bundled model, float32. The search prompts are decoded once with each of three drafters (the default settings at D
and at 2 D, and a mixture with a graph at 2 D), which makes one state log; trials replay it without a model. The best
settings, the default ones and the mixture then really decode the test prompts, which no trial has seen; every token is
compared with plain decoding. Ratios are of forwards, paired over prompts, with 95 % intervals. The graph is greedy's,
of 20 nodes, calibrated on the search prompts.

With ``--logit-temperature`` the same is asked of the model as it was trained (1: it is sure of nearly everything), or
in more doubt than it is bundled with (4.5).

The file is written after every cell, and a rerun with the same numbers goes on where it stopped. The exit code is 1
when any token differs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import optuna
import torch

from benchmarks.cells import BUNDLED_TEMPERATURE, bundled_model, read_cells, stamp
from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint
from calibrate.prompts.encoding import encode_for
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.recording.states import record_states
from calibrate.traces.state_log import read_states
from drafting.anchors import AnchorTable
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from studies.statistics.intervals import PromptBootstrap
from studies.tuning.informed_study import TuningConfig, changes, suggest, tuning_question
from studies.tuning.shared_study import work_on
from verify.decoding import DecodeConfig, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.policies.specification import make_policy

#: (policy, cache mode, block length, drafts)
CELLS = (
    ("static:1", "dual", 32, 10),
    ("threshold:0.9", "block_causal", 16, 10),
    ("static:1", "block_causal", 8, 10),
    ("static:1", "block_causal", 4, 5),
)
GENERATION, MIXED = 96, 20
MIXTURE = InformedSettings(fill="alternatives+graph", follow=8)


def tune(checkpoint: Checkpoint, cell: tuple[str, str, int, int], options: argparse.Namespace) -> dict[str, Any]:
    """One cell: the log, the trials, and the decodes of the test prompts."""
    spec, cache, length, drafts = cell
    policy = make_policy(spec)
    config = DecodeConfig(length, GENERATION, cache, end_token_ids=checkpoint.end_token_ids, top_j=8)
    search = encode_for(checkpoint, load_prompt_set("bundled", "calibration", options.search_prompts))
    test = encode_for(checkpoint, load_prompt_set("bundled", "test", options.prompts))
    with tempfile.TemporaryDirectory() as scratch:
        traces = record(checkpoint, search, policy, config, Path(scratch) / "plain", batch_size=options.batch_size)
        formulas = greedy(PrefixTrie.from_anchors(AnchorTable.from_traces(traces, max_depth=None)), MIXED).nodes
        folders = []
        for name, drafter in (
            ("default", InformedDrafter(drafts)),
            ("wide", InformedDrafter(2 * drafts)),
            ("mixture", InformedDrafter(2 * drafts, MIXTURE, formulas)),
        ):
            folders.append(Path(scratch) / name)
            record_states(checkpoint, search, policy, config, folders[-1], drafter, batch_size=options.batch_size)
        log = read_states(folders)
    tuning = TuningConfig(drafts, formulas)
    done = work_on(tuning_question(log, tuning), options.trials)
    best = done.study.best_trial
    settings = {
        "default": InformedSettings(),
        "mixture": MIXTURE,
        "tuned": suggest(optuna.trial.FixedTrial(best.params), log, tuning),  # type: ignore[arg-type]
    }
    plain = decoded(checkpoint, test, spec, config, (), options.batch_size)
    found = {
        name: decoded(checkpoint, test, spec, config, tuning.drafter(one), options.batch_size)
        for name, one in settings.items()
    }
    forwards = {name: np.array([own[k].forwards for k in sorted(own)], dtype=float) for name, own in found.items()}
    steps = np.array([plain[k].steps for k in sorted(plain)], dtype=float)
    bootstrap = PromptBootstrap(len(test))
    rows = []
    for name, own in found.items():
        ratio = bootstrap.ratio_quotient((steps, forwards[name]), (steps, forwards["default"]))
        rows.append(
            {
                "settings": name,
                "changed": changes(settings[name]),
                "tokens_identical": sum(own[k].tokens == plain[k].tokens for k in own),
                "nfe_reduction": round(float(steps.sum() / forwards[name].sum()), 3),
                "over_default": [round(value, 3) for value in (ratio.estimate, ratio.low, ratio.high)],
                "query_tokens": round(sum(r.query_tokens for r in own.values()) / forwards[name].sum(), 1),
            }
        )
    return {
        "policy": spec,
        "cache": cache,
        "block_length": length,
        "drafts": drafts,
        "prompts": len(test),
        "states_logged": log.states,
        "best_trial": best.number,
        "trials": [
            {"number": t.number, "value": t.value, "missed": round(t.user_attrs["missed"], 4), "params": t.params}
            for t in done.study.trials
        ],
        "default_settings": asdict(InformedSettings()),
        "rows": rows,
    }


def decoded(
    checkpoint: Checkpoint, prompts: Any, spec: str, config: DecodeConfig, drafts: Any, batch: int
) -> dict[int, Any]:
    """The decodes of all prompts, by prompt_index."""
    everyone = list(enumerate(prompts))
    return dict(decode_batch(checkpoint.denoiser, everyone, make_policy(spec), config, drafts, batch_size=batch))


def main() -> int:
    """Tune every cell, write the file, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--search-prompts", type=int, default=32, help="prompts that trials see")
    parser.add_argument("--prompts", type=int, default=48, help="held-out prompts")
    parser.add_argument("--trials", type=int, default=60, help="trials of a cell")
    parser.add_argument("--batch-size", type=int, default=8, help="prompts at a time")
    parser.add_argument(
        "--logit-temperature", type=float, default=BUNDLED_TEMPERATURE,
        help="what the logits are divided by; 1: the model as it was trained, above 2.25: in more doubt",
    )  # fmt: skip
    parser.add_argument("--cells", type=int, nargs="*", help="numbers of the cells to run, from 0; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "informed_tuning.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    checkpoint = bundled_model(options.logit_temperature)
    head = stamp(
        "informed drafts tuned on state logs of the search prompts, decoded on held-out prompts",
        checkpoint.revision,
        logit_temperature=options.logit_temperature,
        search_prompts=options.search_prompts,
        prompts=options.prompts,
        trials=options.trials,
        generation_length=GENERATION,
        optuna=optuna.__version__,
    )
    found = read_cells(options.out, head)
    names = ("policy", "cache", "block_length", "drafts")
    for number in options.cells if options.cells else range(len(CELLS)):
        if not any(tuple(cell[name] for name in names) == CELLS[number] for cell in found):
            found.append(tune(checkpoint, CELLS[number], options))
            print(CELLS[number], json.dumps(found[-1]["rows"]), flush=True)
            write_json(options.out, {**head, "cells": found})
    same = all(row["tokens_identical"] == cell["prompts"] for cell in found for row in cell["rows"])
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
