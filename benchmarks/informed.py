"""Informed drafts against calibrated graphs of the same number of drafts: forwards, query tokens and processor time.

    python benchmarks/informed.py [--prompts 48] [--out FILE]

The bundled model, float32, held-out prompts. Graphs are those of the exact search (proved optimal where it says so) and
of the published rule, calibrated on prompts of the calibration split under the same policy, blocks and cache mode;
their forwards are replayed, which is exact. Informed drafts need no calibration, and are really decoded; every token is
compared with plain decoding. The ratio of informed drafts to the exact graph is paired over prompts, with a 95 %
interval from resampling prompts. A bridge counts as one draft and costs two blocks of query tokens, so the mean query
tokens of a forward stand beside: they are what a draft costs.

The file is written after every cell, and a rerun with the same numbers of prompts goes on where it stopped. The exit
code is 1 when any token differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.replay import ReplayResult, replay
from drafting.searches.methods import SearchInput, find_graphs
from drafting.trie import PrefixTrie
from studies.statistics.intervals import PromptBootstrap
from verify.decoding import DecodeConfig, DecodeResult, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.policies.specification import make_policy

#: (policy, cache mode, block length, budgets)
CELLS = (
    ("static:1", "dual", 32, (5, 10, 16)),
    ("threshold:0.9", "dual", 32, (5, 10)),
    ("static:1", "block_causal", 32, (5, 10, 16)),
    ("static:1", "block_causal", 16, (5, 10, 16)),
    ("static:1", "block_causal", 8, (5, 10)),
    ("static:1", "block_causal", 4, (5,)),
    ("threshold:0.9", "block_causal", 16, (5, 10)),
)
GENERATION, TOP_J = 96, 8


def measure(
    checkpoint: Checkpoint, cell: tuple[str, str, int, tuple[int, ...]], options: argparse.Namespace
) -> dict[str, Any]:
    """One cell: plain decoding, the graphs by replay, informed drafts by decoding, for every budget."""
    spec, cache, length, budgets = cell
    policy = make_policy(spec)
    config = DecodeConfig(length, GENERATION, cache, end_token_ids=checkpoint.end_token_ids, top_j=TOP_J)
    ids = {
        split: encode_prompts(
            load_prompt_set("bundled", split, count), checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size
        )
        for split, count in (("calibration", options.search_prompts), ("test", options.prompts))
    }
    with tempfile.TemporaryDirectory() as scratch:
        tables = {}
        for split, prompts in ids.items():
            traces = record(checkpoint, prompts, policy, config, Path(scratch) / split, batch_size=options.batch_size)
            tables[split] = AnchorTable.from_traces(traces, max_depth=None)
        plain = dict(decode(checkpoint, ids["test"], spec, config, (), options.batch_size))
    problem = SearchInput(PrefixTrie.from_anchors(tables["calibration"]), length, policy.step_size)
    exact = find_graphs("exact", problem, budgets)
    published = find_graphs("published", problem, budgets)
    rows = []
    for budget in budgets:
        begin = time.process_time()
        informed = dict(decode(checkpoint, ids["test"], spec, config, InformedDrafter(budget), options.batch_size))
        seconds = time.process_time() - begin
        begin = time.process_time()
        static = dict(decode(checkpoint, ids["test"], spec, config, exact[budget].nodes, options.batch_size))
        graph_seconds = time.process_time() - begin
        best, rule = replay(exact[budget].nodes, tables["test"]), replay(published[budget].nodes, tables["test"])
        rows.append(
            row(plain, informed, best, rule)
            | {
                "budget": budget,
                "proved": exact[budget].proved,
                "reading": published[budget].chosen,
                "graph_as_replayed": [static[k].forwards for k in sorted(static)] == best.forwards_per_prompt.tolist(),
                "query_tokens_graph": mean_query_tokens(static),
                "processor_time_informed_over_graph": round(seconds / graph_seconds, 3),
            }
        )
        print(spec, cache, length, json.dumps(rows[-1]), flush=True)
    return {"policy": spec, "cache": cache, "block_length": length, "budgets": rows}


def decode(checkpoint: Checkpoint, prompts: Any, spec: str, config: DecodeConfig, drafts: Any, batch: int) -> Any:
    """(prompt index, result) of every prompt."""
    return decode_batch(
        checkpoint.denoiser, list(enumerate(prompts)), make_policy(spec), config, drafts, batch_size=batch
    )


def mean_query_tokens(results: dict[int, DecodeResult]) -> float:
    """Query tokens of a forward, refreshes included."""
    total = sum(result.forwards for result in results.values())
    return round(sum(result.query_tokens for result in results.values()) / total, 1)


def row(
    plain: dict[int, DecodeResult], informed: dict[int, DecodeResult], best: ReplayResult, rule: ReplayResult
) -> dict[str, Any]:
    """NFE reductions, and the paired ratio of informed drafts to the exact graph with its interval."""
    prompts = sorted(plain)
    forwards = torch.tensor([informed[k].forwards for k in prompts], dtype=torch.float64).numpy()
    steps = best.plain_per_prompt.astype(float)
    ratio = PromptBootstrap(len(prompts)).ratio_quotient(
        (steps, forwards), (steps, best.forwards_per_prompt.astype(float))
    )
    return {
        "prompts": len(prompts),
        "tokens_identical": sum(informed[k].tokens == plain[k].tokens for k in prompts),
        "plain_forwards": int(steps.sum()),
        "nfe_reduction_published": round(rule.nfe_reduction, 3),
        "nfe_reduction_exact": round(best.nfe_reduction, 3),
        "nfe_reduction_informed": round(float(steps.sum() / forwards.sum()), 3),
        "informed_over_exact": [round(value, 3) for value in (ratio.estimate, ratio.low, ratio.high)],
        "query_tokens_informed": mean_query_tokens(informed),
    }


def read_cells(path: Path, stamp: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that an earlier run with the same ``stamp`` left."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    cells: list[dict[str, Any]] = found.pop("cells", [])
    return cells if found == stamp else []


def main() -> int:
    """Measure every cell, write the file, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=48, help="held-out prompts")
    parser.add_argument("--search-prompts", type=int, default=64, help="prompts that graphs are calibrated on")
    parser.add_argument("--batch-size", type=int, default=8, help="prompts at a time")
    parser.add_argument("--cells", type=int, nargs="*", help="numbers of the cells to run, from 0; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "informed.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("bundled")
    stamp = {
        "what": "informed drafts against calibrated graphs of the same number of drafts, held-out prompts",
        "device": "cpu",
        "dtype": "float32",
        "machine": f"{platform.system()} {platform.machine()}, one thread",
        "model_revision": checkpoint.revision,
        "prompts": options.prompts,
        "search_prompts": options.search_prompts,
        "batch_size": options.batch_size,
        "generation_length": GENERATION,
        "versions": {"draftgraph": tool_version(), "torch": torch.__version__},
    }
    found = read_cells(options.out, stamp)
    for number in options.cells if options.cells else range(len(CELLS)):
        if not any((c["policy"], c["cache"], c["block_length"]) == CELLS[number][:3] for c in found):
            found.append(measure(checkpoint, CELLS[number], options))
            write_json(options.out, {**stamp, "cells": found})
    same = all(r["tokens_identical"] == r["prompts"] for cell in found for r in cell["budgets"])
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
