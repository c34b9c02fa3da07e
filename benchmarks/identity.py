"""The whole grid: speculative tokens equal plain tokens, and forwards predicted equal forwards counted.

    python benchmarks/identity.py [--prompts 4] [--random-graphs 30] [--workers 2] [--out FILE]

Policies {static:1, static:2, threshold:0.9, threshold:0.7} x every cache mode and back-end that claims exactness x
{published rule, greedy, chain, random graphs}, in float32, on held-out prompts of the bundled model. Graphs are
calibrated on prompts of the calibration split, under the same policy and cache mode. Plain decodes are shared by
all graphs and both back-ends of a (policy, cache mode). Every random graph decodes one prompt, the prompts in turn;
the other graphs decode all, first alone and then all in one batch. The plain decodes are themselves run again by the
plain engine (one call per sequence, nothing static) and in one batch. About ten minutes on two idle cores.

Informed drafts (ten, ``verify.drafters.informed``) run beside the graphs. A replay cannot predict their forwards, as it
does not know what rejected drafts would have shown; they must be the same alone, in a batch and in every back-end.

A decode agrees when its tokens are those of the plain decode, position by position, and its forwards are those that
replaying the plain decode's trace predicts. The exit code is 1 when any decode of any cell does not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small, a process a core is faster
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_prompts, prompt_set_hash
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.traces.table import Traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.chain import confidence_chain
from drafting.searches.greedy import greedy
from drafting.searches.published import published
from drafting.trie import PrefixTrie
from verify.decoding import DecodeConfig, DecodeResult, decode, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.engines.rows import RowEngine
from verify.graph.formulas import Formula, formula
from verify.layout import BACKENDS, CACHE_MODES, exactness
from verify.policies.specification import make_policy

POLICIES = ("static:1", "static:2", "threshold:0.9", "threshold:0.7")
NAMED = ("published", "greedy", "chain")
Found = Iterable[tuple[int, DecodeResult]]
# The costliest first, so that no worker is left alone with it at the end.
CACHES = tuple(c for c in ("none", "prefix", "dual", "block_causal") if c in CACHE_MODES)


@dataclass(frozen=True)
class Options:
    """What is run; see the command line."""

    model: str = "bundled"
    prompts: int = 4
    calibration_prompts: int = 16
    random_graphs: int = 30
    budget: int = 10
    random_budget: int = 6
    block_length: int = 32
    generation_length: int = 96
    top_j: int = 8
    seed: int = 0


@dataclass
class Cell:
    """One (policy, cache mode, back-end, kind of graph): sums over its decodes.

    Attributes:
        batch: sequences per forward.
        graphs: graphs of this kind.
        decodes: speculative decodes compared.
        accepting: of these, how many accepted any draft; the others show only that drafts do no harm.
        tokens_identical, forwards_identical: of the decodes, how many agree with the plain decode and with the replay.
        forwards_plain, forwards_predicted, forwards_counted: forward passes over these decodes.
        failures: the decodes that do not agree.
    """

    policy: str
    cache: str
    backend: str
    graph: str
    batch: int = 1
    graphs: int = 0
    decodes: int = 0
    accepting: int = 0
    tokens_identical: int = 0
    forwards_identical: int = 0
    forwards_plain: int = 0
    forwards_predicted: int = 0
    forwards_counted: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.decodes == self.tokens_identical == self.forwards_identical and self.decodes > 0


def random_graph(seed: int, budget: int, step_size: int | None, top_j: int) -> list[Formula]:
    """A random connected graph of ``budget // 2`` to ``budget`` drafts; low ranks are likelier, else few are hit."""
    rng = np.random.default_rng(seed)
    nodes: list[Formula] = [()]
    size = 1 + int(rng.integers(max(1, budget // 2), budget + 1))
    while len(nodes) < size:
        parent = nodes[rng.integers(len(nodes))]
        added = step_size or int(rng.integers(1, 5))
        free = [i for i in range(1, 2 * budget + 8) if i not in {i for i, _ in parent}]
        weight = 0.7 ** np.arange(len(free))
        positions = rng.choice(free, size=added, replace=False, p=weight / weight.sum()).tolist()
        tokens = np.minimum(rng.geometric(0.8, size=added), top_j).tolist()
        child = formula([*parent, *zip(positions, tokens, strict=True)])
        if child not in nodes:
            nodes.append(child)
    return nodes[1:]


def graphs_of(options: Options, spec: str, cache: str, traces: Traces) -> Iterator[tuple[str, int, list[Formula]]]:
    """(kind, number, draft nodes) of every graph of a (policy, cache mode), calibrated on ``traces``."""
    policy = make_policy(spec)
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, max_depth=None))
    for name in NAMED:
        if name == "published":
            built = published(trie.prune(2), options.budget, step_size=policy.step_size)
        elif name == "greedy":
            built = greedy(trie, options.budget)
        else:
            built = confidence_chain(options.budget, options.block_length, policy.step_size)
        yield name, 0, list(built.nodes)
    for number in range(options.random_graphs):
        seed = options.seed + 1000 * POLICIES.index(spec) + 100000 * CACHES.index(cache) + number
        yield "random", number, random_graph(seed, options.random_budget, policy.step_size, options.top_j)


_checkpoints: dict[str, Checkpoint] = {}


def run_cells(work: tuple[Options, str, str, str]) -> list[Cell]:
    """All cells of one (policy, cache mode); runs in a worker."""
    options, spec, cache, scratch = work
    torch.set_num_threads(1)
    if options.model not in _checkpoints:
        _checkpoints[options.model] = load_checkpoint(options.model)
    checkpoint = _checkpoints[options.model]
    policy = make_policy(spec)
    config = DecodeConfig(
        options.block_length, options.generation_length, cache, "packed", checkpoint.end_token_ids, options.top_j
    )
    folder = Path(scratch) / f"{spec.replace(':', '-')}-{cache}"
    stamp = {"options": asdict(options), "model_revision": checkpoint.revision}
    done = folder / "cells.json"
    if done.is_file():
        found = json.loads(done.read_text(encoding="utf-8"))
        if found["stamp"] == stamp:
            return [Cell(**cell) for cell in found["cells"]]
    calibration = record(
        checkpoint, prompt_ids(checkpoint, "calibration", options), policy, config, folder / "calibration"
    )
    test_ids = prompt_ids(checkpoint, "test", options)
    plain = record(checkpoint, test_ids, policy, config, folder / "test")
    cells = compare(checkpoint, options, spec, cache, calibration, plain, test_ids)
    write_json(done, {"stamp": stamp, "cells": [asdict(cell) for cell in cells]})
    return cells


def prompt_ids(checkpoint: Checkpoint, split: str, options: Options) -> list[tuple[int, ...]]:
    """Token ids of the bundled prompts of a split that the grid uses."""
    limit = options.prompts if split == "test" else options.calibration_prompts
    prompts = load_prompt_set("bundled", split, limit)
    return encode_prompts(prompts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)


def compare(
    checkpoint: Checkpoint,
    options: Options,
    spec: str,
    cache: str,
    calibration: Traces,
    plain: Traces,
    prompts: Sequence[Sequence[int]],
) -> list[Cell]:
    """Decode ``prompts`` with every graph and exact back-end and compare with ``plain``, their recorded decodes."""
    denoiser, policy = checkpoint.denoiser, make_policy(spec)
    anchors = AnchorTable.from_traces(plain, max_depth=None)
    written = plain.committed_blocks()
    expected = [
        [t for key in sorted(written) if key[0] == prompt_index for _, t in sorted(written[key].items())]
        for prompt_index in range(len(prompts))
    ]
    cells: dict[tuple[str, str, int], Cell] = {}
    backends = [backend for backend in BACKENDS if exactness(cache, backend).exact]

    def configured(backend: str) -> DecodeConfig:
        return DecodeConfig(
            options.block_length, options.generation_length, cache, backend, checkpoint.end_token_ids, options.top_j
        )

    plain_forwards = dict(
        zip(anchors.prompt_indices().tolist(), replay([], anchors).plain_per_prompt.tolist(), strict=True)
    )

    def enter(kind: str, number: int, backend: str, batch: int, foreseen: Mapping[int, int], found: Found) -> None:
        cell = cells.setdefault((backend, kind, batch), Cell(spec, cache, backend, kind, batch))
        cell.graphs += 1
        for prompt_index, result in found:
            cell.forwards_plain += plain_forwards[prompt_index]
            add(cell, number, prompt_index, result, expected[prompt_index], foreseen[prompt_index])

    def foresee(nodes: Sequence[Formula]) -> dict[int, int]:
        result = replay(nodes, anchors)
        return dict(zip(result.prompt_indices.tolist(), result.forwards_per_prompt.tolist(), strict=True))

    everyone = list(enumerate(prompts))
    nothing = foresee([])
    config = configured("packed")
    # The traces were recorded with static buffers; the plain engine must have decoded the same.
    alone = [
        (k, decode(denoiser, ids, policy, config, prompt_index=k, engine=RowEngine(denoiser, cache, "packed")))
        for k, ids in everyone
    ]
    enter("none", 0, "packed", 1, nothing, alone)
    together = decode_batch(denoiser, everyone, policy, config, batch_size=len(prompts))
    enter("none", 0, "packed", len(prompts), nothing, together)
    for kind, number, nodes in graphs_of(options, spec, cache, calibration):
        foreseen = foresee(nodes)
        chosen = everyone if kind in NAMED else [everyone[number % len(prompts)]]
        for backend in backends:
            config = configured(backend)
            found = [(k, decode(denoiser, ids, policy, config, nodes, prompt_index=k)) for k, ids in chosen]
            enter(kind, number, backend, 1, foreseen, found)
            if kind in NAMED:
                together = decode_batch(denoiser, everyone, policy, config, nodes, batch_size=len(prompts))
                enter(kind, number, backend, len(prompts), foreseen, together)
    informed = InformedDrafter(options.budget)
    first: dict[int, int] = {}
    for backend in backends:
        config = configured(backend)
        found = [(k, decode(denoiser, ids, policy, config, informed, prompt_index=k)) for k, ids in everyone]
        first = first or {k: result.forwards for k, result in found}
        enter("informed", 0, backend, 1, first, found)
        together = decode_batch(denoiser, everyone, policy, config, informed, batch_size=len(prompts))
        enter("informed", 0, backend, len(prompts), first, together)
    return list(cells.values())


def add(cell: Cell, number: int, prompt_index: int, result: DecodeResult, tokens: list[int], foreseen: int) -> None:
    """Enter one decode into a cell: is it the plain decode's text, in the forwards that were predicted?"""
    same_tokens = result.tokens == tokens
    cell.decodes += 1
    cell.accepting += sum(result.accepted) > 0
    cell.tokens_identical += same_tokens
    cell.forwards_identical += foreseen == result.forwards
    cell.forwards_predicted += foreseen
    cell.forwards_counted += result.forwards
    if not same_tokens or foreseen != result.forwards:
        cell.failures.append(
            {
                "graph": number,
                "prompt": prompt_index,
                "tokens_identical": same_tokens,
                "forwards_predicted": foreseen,
                "forwards_counted": result.forwards,
            }
        )


def run_grid(options: Options, workers: int, work_folder: Path | None, console: Console) -> list[Cell]:
    """All cells of the grid, in ``workers`` processes; what an earlier run left in ``work_folder`` is not run again."""
    cells: list[Cell] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="identity-") as scratch, Progress(*columns, console=console) as progress:
        place = str(work_folder or scratch)
        work = [(options, spec, cache, place) for cache in CACHES for spec in POLICIES]
        task = progress.add_task("policies x cache modes", total=len(work))
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for found in pool.imap_unordered(run_cells, work):
                cells += found
                progress.advance(task)
            pool.close()
            pool.join()
    kinds = ("none", *NAMED, "informed", "random")
    return sorted(
        cells,
        key=lambda c: (POLICIES.index(c.policy), CACHES.index(c.cache), c.backend, kinds.index(c.graph), c.batch),
    )


def show(cells: Sequence[Cell], console: Console) -> None:
    """A table of the grid."""
    table = Table(
        "policy",
        "cache",
        "back-end",
        "graph",
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
            cell.policy, cell.cache, cell.backend, cell.graph, str(cell.batch),
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
        ("budget", "draft nodes of the named graphs"),
        ("random-budget", "draft nodes of a random graph, at most"),
        ("seed", "seed of the random graphs"),
    ):
        parser.add_argument(f"--{name}", type=int, default=getattr(Options, name.replace("-", "_")), help=text)
    parser.add_argument("--workers", type=int, default=min(len(os.sched_getaffinity(0)), 8), help="processes")
    parser.add_argument("--work", type=Path, help="a folder for traces and finished cells, to go on after a stop")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "identity.json")
    values = vars(parser.parse_args())
    workers, work, out = values.pop("workers"), values.pop("work"), values.pop("out")
    options = Options(**values)
    console = Console()
    cells = run_grid(options, workers, work, console)
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
            "options": asdict(options),
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
