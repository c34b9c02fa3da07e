"""How often do 95 % intervals over prompts cover the truth? Simulated prompts, from three of them to forty-eight.

    python benchmarks/interval_coverage.py --out benchmarks/results/interval_coverage.json

Three made-up populations of prompts, each with a known nfe reduction of two graphs:

* ``even``: prompts of nearly one length (normal, 10 %), gains that differ by 15 %;
* ``mixed``: lengths that differ by a factor of two either way (log-normal, 0.5), gains by 30 %;
* ``heavy``: lengths and gains with heavy tails (log-normal, 1.0 and 0.6), longer prompts gaining more.

Per number of prompts and population, many samples are drawn; the share of intervals that hold the true value is the
coverage. Two statistics: the nfe reduction of one graph, and the paired difference between two. Nothing here depends on
a model. Source of the question: T. Hesterberg, "What Teachers Should Know About the Bootstrap" (2015), section 4.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calibrate.files import write_json
from calibrate.version import tool_version
from studies.statistics.intervals import RESAMPLES, PromptBootstrap

SIZES = (3, 4, 6, 10, 12, 16, 24, 48)
POPULATIONS = ("even", "mixed", "heavy")
_TRUTH_PROMPTS = 4_000_000


def draw(name: str, prompts: int, rng: np.random.Generator) -> np.ndarray:
    """Plain forwards, forwards of a graph, and forwards of another graph per prompt: float64 [prompts, 3]."""
    size, gain, other = rng.normal(size=(3, prompts))
    if name == "even":
        plain = 80 * np.maximum(1 + 0.10 * size, 0.3)
        first = 2.2 * np.maximum(1 + 0.15 * gain, 0.5)
    elif name == "mixed":
        plain = 80 * np.exp(0.5 * size)
        first = 1 + 1.2 * np.exp(0.30 * gain)
    else:
        plain = 80 * np.exp(1.0 * size)
        first = 1 + 1.2 * np.exp(0.6 * (0.5 * size + 0.87 * gain))
    second = 1 + (first - 1) * np.exp(0.15 * other - 0.05)  # a little worse, and not on the same prompts
    return np.column_stack([plain, plain / first, plain / second])


def coverage(name: str, prompts: int, samples: int, truth: np.ndarray, seed: int) -> dict[str, float]:
    """Share of samples whose interval holds the truth, for both statistics."""
    rng = np.random.default_rng([seed, prompts, POPULATIONS.index(name)])
    bootstrap = PromptBootstrap(prompts, seed=seed)
    hits = np.zeros(2)
    for _ in range(samples):
        plain, first, second = draw(name, prompts, rng).T
        one = bootstrap.ratio(plain, first)
        gap = bootstrap.ratio_difference((plain, first), (plain, second))
        hits += [one.contains(truth[0]), gap.contains(truth[1])]
    return {"nfe_reduction": hits[0] / samples, "difference": hits[1] / samples}


def main(arguments: list[str] | None = None) -> None:
    """Simulate, print one line per size and population, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the shares")
    parser.add_argument("--samples", type=int, default=1000, help="samples per size and population")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of prompts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for name in POPULATIONS:
        plain, first, second = draw(name, _TRUTH_PROMPTS, np.random.default_rng(options.seed)).sum(axis=0)
        truth = np.array([plain / first, plain / first - plain / second])
        for prompts in options.sizes:
            found = coverage(name, prompts, options.samples, truth, options.seed)
            rows.append({"population": name, "prompts": prompts, "samples": options.samples, **found})
            print(f"{name:6} {prompts:3} prompts: {found['nfe_reduction']:.3f}, paired {found['difference']:.3f}")
    facts = {"level": 0.95, "method": "bca", "resamples": RESAMPLES, "seed": options.seed}
    write_json(options.out, {"tool_version": tool_version(), **facts, "rows": rows})


if __name__ == "__main__":
    main()
