"""Is a large draft graph, pruned at every anchor, better than the best static graph of the pruned size?

    python benchmarks/pruning.py [--prompts 48] [--search-prompts 64] [--out FILE]

The bundled model, float32, dual cache, blocks of 32. Of a calibrated graph of D nodes the D* are kept whose tokens are
the most probable at the anchor (``verify.graph.pruning``, every score), for the graph of the exact search and for that
of the published rule. Each stands beside the static graphs of D* nodes, which cost as many query tokens. Graphs come
from prompts of the calibration split; forwards are replayed on held-out prompts, which is exact, and ratios of NFE
reductions are paired over prompts, with a 95 % interval from resampling prompts.

Recordings are kept (``--traces``) and so is every cell of the file: a rerun with the same numbers of prompts goes on
where it stopped, and needs no model once all is recorded. The first of the held-out prompts are also decoded
(``--decoded-prompts``, 0 to leave the model alone); the exit code is 1 when their forwards are not those predicted, or
any token differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.cells import read_cells
from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.traces.table import TraceError, Traces, read_traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.pruned_replay import PrunedReplay
from drafting.replay import ReplayResult, replay
from drafting.searches.methods import SearchInput, find_graphs
from drafting.searches.result import SearchResult
from drafting.trie import PrefixTrie
from studies.statistics.intervals import PromptBootstrap
from verify.decoding import DecodeConfig, decode_batch
from verify.drafters.pruned import PrunedGraphDrafter
from verify.graph.pruning import GraphPruner, Score
from verify.policies.specification import make_policy

POLICIES = ("static:1", "threshold:0.9")
LARGE, KEPT = (10, 32, 64), (3, 5, 10)
METHODS = ("exact", "published")
BLOCK, GENERATION, TOP_J, CACHE = 32, 96, 8, "dual"


@cache
def model() -> Checkpoint:
    """The bundled model, loaded when something must be decoded."""
    torch.set_num_threads(1)
    return load_checkpoint("bundled")


def decoding(spec: str, split: str, count: int) -> tuple[list[Any], DecodeConfig]:
    """Token ids of the first prompts of a split, and how they are decoded."""
    checkpoint = model()
    prompts = load_prompt_set("bundled", split, count)
    config = DecodeConfig(BLOCK, GENERATION, CACHE, end_token_ids=checkpoint.end_token_ids, top_j=TOP_J)
    return encode_prompts(prompts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size), config


def recorded(spec: str, split: str, count: int, options: argparse.Namespace) -> Traces:
    """The recording of the first ``count`` prompts of a split, made when it is not there."""
    folder = options.traces / f"{spec.replace(':', '-')}-{split}-{count}"
    try:
        return read_traces(folder)
    except TraceError:  # not there, or stopped half-way
        prompts, config = decoding(spec, split, count)
        return record(model(), prompts, make_policy(spec), config, folder, batch_size=options.batch_size)


def measure(spec: str, options: argparse.Namespace) -> dict[str, Any]:
    """One policy: every large graph and kept number against the static graphs of the kept number."""
    search = recorded(spec, "calibration", options.search_prompts, options)
    test = recorded(spec, "test", options.prompts, options)
    step_size = make_policy(spec).step_size
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(search, max_depth=None))
    problem = SearchInput(trie, BLOCK, step_size, time_limit=options.time_limit)
    budgets = sorted({*LARGE, *KEPT})
    graphs = {method: find_graphs(method, problem, budgets, certify=True) for method in METHODS}
    held_out = PrunedReplay(test)
    static = {
        method: {budget: replay(found.nodes, held_out.anchors) for budget, found in graphs[method].items()}
        for method in METHODS
    }
    bootstrap = PromptBootstrap(options.prompts)
    rows = []
    for method, large, keep in product(METHODS, LARGE, KEPT):
        for score in get_args(Score) if keep < large else ():
            pruner = GraphPruner(graphs[method][large].nodes, keep, step_size, score)
            rows.append(row(bootstrap, held_out.replay(pruner), static, (method, large, keep, score)))
            print(spec, json.dumps(rows[-1]), flush=True)
    return {
        "policy": spec,
        "model_revision": test.metadata["model_revision"],
        "plain_forwards": static["exact"][LARGE[0]].plain_forwards,
        "static": [
            static_row(bootstrap, graphs[m][budget], static[m][budget]) for m, budget in product(METHODS, budgets)
        ],
        "pruned": rows,
        "decoded": decoded(spec, graphs["exact"][max(LARGE)], held_out, options),
    }


def static_row(bootstrap: PromptBootstrap, graph: SearchResult, found: ReplayResult) -> dict[str, Any]:
    """A static graph: what it saves on held-out prompts, and what is proved of it on the searched ones."""
    return {
        "method": graph.method,
        "budget": graph.budget,
        "nodes": len(graph.nodes),
        "gap": graph.gap,
        "reading": graph.chosen,
        "nfe_reduction": rounded(bootstrap.nfe_reduction(found)),
    }


def row(
    bootstrap: PromptBootstrap, pruned: ReplayResult, static: dict[str, dict[int, ReplayResult]], cell: tuple
) -> dict[str, Any]:
    """A pruned graph, and its paired ratios to the static graphs of the kept number and to its own large graph."""
    method, large, keep, score = cell
    others = {f"over_{name}": static[name][keep] for name in METHODS} | {"over_large": static[method][large]}
    return {
        "method": method,
        "large": large,
        "keep": keep,
        "score": score,
        "nfe_reduction": rounded(bootstrap.nfe_reduction(pruned)),
    } | {name: rounded(bootstrap.compare(pruned, other).nfe_reduction_ratio) for name, other in others.items()}


def rounded(interval: Any) -> list[float]:
    """Estimate, low and high."""
    return [round(value, 3) for value in (interval.estimate, interval.low, interval.high)]


def decoded(spec: str, graph: SearchResult, held_out: PrunedReplay, options: argparse.Namespace) -> dict[str, Any]:
    """The first held-out prompts, really decoded with every kept number and score: are counts those predicted?"""
    cells = same_forwards = same_tokens = 0
    if options.decoded_prompts:
        prompts, config = decoding(spec, "test", options.decoded_prompts)
        policy, numbered = make_policy(spec), list(enumerate(prompts))
        plain = dict(decode_batch(model().denoiser, numbered, policy, config, batch_size=options.batch_size))
        for keep, score in product(KEPT, get_args(Score)):
            drafter = PrunedGraphDrafter(graph.nodes, keep, policy.step_size, score)
            predicted = held_out.replay(drafter.pruner).forwards_per_prompt
            for k, found in decode_batch(
                model().denoiser, numbered, policy, config, drafter, batch_size=options.batch_size
            ):
                cells += 1
                same_forwards += found.forwards == predicted[k]
                same_tokens += found.tokens == plain[k].tokens
    return {"decodes": cells, "forwards_as_predicted": int(same_forwards), "tokens_identical": same_tokens}


def main() -> int:
    """Measure every policy, write the file, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=48, help="held-out prompts")
    parser.add_argument("--search-prompts", type=int, default=64, help="prompts that graphs are calibrated on")
    parser.add_argument("--decoded-prompts", type=int, default=8, help="held-out prompts that are decoded too")
    parser.add_argument("--batch-size", type=int, default=8, help="prompts at a time")
    parser.add_argument("--time-limit", type=float, default=30.0, help="seconds of the exact search for each budget")
    parser.add_argument("--traces", type=Path, default=Path("runs/pruning"), help="where recordings are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pruning.json")
    options = parser.parse_args()
    stamp = {
        "what": "pruned draft graphs against static graphs of the kept number of drafts, held-out prompts",
        "device": "cpu",
        "dtype": "float32",
        "machine": f"{platform.system()} {platform.machine()}, one thread",
        "cache": CACHE,
        "block_length": BLOCK,
        "generation_length": GENERATION,
        "scores": list(get_args(Score)),
        "prompts": options.prompts,
        "search_prompts": options.search_prompts,
        "decoded_prompts": options.decoded_prompts,
        "batch_size": options.batch_size,
        "versions": {"draftgraph": tool_version(), "torch": torch.__version__},
    }
    found = read_cells(options.out, stamp)
    for spec in POLICIES:
        if all(cell["policy"] != spec for cell in found):
            found.append(measure(spec, options))
            write_json(options.out, {**stamp, "cells": found})
    same = all(
        cell["decoded"]["decodes"] == cell["decoded"][name]
        for cell in found
        for name in ("forwards_as_predicted", "tokens_identical")
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
