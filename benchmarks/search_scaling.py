"""How the searches scale: seconds and peak memory of sweep, exact search and greedy against anchors.

    python benchmarks/search_scaling.py [--anchors 1000 10000 100000 1000000] [--run RUN] [--out FILE]

Synthetic anchors are those of trie_scaling.py (chains of depth 12). ``--run`` adds every trace folder below a run
directory, with whole chains. Each input runs in a process of its own, because peak memory is that of a process, and
the rows that are there already in the output are kept, so sizes can be measured one after the other.

Seconds are wall clock; processor seconds stand beside them, because they are what an idle core would need when the
machine had other work. HiGHS may use several threads, all else here is single-threaded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.trie_scaling import peak_bytes, zipf_pairs
from calibrate.traces.table import MANIFEST_NAME, read_traces
from drafting.anchors import AnchorTable
from drafting.searches.closure import price_sweep
from drafting.searches.exact import exact
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from drafting.values import path_value

BUDGETS = (3, 5, 8, 10, 16)
SWEEP_BUDGET, SWEEP_ALL_BELOW = 64, 200_000
T = TypeVar("T")


def timed(search: Callable[[], T], what: str) -> tuple[T, dict[str, float]]:
    """Run a search: (its answer, wall and processor seconds)."""
    print(f"  {what} ...", end="", file=sys.stderr, flush=True)
    wall, cpu = time.perf_counter(), time.process_time()
    answer = search()
    took = {"seconds": round(time.perf_counter() - wall, 3), "processor_seconds": round(time.process_time() - cpu, 3)}
    print(f" {took['seconds']} s, {took['processor_seconds']} s of processor", file=sys.stderr, flush=True)
    return answer, took


def measure(source: str) -> dict[str, Any]:
    """Run all searches on one input in this process. ``source``: a number of anchors, or a trace folder."""
    if source.isdigit():
        table, _ = timed(lambda: AnchorTable.from_pairs(*zipf_pairs(int(source))), f"{source} synthetic anchors")
    else:
        table, _ = timed(lambda: AnchorTable.from_traces(read_traces(source), None), f"anchors of {source}")
    trie, building = timed(lambda: PrefixTrie.from_anchors(table), "trie")
    before = peak_bytes()
    sweep, sweeping = timed(lambda: price_sweep(trie, SWEEP_BUDGET), f"sweep to {SWEEP_BUDGET}")
    after_sweep = peak_bytes()
    row: dict[str, Any] = {
        "source": "synthetic" if source.isdigit() else "/".join(Path(source).parts[-2:]),
        "anchors": trie.anchors.n_anchors,
        "trie_nodes": trie.n_nodes,
        "states": trie.n_states,
        "trie": building,
        "sweep_64": {**sweeping, "certified_budgets": sum(budget <= SWEEP_BUDGET for budget in sweep.budgets) - 1},
        "peak_bytes_before_sweep": before,
        "peak_bytes_after_sweep": after_sweep,
    }
    if trie.anchors.n_anchors < SWEEP_ALL_BELOW:
        whole, took = timed(lambda: price_sweep(trie), "sweep over all breakpoints")
        row["sweep_all"] = {**took, "certified_budgets": len(whole.budgets) - 1, "states": whole.candidates}
    found, took = timed(lambda: greedy(trie, SWEEP_BUDGET), f"greedy to {SWEEP_BUDGET}")
    row["greedy_64"] = took
    row["exact"] = []
    for budget in BUDGETS:
        best, took = timed(lambda budget=budget: exact(trie, budget), f"exact {budget}")
        row["exact"].append(
            {
                "budget": budget,
                **took,
                "accepted_drafts": best.value,
                "bound": best.bound,
                "gap": best.gap,
                "proved_by": best.chosen,
                "sweep_bound": sweep.bound(budget),
                "greedy_accepted_drafts": path_value(found.nodes[:budget], trie),
            }
        )
    row["peak_bytes"] = peak_bytes()
    return row


def main() -> None:
    """Measure every input in a process of its own; keep the rows of other inputs that the output file holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--run", type=Path, help="a run directory, or any folder with trace folders below it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search_scaling.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one)))
        return
    sources = [str(number) for number in options.anchors]
    if options.run is not None:
        folders = sorted(path.parent for path in options.run.rglob(MANIFEST_NAME))
        if not folders:
            parser.error(f"--run {options.run} holds no trace folder (no {MANIFEST_NAME} below it)")
        sources += [str(folder) for folder in folders]
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for source in sources:
        print(f"{source}:", file=sys.stderr, flush=True)
        load = round(os.getloadavg()[0], 2)
        done = subprocess.run(
            [sys.executable, __file__, "--one", source], check=True, stdout=subprocess.PIPE, text=True
        )
        row = {**json.loads(done.stdout), "load_average_at_start": load}
        rows = [old for old in rows if (old["source"], old["anchors"]) != (row["source"], row["anchors"])] + [row]
        rows.sort(key=lambda one: (one["source"], one["anchors"]))
        write(options.out, rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the results so far; an interrupted benchmark keeps what it has."""
    result = {
        "what": "searches on synthetic anchors of depth 12 and on recorded traces, one run each",
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
