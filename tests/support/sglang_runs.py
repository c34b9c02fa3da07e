"""Plain runs of SGLang's loop, recorded, and what drafts will cost on them: written from the definitions alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from verify.graph.file import GraphFile, save_graph
from verify.graph.formulas import Formula, formula
from verify.graph.validity import Validity
from verify.ranking import rank_rows
from verify.runtimes.sglang_config import write_sglang_config

TOP_J = 3


@dataclass(eq=False)
class PlainStep:
    """A step of the plain loop: the state, its ranks (positions in rank order, tokens [m, J]), and the state after."""

    before: list[int]
    order: list[int]
    tokens: list[list[int]]
    after: list[int]


@dataclass(eq=False)
class PlainBlock:
    """The steps of a block; none for a whole block of the prompt."""

    steps: list[PlainStep] = field(default_factory=list)


def recording(base: type) -> type:
    """The plain algorithm ``base`` with ``blocks``: what it did, for one request at a time."""

    class Recording(base):  # type: ignore[misc,valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.blocks = [PlainBlock()]

        def step(self, batch: Any, logits: torch.Tensor, states: list) -> list[bool]:
            assert batch.batch_size == 1
            before = batch.input_ids.tolist()
            done = super().step(batch, logits, states)
            if done[0]:
                self.blocks.append(PlainBlock())
                return done
            masked = np.array([n for n, token in enumerate(before) if token == self.mask_id])
            token, probability, _ = rank_rows(logits[masked], self.mask_id, TOP_J)
            order = np.argsort(-probability[:, 0], kind="stable")
            self.blocks[-1].steps.append(
                PlainStep(before, masked[order].tolist(), token[order].tolist(), batch.input_ids.tolist())
            )
            return done

    return Recording


def formula_of(step: PlainStep, state: Sequence[int]) -> Formula | None:
    """``state`` as a formula of the ranks that ``step`` gave, read at the state after it; None where it has none."""
    left = [n for n in step.order if step.after[n] == step.before[n]]
    pairs = []
    for rank, position in enumerate(left, start=1):
        if state[position] != step.after[position]:
            tokens = step.tokens[step.order.index(position)]
            if state[position] not in tokens:
                return None
            pairs.append((rank, tokens.index(state[position]) + 1))
    return formula(pairs)


def predicted(block: PlainBlock, nodes: Collection[Formula]) -> tuple[int, bool]:
    """The forwards of a block under the drafts ``nodes``, and whether the one that stores it falls away."""
    steps = block.steps
    forwards, at = 1, 1  # the first forward has nothing to draft from
    if not steps:
        return forwards, False
    while at < len(steps):
        forwards += 1
        accepted = 0
        while at + accepted < len(steps) and formula_of(steps[at - 1], steps[at + accepted].after) in nodes:
            accepted += 1
        if at + accepted == len(steps):
            return forwards, True
        at += accepted + 1
    return forwards + 1, False


def random_graph(seed: int, size: int, count: int, *, single: bool = False) -> list[Formula]:
    """``count`` formulas over blocks of ``size``: a likely chain, and what random steps add to what is there.

    ``single``: a step commits one position, as under a threshold of 1.
    """
    rng = random.Random(seed)
    nodes: list[Formula] = [()]
    while len(nodes) <= count:
        parent = nodes[-1] if len(nodes) <= size // 2 else rng.choice(nodes)
        free = [i for i in range(1, size) if i not in {place for place, _ in parent}]
        picked = rng.sample(
            free[: 3 if rng.random() < 0.7 else None], min(len(free), 1 if single else rng.choice([1, 1, 1, 2]))
        )
        node = formula([*parent, *((i, 1 if rng.random() < 0.85 else rng.randint(1, 2)) for i in picked)])
        if len(node) < size and node not in nodes:
            nodes.append(node)
    return nodes[1:]


def draft_config(
    folder: Path, nodes: Collection[Formula], size: int, threshold: float, mask: int, *, fdfo: bool, **values: Any
) -> SimpleNamespace:
    """What SGLang hands to an algorithm that is started with a graph file of ``nodes``."""
    policy = "static:1" if threshold >= 1 else f"dynamic:{threshold}"
    graph = folder / f"graph-{size}-{threshold}-{abs(hash(tuple(nodes)))}.json"
    save_graph(GraphFile.from_nodes(nodes, Validity("tiny", None, policy, size, "block_causal", 0.0, TOP_J)), graph)
    out = folder / "server.yaml"
    write_sglang_config(graph, out)
    read: dict[str, Any] = {}
    for line in out.read_text(encoding="utf-8").splitlines()[1:]:
        name, _, value = line.partition(": ")
        read[name] = value.strip('"') if value.startswith('"') else float(value) if "." in value else int(value)
    return _config({**read, **values}, size, mask, fdfo)


def plain_config(size: int, threshold: float, mask: int, *, fdfo: bool, **values: Any) -> SimpleNamespace:
    """The same for SGLang's own algorithm."""
    return _config({"threshold": threshold, **values}, size, mask, fdfo)


def _config(mapping: dict[str, Any], size: int, mask: int, fdfo: bool) -> SimpleNamespace:
    return SimpleNamespace(algorithm_config=mapping, block_size=size, mask_id=mask, first_done_first_out_mode=fdfo)


def frequent_graph(blocks: Sequence[PlainBlock], count: int) -> list[Formula]:
    """The ``count`` states that plain runs come by most often, as formulas; a state follows a more frequent one."""
    seen: Counter[Formula] = Counter()
    for block in blocks:
        for at in range(1, len(block.steps)):
            for later in block.steps[at:]:
                state = formula_of(block.steps[at - 1], later.after)
                if state is None:
                    break
                seen[state] += 1
    return [node for node, _ in sorted(seen.items(), key=lambda one: (-one[1], len(one[0]), one[0]))[:count]]
