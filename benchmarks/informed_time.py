"""Do informed drafts pay on a CPU core? Plain decoding, the best graph and informed drafts, each at its best budget.

    python benchmarks/informed_time.py [--prompts 12] [--rounds 5] [--out FILE]

The bundled model, float32, batch 1, processor seconds of one thread (other load on the machine inflates wall-clock
seconds). Exact graphs are calibrated on prompts of the calibration split. On prompts of the validation split every
budget of graphs and of informed drafts is timed, and the fastest budget of each is taken. Held-out prompts then say
what it is worth: every round decodes every prompt with plain decoding, the graph and the informed drafts, one after the
other and in turn forwards and backwards, so that drift hits all alike. A prompt's time is its median over the rounds;
how many times as fast one is as another is a ratio of sums over prompts, paired, with a 95 % interval from resampling
prompts.

The file is written after every cell, and a rerun with the same options goes on where it stopped. The exit code is 1
when any token differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks.cells import read_cells, stamp
from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from drafting.anchors import AnchorTable
from drafting.searches.methods import SearchInput, find_graphs
from drafting.trie import PrefixTrie
from studies.statistics.intervals import PromptBootstrap
from verify.decoding import DecodeConfig, DecodeResult, decode, make_engine
from verify.drafters.contract import Drafter, most_bridges
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import InformedDrafter
from verify.layout import SequenceLayout
from verify.policies.specification import make_policy

#: (policy, cache mode, block length)
CELLS = (
    ("static:1", "dual", 32),
    ("threshold:0.9", "dual", 32),
    ("static:1", "block_causal", 16),
    ("static:1", "block_causal", 8),
)
BUDGETS = (1, 2, 3, 4, 5, 6, 8, 10)
GENERATION, TOP_J = 96, 8

Prompts = Sequence[tuple[int, ...]]


class Timer:
    """Times decodes of one (policy, cache mode, block length).

    Args:
        checkpoint: the model.
        spec: the policy.
        config: lengths and cache mode.
        clock: seconds.
    """

    def __init__(self, checkpoint: Checkpoint, spec: str, config: DecodeConfig, clock: Any = time.process_time) -> None:
        self.denoiser, self.policy, self.config, self.clock = checkpoint.denoiser, make_policy(spec), config, clock

    def run(
        self, drafters: dict[str, Drafter], prompts: Prompts, rounds: int
    ) -> tuple[dict[str, np.ndarray], dict[str, list[DecodeResult]]]:
        """Seconds float64 [rounds, prompts] and results of every drafter; a decode of each warms it up first."""
        config = self.config
        layouts = [
            SequenceLayout.make(len(ids), config.generation_length, config.block_length, config.cache)
            for ids in prompts
        ]
        # Buffers are made once per drafter and for its drafts alone, as a server would.
        engines = {
            name: make_engine(
                self.denoiser, config, layouts, 1, drafter.max_drafts, most_bridges(drafter, config.cache)
            )
            for name, drafter in drafters.items()
        }

        def one(name: str, number: int) -> DecodeResult:
            return decode(
                self.denoiser, prompts[number], self.policy, config, drafters[name], prompt_index=number,
                engine=engines[name],
            )  # fmt: skip

        for name in drafters:
            one(name, 0)
        results: dict[str, list[DecodeResult]] = {name: [] for name in drafters}
        seconds = {name: np.zeros((rounds, len(prompts))) for name in drafters}
        for turn in range(rounds):
            for number in range(len(prompts)):
                for name in list(drafters) if (turn + number) % 2 else reversed(drafters):
                    begin = self.clock()
                    result = one(name, number)
                    seconds[name][turn, number] = self.clock() - begin
                    if turn == 0:
                        results[name].append(result)
        return seconds, results


def measure(checkpoint: Checkpoint, cell: tuple[str, str, int], options: argparse.Namespace) -> dict[str, Any]:
    """One cell: choose the budgets on some prompts, time the three on others."""
    spec, cache, length = cell
    policy = make_policy(spec)
    config = DecodeConfig(length, GENERATION, cache, end_token_ids=checkpoint.end_token_ids, top_j=TOP_J)
    searched = encoded(checkpoint, "calibration", options.search_prompts)
    with tempfile.TemporaryDirectory() as scratch:
        traces = record(checkpoint, searched, policy, config, Path(scratch) / "traces", batch_size=8)
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, max_depth=None))
    graphs = find_graphs("exact", SearchInput(trie, length, policy.step_size), BUDGETS)
    drafters: dict[str, dict[int, Drafter]] = {
        "graph": {budget: GraphDrafter(graphs[budget].nodes) for budget in BUDGETS},
        "informed": {budget: InformedDrafter(budget) for budget in BUDGETS},
    }
    timer = Timer(checkpoint, spec, config)
    every = {f"{kind} {budget}": one for kind, found in drafters.items() for budget, one in found.items()}
    choosing = encoded(checkpoint, "validation", options.choice_prompts)
    tried, _ = timer.run({"plain": GraphDrafter(), **every}, choosing, options.choice_rounds)
    totals = {name: float(np.median(values, axis=0).sum()) for name, values in tried.items()}
    best = {kind: min(found, key=lambda d, kind=kind: totals[f"{kind} {d}"]) for kind, found in drafters.items()}
    chosen = {"plain": GraphDrafter(), **{kind: drafters[kind][budget] for kind, budget in best.items()}}
    test = encoded(checkpoint, "test", options.prompts)
    seconds, results = timer.run(chosen, test, options.rounds)
    row = {
        "policy": spec,
        "cache": cache,
        "block_length": length,
        "prompts": len(test),
        "rounds": options.rounds,
        "graph_proved": graphs[best["graph"]].proved,
        "budgets": best,
        "choice_speedup": {name: round(totals["plain"] / value, 3) for name, value in totals.items()},
        "tokens_identical": all(
            one.tokens == plain.tokens
            for found in results.values()
            for one, plain in zip(found, results["plain"], strict=True)
        ),
        **compared(seconds, results),
    }
    print(spec, cache, length, best, row["speedup"], row["informed_over_graph"], flush=True)
    return row


def compared(seconds: dict[str, np.ndarray], results: dict[str, list[DecodeResult]]) -> dict[str, Any]:
    """Times, forwards and speed-ups of plain decoding, the graph and informed drafts.

    Args:
        seconds: float64 [rounds, prompts] of each.
        results: of the same prompts.
    """
    times = {name: np.median(values, axis=0) for name, values in seconds.items()}
    bootstrap = PromptBootstrap(len(times["plain"]))

    def faster(slow: str, fast: str) -> list[float]:
        found = bootstrap.ratio(times[slow], times[fast])
        return [round(value, 3) for value in (found.estimate, found.low, found.high)]

    return {
        "seconds": {name: round(float(values.sum()), 4) for name, values in times.items()},
        "seconds_of_rounds": {name: np.round(values.sum(axis=1), 4).tolist() for name, values in seconds.items()},
        "forwards": {name: sum(one.forwards for one in found) for name, found in results.items()},
        "tokens_per_second": {
            name: round(sum(one.end for one in results[name]) / float(values.sum()), 2)
            for name, values in times.items()
        },
        "speedup": {name: faster("plain", name) for name in times if name != "plain"},
        "informed_over_graph": faster("graph", "informed"),
    }


def encoded(checkpoint: Checkpoint, split: str, count: int) -> list[tuple[int, ...]]:
    """Token ids of the first prompts of a split."""
    texts = load_prompt_set("bundled", split, count)
    return encode_prompts(texts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)


def main(arguments: list[str] | None = None) -> int:
    """Measure every cell, write the file, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=12, help="held-out prompts")
    parser.add_argument("--rounds", type=int, default=5, help="times that each of them is decoded")
    parser.add_argument("--search-prompts", type=int, default=48, help="prompts that graphs are calibrated on")
    parser.add_argument("--choice-prompts", type=int, default=6, help="prompts that budgets are chosen on")
    parser.add_argument("--choice-rounds", type=int, default=3, help="times that each of those is decoded")
    parser.add_argument("--cells", type=int, nargs="*", help="numbers of the cells to run, from 0; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "informed_time.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("bundled")
    head = stamp(
        "plain decoding, exact graphs and informed drafts, each at its fastest budget; held-out prompts",
        checkpoint.revision,
        f"{os.cpu_count()} cores, shared",
        unit="processor seconds of one thread: the median per prompt over rounds, summed over prompts",
        generation_length=GENERATION,
        options={key: value for key, value in vars(options).items() if key not in ("cells", "out")},
    )
    found = read_cells(options.out, head)
    for number in options.cells if options.cells is not None else range(len(CELLS)):
        if any((c["policy"], c["cache"], c["block_length"]) == CELLS[number] for c in found):
            continue
        load = os.getloadavg()[0]
        row = measure(checkpoint, CELLS[number], options)
        found.append({**row, "load": [round(load, 1), round(os.getloadavg()[0], 1)]})
        write_json(options.out, {**head, "cells": found})
    return 0 if all(cell["tokens_identical"] for cell in found) else 1


if __name__ == "__main__":
    sys.exit(main())
