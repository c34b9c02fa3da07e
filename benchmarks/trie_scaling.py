"""How the prefix trie scales: seconds and peak memory of its build, and of greedy on it, against anchors.

    python benchmarks/trie_scaling.py [--anchors 10000 100000 1000000] [--out benchmarks/results/trie_scaling.json]

Synthetic anchors with chains of depth 12 (block length 32, one pair a step): the step after commits the r-th best
of the free positions with its j-th best token, r and j drawn from Zipf-like laws, so that a few prefixes are common
and most are rare, as in traces. Each size runs in its own process, because peak memory is that of a process.
The build is single-threaded, so its processor seconds are its wall-clock seconds on an idle core; the limit is
judged on them, and the load of the machine is recorded beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from drafting.anchors import AnchorTable
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie

DEPTH, BLOCK_LENGTH, TOP_J = 12, 32, 8
POSITION_EXPONENT, TOKEN_EXPONENT = 1.6, 2.6
LIMIT_SECONDS, LIMIT_BYTES = 10.0, 2 * 2**30


def zipf_pairs(n_anchors: int, depth: int = DEPTH, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of synthetic chains: (position ranks, vocabulary ranks), int16 [n_anchors, depth] each."""
    rng = np.random.default_rng(seed)
    places = np.arange(1, BLOCK_LENGTH + 1, dtype=np.float64) ** -POSITION_EXPONENT
    tokens = np.arange(1, TOP_J + 1, dtype=np.float64) ** -TOKEN_EXPONENT
    tokens = np.cumsum(tokens / tokens.sum())
    pair_i = np.empty((n_anchors, depth), dtype=np.int16)
    pair_j = np.empty((n_anchors, depth), dtype=np.int16)
    for low in range(0, n_anchors, 1 << 16):
        rows = slice(low, min(low + (1 << 16), n_anchors))
        count = rows.stop - rows.start
        free = np.ones((count, BLOCK_LENGTH), dtype=bool)
        for k in range(depth):
            law = np.cumsum(places[: BLOCK_LENGTH - k] / places[: BLOCK_LENGTH - k].sum())
            law[-1] = 1.0
            nth = np.searchsorted(law, rng.random(count), side="right")
            position = np.argmax(np.cumsum(free, axis=1, dtype=np.int8) == nth[:, None] + 1, axis=1)
            free[np.arange(count), position] = False
            pair_i[rows, k] = position + 1
            pair_j[rows, k] = np.minimum(np.searchsorted(tokens, rng.random(count), side="right"), TOP_J - 1) + 1
    return pair_i, pair_j


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(n_anchors: int) -> dict[str, Any]:
    """Build once in this process and report."""
    start = time.perf_counter()
    pairs = zipf_pairs(n_anchors)
    generated = time.perf_counter()
    table = AnchorTable.from_pairs(*pairs)
    del pairs
    tabled = time.perf_counter()
    before, cpu = peak_bytes(), time.process_time()
    trie = PrefixTrie.from_anchors(table)
    built, cpu = time.perf_counter(), time.process_time() - cpu
    peak = peak_bytes()
    found = greedy(trie, 64)
    searched = time.perf_counter()
    return {
        "anchors": n_anchors,
        "trie_nodes": trie.n_nodes,
        "states": trie.n_states,
        "seconds_generate": round(generated - start, 3),
        "seconds_anchor_table": round(tabled - generated, 3),
        "seconds_trie": round(built - tabled, 3),
        "processor_seconds_trie": round(cpu, 3),
        "seconds_greedy_64": round(searched - built, 3),
        "peak_bytes_before_trie": before,
        "peak_bytes": peak,
        "accepted_drafts_greedy_64": round(sum(found.gains), 6),
    }


def main() -> None:
    """Run every size in a process of its own and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    default_out = Path(__file__).parent / "results" / "trie_scaling.json"
    parser.add_argument("--out", type=Path, default=default_out)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one)))
        return
    load = os.getloadavg()[0]
    rows = []
    for n_anchors in options.anchors:
        command = [sys.executable, __file__, "--one", str(n_anchors)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout))
        print(json.dumps(rows[-1]))
    largest = max(rows, key=lambda row: row["anchors"])
    result = {
        "what": "prefix trie from synthetic anchors of depth 12, one run; seconds are wall clock",
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "load_average_at_start": round(load, 2),
        },
        "limits": {"anchors": 1_000_000, "processor_seconds_trie": LIMIT_SECONDS, "peak_bytes": LIMIT_BYTES},
        "within_limits": largest["processor_seconds_trie"] <= LIMIT_SECONDS and largest["peak_bytes"] <= LIMIT_BYTES,
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
