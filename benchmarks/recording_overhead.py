"""What recording costs: the same decodes plain and recorded, interleaved prompt by prompt in one run.

    python benchmarks/recording_overhead.py [--passes 25] [--prompts 8] [--out FILE]

A pass records all prompts (observer, Parquet shards, manifest, and reading the trace back); beside every recorded
prompt the same prompt is decoded plainly, after it in one pass, before it in the next, so that drifts of the machine
hit both alike. The ratio of a pass is judged on processor seconds, all threads counted, as other load on the machine
inflates wall-clock seconds; those are reported beside, as are the spread over passes and a bootstrap interval of the
median. The exit code is 1 when the median ratio of a policy exceeds 1.05.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
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

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.version import tool_version
from verify.decoding import DecodeConfig, decode
from verify.policies.contract import Policy
from verify.policies.specification import make_policy

LIMIT = 1.05


def timed(run: Callable[[], object]) -> np.ndarray:
    """[processor seconds, wall-clock seconds] of one call."""
    processor, wall = time.process_time(), time.perf_counter()
    run()
    return np.array([time.process_time() - processor, time.perf_counter() - wall])


def one_pass(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    config: DecodeConfig,
    folder: Path,
    plain_first: bool,
) -> np.ndarray:
    """Seconds of one pass, [plain or recorded, processor or wall]."""
    plain = np.zeros(2)

    def decode_plainly(done: int, _: int) -> None:
        # The recorder tells of 0 done prompts before the first, and of the last after it.
        prompt_index = done if plain_first else done - 1
        if 0 <= prompt_index < len(prompts):
            plain[:] += timed(
                lambda: decode(checkpoint.denoiser, prompts[prompt_index], policy, config, prompt_index=prompt_index)
            )

    both = timed(lambda: record(checkpoint, prompts, policy, config, folder, on_prompt=decode_plainly))
    return np.stack([plain, both - plain])


def measure(
    checkpoint: Checkpoint, prompts: Sequence[Sequence[int]], policy: Policy, config: DecodeConfig, passes: int
) -> dict[str, Any]:
    """Seconds and ratios of ``passes`` passes under one policy."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        steps = record(checkpoint, prompts, policy, config, Path(scratch) / "warm").n_steps
        seconds = np.stack(
            [
                one_pass(checkpoint, prompts, policy, config, Path(scratch) / str(number), number % 2 == 0)
                for number in track(range(passes), description=policy.spec)
            ]
        )
    ratio = seconds[:, 1] / seconds[:, 0]
    drawn = np.random.default_rng(0).integers(passes, size=(2000, passes))
    interval = np.quantile(np.median(ratio[drawn, 0], axis=1), [0.025, 0.975])
    quartiles = np.quantile(ratio, [0.25, 0.5, 0.75], axis=0)
    return {
        "policy": policy.spec,
        "prompts": len(prompts),
        "steps": steps,
        "passes": passes,
        "ratio": round(float(quartiles[1, 0]), 4),
        "ratio_interval_95": [round(float(value), 4) for value in interval],
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
    parser.add_argument("--passes", type=int, default=25, help="passes per policy")
    parser.add_argument("--prompts", type=int, default=8, help="prompts per pass")
    parser.add_argument("--policy", action="append", help="unmasking policy, repeatable [static:1 and threshold:0.9]")
    parser.add_argument("--cache", default="dual", help="cache mode")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recording_overhead.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    checkpoint = load_checkpoint("bundled")
    prompts = load_prompt_set("bundled", "calibration", options.prompts)
    ids = encode_prompts(prompts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)
    config = DecodeConfig(32, 96, options.cache, end_token_ids=checkpoint.end_token_ids)
    load_before = os.getloadavg()[0]
    rows = [
        measure(checkpoint, ids, make_policy(spec), config, options.passes)
        for spec in options.policy or ("static:1", "threshold:0.9")
    ]
    write_json(
        options.out,
        {
            "what": "seconds of a recorded pass over seconds of the same decodes without recording, per pass",
            "limit": LIMIT,
            "passed": all(row["passed"] for row in rows),
            "cache": options.cache,
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
        low, high = row["ratio_interval_95"]
        console.print(
            f"{row['policy']}: recording costs {100 * (row['ratio'] - 1):+.1f} % "
            f"(95 % interval of the median {100 * (low - 1):+.1f} to {100 * (high - 1):+.1f} %), {row['passes']} passes"
        )
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
