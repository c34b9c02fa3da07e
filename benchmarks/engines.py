"""What static buffers, batches and compiled steps are worth: the same decodes by every engine, interleaved in one run.

    python benchmarks/engines.py [--passes 7] [--prompts 8] [--batches 1,4,8] [--no-compile] [--out FILE]

Bundled model, static:1, held-out prompts, plainly and with the greedy graph of ten drafts found on calibration prompts.
A pass decodes all prompts with every engine, in an order drawn anew; a ratio is the processor seconds of the plain
engine (one call per sequence, caches as values) over those of the other, in the same pass. Tokens and forwards are
compared on the way: the exit code is 1 when any differ. Compiling takes a minute or two before the first pass.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.models.hugging_face import HuggingFaceDenoiser
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.builder import TraceBuilder
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from verify.decoding import DecodeConfig, decode_batch
from verify.engines.rows import RowEngine
from verify.graph.formulas import Formula
from verify.policies.specification import make_policy

Books = dict[int, tuple[list[int], int]]
PLAIN_ENGINE = "rows, one by one"


def graph_of(checkpoint: Checkpoint, config: DecodeConfig, prompts: int, budget: int) -> list[Formula]:
    """The greedy graph of calibration prompts."""
    denoiser = checkpoint.denoiser
    ids = encode_prompts(
        load_prompt_set("bundled", "calibration", prompts), checkpoint.tokenizer, denoiser.vocabulary_size
    )
    builder = TraceBuilder()
    policy = make_policy("static:1")
    for _ in decode_batch(denoiser, list(enumerate(ids)), policy, config, batch_size=8, observer=builder):
        pass
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(builder.build({"policy": policy.spec}), max_depth=None))
    return list(greedy(trie, budget).nodes)


def engines(checkpoint: Checkpoint, config: DecodeConfig, batches: Sequence[int], compiled: bool) -> dict[str, Any]:
    """Name -> a function of (prompts, graph) that decodes them."""
    plain = checkpoint.denoiser
    policy = make_policy("static:1")

    def runner(denoiser: HuggingFaceDenoiser, batch: int, rows: bool = False) -> Callable[..., Books]:
        def run(prompts: Sequence[tuple[int, Sequence[int]]], graph: Sequence[Formula]) -> Books:
            engine = RowEngine(denoiser, config.cache, config.backend) if rows else None
            results = decode_batch(denoiser, prompts, policy, config, graph, batch_size=batch, engine=engine)
            return {prompt_index: (result.tokens, result.forwards) for prompt_index, result in results}

        return run

    found = {PLAIN_ENGINE: runner(plain, 1, rows=True)}
    found |= {f"slots, batch {batch}": runner(plain, batch) for batch in batches}
    if compiled:
        fast = HuggingFaceDenoiser(plain.model, plain.mask_token_id, plain.logits_shift, compile_backend="inductor")
        found |= {f"slots, batch {batch}, compiled": runner(fast, batch) for batch in batches}
    return found


def main() -> int:
    """Measure, write the result, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--passes", type=int, default=7, help="passes")
    parser.add_argument("--prompts", type=int, default=8, help="held-out prompts per pass")
    parser.add_argument("--batches", default="1,4,8", help="batch sizes")
    parser.add_argument("--budget", type=int, default=10, help="drafts of the graph")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="compiled steps too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "engines.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    checkpoint = load_checkpoint("bundled")
    config = DecodeConfig(32, 96, "dual", end_token_ids=checkpoint.end_token_ids)
    ids = encode_prompts(
        load_prompt_set("bundled", "test", options.prompts), checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size
    )
    prompts = list(enumerate(ids))
    graphs = {"plain": [], f"greedy D={options.budget}": graph_of(checkpoint, config, 16, options.budget)}
    batches = [int(batch) for batch in options.batches.split(",")]
    runs = engines(checkpoint, config, batches, options.compile)
    expected = {name: runs[PLAIN_ENGINE](prompts, graph) for name, graph in graphs.items()}
    jobs = [(engine, name) for engine in runs for name in graphs]
    differing = [job for job in jobs if runs[job[0]](prompts, graphs[job[1]]) != expected[job[1]]]  # and warmed up
    load_before = os.getloadavg()[0]
    rng = np.random.default_rng(0)
    seconds: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    for _ in track(range(options.passes), description="passes"):
        for number in rng.permutation(len(jobs)):
            engine, name = jobs[number]
            start = time.process_time()
            runs[engine](prompts, graphs[name])
            seconds[jobs[number]].append(time.process_time() - start)
    table = Table("engine", "graph", "seconds a pass", "times the plain engine", "quartiles")
    rows = []
    for engine, name in jobs:
        ratio = np.array(seconds[PLAIN_ENGINE, name]) / np.array(seconds[engine, name])
        low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75]).tolist()
        rows.append(
            {
                "engine": engine,
                "graph": name,
                "seconds": [round(value, 4) for value in seconds[engine, name]],
                "speed_against_plain_engine": round(middle, 3),
                "quartiles": [round(low, 3), round(high, 3)],
                "identical": (engine, name) not in differing,
            }
        )
        shown = f"{np.median(seconds[engine, name]):.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"
        table.add_row(engine, name, *shown)
    console.print(table)
    write_json(
        options.out,
        {
            "what": "processor seconds of the plain engine over those of each engine, per pass, for the same decodes",
            "passed": not differing,
            "policy": "static:1",
            "cache": config.cache,
            "prompts": options.prompts,
            "model": checkpoint.name,
            "model_revision": checkpoint.revision,
            "dtype": checkpoint.dtype,
            "unit": "processor seconds, one torch thread",
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "load_before": round(load_before, 2),
            "versions": {"draftgraph": tool_version(), "python": platform.python_version(), "torch": torch.__version__},
            "rows": rows,
        },
    )
    if differing:
        console.print(f"[bold red]tokens or forwards differ[/]: {differing}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
