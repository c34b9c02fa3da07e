"""The runtime core for servers: what it decides, and what it costs.

    python benchmarks/runtime_core.py [--cases 10000] [--out FILE]

Three things: whether the numpy and the torch core decide random vectors as the verifier does
(``studies.conformance.vectors``, seed 0); processor seconds in which static buffers of 10,000 nodes load; and
processor milliseconds of one anchor on one thread (block length 32, 10 drafts, vocabulary 4,096), the least of several.
Processor time, because the machine may have other work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from studies.conformance.cores import CORES, decided
from studies.conformance.drafters import random_formulas
from studies.conformance.vectors import random_cases
from verify.graph.buffers import buffer_metadata, pad_formulas, static_buffers
from verify.graph.file import GraphFile, Validity
from verify.runtimes.buffers import parse_buffers

ROOT = Path(__file__).resolve().parent.parent
NODES = 10_000
LENGTH, DRAFTS, VOCABULARY = 32, 10, 4096


def least(work: Callable[[], object], repeats: int) -> float:
    """Least processor seconds of ``work`` over ``repeats`` runs."""
    found = float("inf")
    for _ in range(repeats):
        before = time.process_time()
        work()
        found = min(found, time.process_time() - before)
    return found


def vectors(count: int) -> dict[str, Any]:
    """How many random cases each core decides as the verifier does, and how many drafts they accept."""
    agreed, accepted = Counter({name: 0 for name in CORES}), Counter()
    for case in random_cases(0, count):
        accepted[len(case["expected"]["path"]) - 1] += 1
        agreed.update(name for name, core in CORES.items() if decided(*core, case) == case["expected"])
    return {
        "cases": count,
        "seed": 0,
        "agreed": dict(agreed),
        "by_accepted_drafts": {str(drafts): accepted[drafts] for drafts in sorted(accepted)},
    }


def loading() -> dict[str, Any]:
    """A graph of chains of one to three pairs; ``static:1``, so every node has few parents."""
    singles = [((i, j),) for i, j in product(range(1, 31), range(1, 9))]
    pairs = [(*a, *b) for a, b in product(singles, singles) if a[0][0] < b[0][0]]
    nodes = list(islice([*singles, *pairs], NODES - 1))
    graph = GraphFile.from_nodes(nodes, Validity("shape", None, "static:1", 32, "dual", 0.0, 8))
    data = save(static_buffers(graph), buffer_metadata(graph))
    return {
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        "bytes": len(data),
        "processor_seconds": round(least(lambda: parse_buffers(data), 7), 3),
    }


def anchor(name: str) -> dict[str, float]:
    """Processor milliseconds of an anchor: ranks and fills before the forward, matching and walking behind it."""
    core, array = CORES[name]
    rng = np.random.default_rng(0)
    formulas, lengths = map(array, pad_formulas([(), *random_formulas(0, DRAFTS)]))
    logits = array(rng.normal(size=(1, LENGTH, VOCABULARY)).astype(np.float32))
    rows = array(rng.normal(size=(1, 1 + DRAFTS, LENGTH, VOCABULARY)).astype(np.float32))
    state, rule = array(np.zeros((1, LENGTH), dtype=np.int64)), core.Rule(1)
    ranks = core.rank(logits, state, 0, 4)
    drafts, usable = core.fill(formulas, lengths, ranks, state)
    following = core.next_states(rows, drafts, usable, 0, rule)
    following = following[0] if isinstance(following, tuple) else following
    parts = {
        "rank": lambda: core.rank(logits, state, 0, 4),
        "fill": lambda: core.fill(formulas, lengths, ranks, state),
        "next_states": lambda: core.next_states(rows, drafts, usable, 0, rule),
        "match_and_walk": lambda: core.walk(core.match(drafts, usable, following)),
    }
    return {part: round(1e3 * least(work, 20), 3) for part, work in parts.items()}


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "runtime_core.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    facts = {
        "what": "agreement of the cores with the verifier; processor time, least of several, one thread",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "loading": loading(),
        "anchor": {
            "block_length": LENGTH, "drafts": DRAFTS, "vocabulary": VOCABULARY, "unit": "ms",
            **{name: anchor(name) for name in CORES},
        },
        "vectors": vectors(options.cases),
    }  # fmt: skip
    text = json.dumps(facts, indent=2) + "\n"
    print(text, end="")
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
