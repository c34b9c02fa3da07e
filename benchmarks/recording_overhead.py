"""What recording costs: the same decodes plain and recorded, in interleaved pairs of one run.

    python benchmarks/recording_overhead.py [--pairs 9] [--prompts 8] [--out benchmarks/results/recording_overhead.json]

A pair decodes all prompts twice, once plainly and once through the recorder (observer, Parquet shards, manifest, and
reading the trace back), the order changing from pair to pair, so that drifts of the machine hit both alike. The ratio
is judged on processor seconds, all threads counted, as other load on the machine inflates wall-clock seconds; those
are reported beside. The exit code is 1 when the median ratio of a policy exceeds 1.05.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from calibrate.checkpoints import Checkpoint, load_checkpoint
from calibrate.files import write_json
from calibrate.prompts import encode_prompts, load_prompt_set
from calibrate.recorder import record
from calibrate.version import tool_version
from verify.decode import DecodeConfig, decode
from verify.policies import Policy, make_policy

LIMIT = 1.05


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """(processor seconds, wall-clock seconds) of one call."""
    processor, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - processor, time.perf_counter() - wall


def measure(
    checkpoint: Checkpoint, prompts: Sequence[Sequence[int]], policy: Policy, config: DecodeConfig, pairs: int
) -> dict[str, Any]:
    """Seconds and ratios of ``pairs`` interleaved pairs under one policy."""

    def plain() -> None:
        for sample, prompt in enumerate(prompts):
            decode(checkpoint.denoiser, prompt, policy, config, sample=sample)

    seconds = np.zeros((pairs, 2, 2))  # [pair, plain or recorded, processor or wall]
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        plain()
        steps = record(checkpoint, prompts, policy, config, Path(scratch) / "warm").n_steps
        for pair in track(range(pairs), description=policy.spec):
            folder = Path(scratch) / str(pair)
            recorded = partial(record, checkpoint, prompts, policy, config, folder)
            for which in (0, 1) if pair % 2 == 0 else (1, 0):
                seconds[pair, which] = timed(recorded if which else plain)
    ratio = seconds[:, 1] / seconds[:, 0]
    quartiles = np.quantile(ratio, [0.25, 0.5, 0.75], axis=0)
    return {
        "policy": policy.spec,
        "prompts": len(prompts),
        "steps": steps,
        "pairs": pairs,
        "ratio": round(float(quartiles[1, 0]), 4),
        "ratio_quartiles": [round(float(value), 4) for value in quartiles[[0, 2], 0]],
        "ratio_range": [round(float(value), 4) for value in (ratio[:, 0].min(), ratio[:, 0].max())],
        "ratio_wall": round(float(quartiles[1, 1]), 4),
        "ratio_wall_quartiles": [round(float(value), 4) for value in quartiles[[0, 2], 1]],
        "plain_seconds": [round(float(value), 4) for value in seconds[:, 0, 0]],
        "recorded_seconds": [round(float(value), 4) for value in seconds[:, 1, 0]],
        "passed": bool(quartiles[1, 0] <= LIMIT),
    }


def main() -> int:
    """Measure, write the result, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=9, help="interleaved pairs per policy")
    parser.add_argument("--prompts", type=int, default=8, help="prompts per pass")
    parser.add_argument("--policy", action="append", help="unmasking policy, repeatable [static:1 and threshold:0.9]")
    parser.add_argument("--context", default="dual", help="context mode")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recording_overhead.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    checkpoint = load_checkpoint("bundled")
    prompts = load_prompt_set("bundled", "calibration", options.prompts)
    ids = encode_prompts(prompts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)
    config = DecodeConfig(32, 96, options.context, end_token_ids=checkpoint.end_token_ids)
    load_before = os.getloadavg()[0]
    rows = [
        measure(checkpoint, ids, make_policy(spec), config, options.pairs)
        for spec in options.policy or ("static:1", "threshold:0.9")
    ]
    write_json(
        options.out,
        {
            "what": "seconds of a recorded pass over seconds of the same decodes without recording, per pair",
            "limit": LIMIT,
            "passed": all(row["passed"] for row in rows),
            "context": options.context,
            "block_length": config.block_length,
            "generation_length": config.generation_length,
            "top_j": config.top_j,
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
    for row in rows:
        low, high = row["ratio_quartiles"]
        console.print(
            f"{row['policy']}: recording costs {100 * (row['ratio'] - 1):+.1f} % "
            f"(quartiles {100 * (low - 1):+.1f} to {100 * (high - 1):+.1f} %) over {row['pairs']} pairs"
        )
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
