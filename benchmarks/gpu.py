"""Everything that is to be measured on a GPU, in one command of less than ten minutes.

    python benchmarks/gpu.py --out results/gpu                  (one GPU with room for an 8B model in bf16)
    python benchmarks/gpu.py --out /tmp/tiny --tiny --device cpu

Each part has a share of the time and writes OUT/PART.json as it goes, the device named; a part that fails or runs out
of time leaves what it has and the next one runs. docs/gpu.md says what each part shows.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.gpu_attention import attention
from benchmarks.gpu_bench import TINY, Bench, Sizes
from benchmarks.gpu_costs import costs
from benchmarks.gpu_identity import identity
from benchmarks.gpu_latency import compiled, cuda_graphs, latency, memory
from benchmarks.gpu_trace_driven import trace_driven

#: In order of importance: (function, its share of the time in seconds, scaled to --seconds). A part may overrun by its
#: last measurement, which takes half a minute at most.
PARTS = {
    "identity": (identity, 50),
    "latency": (latency, 185),
    "trace_driven": (trace_driven, 130),
    "costs": (costs, 60),
    "memory": (memory, 45),
    "attention": (attention, 60),
    "cuda_graphs": (cuda_graphs, 40),
}
#: Run only when named: compiling a model of 32 layers may take longer than everything else.
ON_DEMAND = {"compiled": (compiled, 300)}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; 0 when all were complete, 1 when one was not; exits with 2 when nothing can be run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="a torch device")
    parser.add_argument("--seconds", type=float, default=520.0, help="time in all, start of Python left out")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in this order")
    parser.add_argument("--tiny", action="store_true", help="tiny models of the same architectures: a dry run")
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.parts.split(",") if name.strip()]
    known = {**PARTS, **ON_DEMAND}
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"unknown parts {', '.join(unknown)}; expected some of {', '.join(known)}")
    if options.device.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        parser.exit(
            2,
            f"no CUDA device (torch {torch.__version__}); install torch with CUDA (CONTRIBUTING.md), or dry-run with "
            "--tiny --device cpu\n",
        )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    bench = Bench(options.out, options.device, TINY if options.tiny else Sizes(), options.seconds)
    scale = options.seconds / sum(seconds for _, seconds in PARTS.values())
    for name in names:
        part, seconds = known[name]
        bench.run(name, scale * seconds if name in PARTS else seconds, part)
    return 0 if all(part["status"] == "complete" for part in bench.parts) else 1


if __name__ == "__main__":
    sys.exit(main())
