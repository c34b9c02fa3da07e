"""Is the budget that the latency table picks the best one? Trace-driven decodes on CPU cores, with a mid-sized model.

    python benchmarks/trace_driven_cpu.py [--minutes 25] [--out FILE]

The same measurement as part ``trace_driven`` of ``benchmarks/gpu.py``, in processor seconds of one thread (other load
on the machine inflates wall-clock seconds): LLaDA's architecture with 126 million random weights pays, the bundled
model's decodes decide what is accepted. The exit code is 1 when the budget picked is more than 2 % slower than the
best.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.gpu_bench import Bench, Sizes
from benchmarks.gpu_identity import bundled_traces
from benchmarks.gpu_trace_driven import run_shape
from calibrate.files import write_json
from calibrate.measuring.latency import measure_latency
from calibrate.models.shapes import LLADA_MEDIUM

SIZES = Sizes(
    shapes=(LLADA_MEDIUM,), dtype="float32", generation_length=32, drafts=(*range(9), 10), informed=(*range(1, 9), 10),
    contexts=(64,), search_prompts=32, test_prompts=4, repeats=9, rounds=3,
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the result, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=25.0, help="time for decodes; the latency table is extra")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trace_driven_cpu.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="trace-driven-") as scratch:
        bench = Bench(Path(scratch), "cpu", SIZES, float("inf"))
        bench.clock = time.process_time
        traces = bundled_traces(bench)
        checkpoint = bench.model(LLADA_MEDIUM)
        table = measure_latency(
            checkpoint, drafts=SIZES.drafts, block_length=SIZES.block_length, context_length=SIZES.contexts[0],
            warmup=1, repeats=SIZES.repeats, clock=bench.clock,
        )  # fmt: skip
        end = time.monotonic() + 60 * options.minutes
        row = run_shape(bench, checkpoint, traces, SIZES.contexts[0], table, end)
        facts = bench.facts()
    write_json(
        options.out,
        {
            "what": "trace-driven decodes: the budget picked from the latency table against the best of all tried",
            **facts,
            "machine": f"{os.cpu_count()} cores, shared; load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after",
            "unit": "processor seconds of one thread, the median per prompt over rounds, summed over prompts",
            "model": LLADA_MEDIUM.name,
            "parameters": LLADA_MEDIUM.parameters(),
            "generation_length": SIZES.generation_length,
            **row,
        },
    )
    if row["picked"] is None:
        print("too little time: fewer than two prompts were decoded with every configuration", flush=True)
        return 1
    print(f"picked D = {row['picked']}, best D = {row['best']}, {100 * row['picked_over_best']:+.1f} %", flush=True)
    informed = [one for one in row["configurations"] if one["method"] in ("plain", "informed")]
    for one in informed:
        print(
            f"{one['method']} D = {one['drafts']}: {one['tokens_per_second']:.3f} tokens/s, predicted "
            f"{one['predicted_tokens_per_second']:.3f} ({100 * (one['measured_over_predicted'] - 1):+.1f} %)",
            flush=True,
        )
    return 0 if row["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
