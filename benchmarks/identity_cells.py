"""The cells of ``benchmarks/identity.py``: one (policy, cache mode, block length) decoded in every way that is exact.

Two parts. *Graphs*: forwards are predicted by replaying plain traces. *Informed*: by replaying a log of the states that
a decode with the same drafter evaluated; the drafter runs again there, against the log instead of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.recording.states import record_states
from calibrate.traces.table import Traces
from drafting.anchors import AnchorTable
from drafting.counts import DecodeCounts
from drafting.replay import replay
from drafting.searches.chain import confidence_chain
from drafting.searches.greedy import greedy
from drafting.searches.published import published
from drafting.state_replay import replay_states
from drafting.trie import PrefixTrie
from verify.decoding import DecodeConfig, DecodeResult, Drafts, decode, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.engines.rows import RowEngine
from verify.graph.formulas import Formula, formula
from verify.layout import BACKENDS, CACHE_MODES, exactness
from verify.policies.contract import Policy
from verify.policies.specification import make_policy

POLICIES = ("static:1", "static:2", "threshold:0.9", "threshold:0.7")
NAMED = ("published", "greedy", "chain")
#: The costliest first, so that no worker is left alone with it at the end.
CACHES = tuple(c for c in ("none", "prefix", "dual", "block_causal") if c in CACHE_MODES)
#: Graphs are compared at one of them, informed drafts at all.
GRAPH_LENGTH = 32
INFORMED_LENGTHS = (4, 8, 16, 32)
#: Vocabulary ranks in a state log; these policies and the informed drafter look at the best token only.
LOG_TOP_J = 1

Prompts = Sequence[tuple[int, Sequence[int]]]


@dataclass(frozen=True)
class Options:
    """What is run; see the command line of ``benchmarks/identity.py``."""

    model: str = "bundled"
    prompts: int = 4
    calibration_prompts: int = 16
    random_graphs: int = 30
    budget: int = 10
    random_budget: int = 6
    generation_length: int = 96
    top_j: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Work:
    """What one call of :func:`run_cells` does; ``part`` is ``graphs`` or ``informed``, ``folder`` keeps its files."""

    options: Options
    part: str
    policy: str
    cache: str
    block_length: int
    folder: str


@dataclass
class Cell:
    """One (policy, cache mode, back-end, block length, batch, kind of graph): sums over its decodes.

    Attributes:
        batch: sequences per forward.
        graphs: graphs of this kind.
        decodes: decodes compared.
        accepting: of these, how many accepted any draft; the others show only that drafts do no harm.
        tokens_identical, forwards_identical: of the decodes, how many agree with the plain decode and with the replay.
        forwards_plain, forwards_predicted, forwards_counted: forward passes over these decodes.
        missed: states that the replay of a state log did not find in it; with any the prediction promises nothing.
        failures: the decodes that do not agree.
    """

    policy: str
    cache: str
    backend: str
    graph: str
    block_length: int
    batch: int = 1
    graphs: int = 0
    decodes: int = 0
    accepting: int = 0
    tokens_identical: int = 0
    forwards_identical: int = 0
    forwards_plain: int = 0
    forwards_predicted: int = 0
    forwards_counted: int = 0
    missed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.decodes == self.tokens_identical == self.forwards_identical and self.decodes > 0 == self.missed


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


def graphs_of(work: Work, traces: Traces) -> Iterator[tuple[str, int, list[Formula]]]:
    """(kind, number, draft nodes) of every graph of a (policy, cache mode), calibrated on ``traces``."""
    options, policy = work.options, make_policy(work.policy)
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, max_depth=None))
    for name in NAMED:
        if name == "published":
            built = published(trie.prune(2), options.budget, step_size=policy.step_size)
        elif name == "greedy":
            built = greedy(trie, options.budget)
        else:
            built = confidence_chain(options.budget, work.block_length, policy.step_size)
        yield name, 0, list(built.nodes)
    for number in range(options.random_graphs):
        seed = options.seed + 1000 * POLICIES.index(work.policy) + 100000 * CACHES.index(work.cache) + number
        yield "random", number, random_graph(seed, options.random_budget, policy.step_size, options.top_j)


_checkpoints: dict[str, Checkpoint] = {}


def run_cells(work: Work) -> list[Cell]:
    """All cells of one piece of work; runs in a worker. What an earlier run finished is read from its folder."""
    torch.set_num_threads(1)
    options = work.options
    if options.model not in _checkpoints:
        _checkpoints[options.model] = load_checkpoint(options.model)
    checkpoint = _checkpoints[options.model]
    name = f"{work.part}-{work.policy.replace(':', '-')}-{work.cache}-{work.block_length}"
    folder = Path(work.folder) / name
    stamp = {"options": asdict(options), "model_revision": checkpoint.revision}
    done = folder / "cells.json"
    if done.is_file():
        found = json.loads(done.read_text(encoding="utf-8"))
        if found["stamp"] == stamp:
            return [Cell(**cell) for cell in found["cells"]]
    part = {"graphs": Graphs, "informed": Informed}[work.part]
    cells = part(checkpoint, work, folder).run()
    write_json(done, {"stamp": stamp, "cells": [asdict(cell) for cell in cells]})
    return cells


def prompt_ids(checkpoint: Checkpoint, split: str, options: Options) -> list[tuple[int, ...]]:
    """Token ids of the bundled prompts of a split that the grid uses."""
    limit = options.prompts if split == "test" else options.calibration_prompts
    prompts = load_prompt_set("bundled", split, limit)
    return encode_prompts(prompts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)


class Comparison:
    """Decodes of the test prompts of one piece of work, held against their recorded plain decodes.

    Attributes:
        everyone: (prompt_index, token ids) of every prompt.
        anchors: of the plain decodes.
    """

    def __init__(self, checkpoint: Checkpoint, work: Work, folder: Path) -> None:
        self.checkpoint, self.work, self.folder = checkpoint, work, folder
        self.policy: Policy = make_policy(work.policy)
        self.backends = [backend for backend in BACKENDS if exactness(work.cache, backend).exact]
        prompts = prompt_ids(checkpoint, "test", work.options)
        self.everyone = list(enumerate(prompts))
        # Without drafts both back-ends are the same forward.
        plain = record(checkpoint, prompts, self.policy, self.config("packed"), folder / "test")
        self.anchors = AnchorTable.from_traces(plain, max_depth=None)
        written = plain.committed_blocks()
        self._expected = [
            [t for key in sorted(written) if key[0] == prompt_index for _, t in sorted(written[key].items())]
            for prompt_index, _ in self.everyone
        ]
        nothing = replay([], self.anchors)
        self.plain_forwards = dict(zip(nothing.prompt_indices.tolist(), nothing.plain_per_prompt.tolist(), strict=True))
        self.cells: dict[tuple[str, str, int], Cell] = {}

    def config(self, backend: str, top_j: int | None = None) -> DecodeConfig:
        """The decode configuration of this piece of work."""
        work = self.work
        return DecodeConfig(
            work.block_length, work.options.generation_length, work.cache, backend, self.checkpoint.end_token_ids,
            top_j or work.options.top_j,
        )  # fmt: skip

    def alone(self, drafts: Drafts, backend: str, chosen: Prompts) -> dict[int, DecodeResult]:
        """Decode the prompts ``chosen`` one by one."""
        denoiser, config = self.checkpoint.denoiser, self.config(backend)
        return {k: decode(denoiser, ids, self.policy, config, drafts, prompt_index=k) for k, ids in chosen}

    def together(self, drafts: Drafts, backend: str) -> dict[int, DecodeResult]:
        """Decode all prompts in one batch."""
        denoiser, config = self.checkpoint.denoiser, self.config(backend)
        return dict(decode_batch(denoiser, self.everyone, self.policy, config, drafts, batch_size=len(self.everyone)))

    def enter(
        self, kind: str, number: int, backend: str, batch: int, foreseen: Mapping[int, int],
        found: Mapping[int, DecodeResult],
    ) -> Cell:  # fmt: skip
        """Enter decodes into their cell: are they the plain decodes' texts, in the forwards that were predicted?"""
        work = self.work
        fresh = Cell(work.policy, work.cache, backend, kind, work.block_length, batch)
        cell = self.cells.setdefault((backend, kind, batch), fresh)
        cell.graphs += 1
        for prompt_index, result in found.items():
            cell.forwards_plain += self.plain_forwards[prompt_index]
            add(cell, number, prompt_index, result, self._expected[prompt_index], foreseen[prompt_index])
        return cell


class Graphs(Comparison):
    """Plain decodes by every engine, and every graph in every exact back-end."""

    def run(self) -> list[Cell]:
        calibration = record(
            self.checkpoint, prompt_ids(self.checkpoint, "calibration", self.work.options), self.policy,
            self.config("packed"), self.folder / "calibration",
        )  # fmt: skip
        denoiser, everyone, batch = self.checkpoint.denoiser, self.everyone, len(self.everyone)
        config = self.config("packed")
        # The traces were recorded with static buffers; the plain engine must have decoded the same.
        rows = RowEngine(denoiser, config.cache, "packed")
        plain = {k: decode(denoiser, ids, self.policy, config, prompt_index=k, engine=rows) for k, ids in everyone}
        nothing = foreseen(replay([], self.anchors))
        self.enter("none", 0, "packed", 1, nothing, plain)
        self.enter("none", 0, "packed", batch, nothing, self.together((), "packed"))
        for kind, number, nodes in graphs_of(self.work, calibration):
            predicted = foreseen(replay(nodes, self.anchors))
            chosen = everyone if kind in NAMED else [everyone[number % batch]]
            for backend in self.backends:
                self.enter(kind, number, backend, 1, predicted, self.alone(nodes, backend, chosen))
                if kind in NAMED:
                    self.enter(kind, number, backend, batch, predicted, self.together(nodes, backend))
        return list(self.cells.values())


class Informed(Comparison):
    """Informed drafts in every exact back-end, alone and in a batch."""

    def run(self) -> list[Cell]:
        drafter = InformedDrafter(self.work.options.budget)
        log = record_states(
            self.checkpoint, [ids for _, ids in self.everyone], self.policy, self.config(self.backends[0], LOG_TOP_J),
            self.folder / "states", drafter,
        )  # fmt: skip
        replayed = replay_states(log, drafter)
        predicted, batch = foreseen(replayed), len(self.everyone)
        for backend in self.backends:
            for size, found in (
                (1, self.alone(drafter, backend, self.everyone)),
                (batch, self.together(drafter, backend)),
            ):
                self.enter("informed", 0, backend, size, predicted, found).missed = replayed.missed
        return list(self.cells.values())


def foreseen(result: DecodeCounts) -> dict[int, int]:
    """Forwards by prompt_index, of a replay of either kind."""
    return dict(zip(result.prompt_indices.tolist(), result.forwards_per_prompt.tolist(), strict=True))


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


def all_work(options: Options, folder: str) -> list[Work]:
    """Every piece of work of the grid, the costliest cache modes first."""
    return [
        Work(options, part, spec, cache, length, folder)
        for cache in CACHES
        for spec in POLICIES
        for part, lengths in (("graphs", (GRAPH_LENGTH,)), ("informed", INFORMED_LENGTHS))
        for length in lengths
    ]
