"""The whole grid: speculative tokens equal plain tokens, and forwards predicted equal forwards counted.

    python benchmarks/identity.py [--prompts 4] [--random-graphs 30] [--workers 2] [--out FILE]

Policies {static:1, static:2, threshold:0.9, threshold:0.7} x every cache mode and back-end that claims exactness, in
float32, on held-out prompts of the bundled model. With each of them:

* Graphs {published rule, greedy, chain, random graphs} in blocks of 32, calibrated on prompts of the calibration split
  under the same policy and cache mode. Every random graph decodes one prompt, the prompts in turn; the other graphs
  decode all, first alone and then all in one batch. Plain decodes are shared by all graphs and both back-ends, and are
  themselves run again by the plain engine (one call per sequence, nothing static) and in one batch.
* Informed drafts (ten, ``verify.drafters.informed``) in blocks of 4, 8, 16 and 32, alone and in one batch.

A decode agrees when its tokens are those of the plain decode, position by position, and its forwards are those that a
replay predicts: of the plain decode's trace for a graph, and for informed drafts of a log of evaluated states, which
was recorded with the same drafter in the first of the back-ends. No state may be missing in that log. The exit code is
1 when any decode of any cell does not agree.

With ``--work FOLDER`` a rerun goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small, a process a core is faster
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.identity_cells import CACHES, NAMED, POLICIES, Cell, Options, all_work, prompt_ids, run_cells
from calibrate.files import write_json
from calibrate.models.checkpoint import load_checkpoint
from calibrate.prompts.encoding import prompt_set_hash
from calibrate.version import tool_version


def run_grid(
    options: Options, caches: Sequence[str], workers: int, work_folder: Path | None, console: Console
) -> list[Cell]:
    """All cells of the grid, in ``workers`` processes; what an earlier run left in ``work_folder`` is not run again."""
    cells: list[Cell] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="identity-") as scratch, Progress(*columns, console=console) as progress:
        work = [part for part in all_work(options, str(work_folder or scratch)) if part.cache in caches]
        task = progress.add_task("policies x cache modes x block lengths", total=len(work))
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for found in pool.imap_unordered(run_cells, work):
                cells += found
                progress.advance(task)
            pool.close()
            pool.join()
    kinds = ("none", *NAMED, "informed", "random")
    return sorted(
        cells,
        key=lambda c: (
            POLICIES.index(c.policy), CACHES.index(c.cache), c.backend, kinds.index(c.graph), c.block_length, c.batch
        ),
    )  # fmt: skip


def show(cells: Sequence[Cell], console: Console) -> None:
    """A table of the grid."""
    table = Table(
        "policy",
        "cache",
        "back-end",
        "graph",
        "L",
        "batch",
        "tokens",
        "forwards equal",
        "accepting",
        "plain",
        "predicted",
        "counted",
    )
    for cell in cells:
        style = None if cell.passed else "bold red"
        table.add_row(
            cell.policy, cell.cache, cell.backend, cell.graph, str(cell.block_length), str(cell.batch),
            f"{cell.tokens_identical}/{cell.decodes}", f"{cell.forwards_identical}/{cell.decodes}",
            str(cell.accepting), str(cell.forwards_plain), str(cell.forwards_predicted), str(cell.forwards_counted),
            style=style,
        )  # fmt: skip
    console.print(table)


def main() -> int:
    """Run the grid, write its result, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="bundled", help="bundled or a local folder with the bundled tokenizer")
    for name, text in (
        ("prompts", "held-out prompts"),
        ("calibration-prompts", "prompts that graphs are calibrated on"),
        ("random-graphs", "random graphs per policy and cache mode"),
        ("budget", "draft nodes of the named graphs, and informed drafts"),
        ("random-budget", "draft nodes of a random graph, at most"),
        ("seed", "seed of the random graphs"),
    ):
        parser.add_argument(f"--{name}", type=int, default=getattr(Options, name.replace("-", "_")), help=text)
    parser.add_argument("--caches", nargs="+", choices=CACHES, default=CACHES, help="cache modes")
    parser.add_argument("--workers", type=int, default=min(len(os.sched_getaffinity(0)), 8), help="processes")
    parser.add_argument("--work", type=Path, help="a folder for traces and finished cells, to go on after a stop")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "identity.json")
    values = vars(parser.parse_args())
    workers, work, out = values.pop("workers"), values.pop("work"), values.pop("out")
    caches = values.pop("caches")
    options = Options(**values)
    console = Console()
    cells = run_grid(options, caches, workers, work, console)
    show(cells, console)
    failed = [cell for cell in cells if not cell.passed]
    checkpoint = load_checkpoint(options.model)
    write_json(
        out,
        {
            "what": "speculative tokens == plain tokens and forwards predicted == forwards counted, per decode",
            "passed": not failed,
            "decodes": sum(cell.decodes for cell in cells),
            "decodes_accepting": sum(cell.accepting for cell in cells),
            "options": {**asdict(options), "caches": list(caches)},
            "model_revision": checkpoint.revision,
            "prompt_set_hash": prompt_set_hash(prompt_ids(checkpoint, "test", options)),
            "dtype": "float32",
            "device": "cpu",
            "machine": f"{platform.system()} {platform.machine()}, {workers} processes of one thread",
            "versions": {
                "draftgraph": tool_version(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "rows": [asdict(cell) for cell in cells],
        },
    )
    done = sum(cell.decodes for cell in cells)
    if failed:
        console.print(f"[bold red]{len(failed)} of {len(cells)} cells fail[/]; the decodes are named in {out}")
        return 1
    console.print(f"All {len(cells)} cells pass, {done} decodes: the same tokens, the forwards predicted. {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
