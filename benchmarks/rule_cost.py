"""What a step of every rule costs, as a share of a forward of a mid-sized model; on one CPU core.

    python benchmarks/rule_cost.py [--rounds 5] [--vocabularies 8192,126464] [--out FILE]

The forward is that of LLaDA's architecture with 126 million random weights at block length 32, with a context of 64
rows, half a block masked, its ranking included: what a latency table of this model has at D = 0. The rules see one
block of the bundled model's own decode, 32 positions masked down to one, step by step, so that confidences, entropies
and what changes between steps are a real model's. Its logits are widened to each of ``--vocabularies`` by tokens of
next to no probability: 8,192 is the vocabulary of the model that pays, 126,464 that of LLaDA-8B. A rule that reads the
best tokens alone costs the same at any width.

A cost is the processor time of ``policy.step``, a mean over the block's states, with the transfer and the widening to
float64 that it causes. A rule that reads entropies is charged what ranking the same rows with entropies takes beyond
ranking them without. Every rule meets the same states, also where it would commit more at a time. A rule that reads
logits is measured at those of its own decode too: one that compares steps sees fewer confident positions there, as
they are committed. Some rules that draw tokens, at eight of the states, are no examples of the registry, and shown
beside it.

In a round everything is measured once, in random order, each rule right behind a forward of its own; ratios are of
such pairs, so other load on the machine meets both sides. The exit code is 1 when a registered rule is above 2 % at
the model's own vocabulary.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from calibrate.files import write_json
from calibrate.measuring.latency import device_name
from calibrate.measuring.stage import Stage
from calibrate.models.checkpoint import load_checkpoint
from calibrate.models.shapes import LLADA_MEDIUM, Shape
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.version import tool_version
from verify.decoding import DecodeConfig, decode
from verify.drafters.memory import KnownState
from verify.policies.contract import BlockView, Commits, Policy
from verify.policies.randomness import StepRandom
from verify.policies.registry import BUILT_IN
from verify.policies.specification import make_policy
from verify.ranked import RankedBlocks
from verify.ranking import gather_blocks, rank_rows

Clock = Callable[[], float]
LIMIT = 0.02
LENGTH, CONTEXT, TOP_J = 32, 64, 2
#: The rule whose decode gives the states: one position at a time.
STATES = "static:1"
DRAWN = ("static:1@temperature=1", "static:1@temperature=1,top_p=0.9", "credit:0.9@temperature=1")
#: How far below the best logit of a row the tokens stand that widen it: 126,464 of them have 3e-6 together.
BELOW = 25.0


@dataclass(frozen=True, eq=False)
class State:
    """A state of the block: ``masked`` offsets, int [m], ascending, and their ``logits``, float32 [m, V]."""

    masked: np.ndarray
    logits: torch.Tensor


class Watched:
    """A rule, and the states that it was shown."""

    needs = "logits"

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.seen: list[State] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        order = np.argsort(view.positions)
        self.seen.append(State(view.positions[order], torch.from_numpy(view.logits()[order]).float()))
        return self._policy.step(view, state, rng)


def recorded_states(spec: str, length: int) -> tuple[list[State], int]:
    """The states of one block of the bundled model under the rule ``spec``; and the id of its mask token."""
    checkpoint, rule = load_checkpoint("bundled"), Watched(make_policy(spec))
    denoiser = checkpoint.denoiser
    prompt = encode_prompts(load_prompt_set("bundled", "test", 1), checkpoint.tokenizer, denoiser.vocabulary_size)[0]
    decode(denoiser, prompt, cast(Policy, rule), DecodeConfig(length, length, "dual"))
    return rule.seen, denoiser.mask_token_id


class Chain:
    """The states of a block at one width of the vocabulary, ranked as the decode loop ranks them.

    Args:
        name: of the rule whose decode it is.
        states: in the order of the decode.
        mask_token_id: never a token.
        vocabulary: ``V``, at least that of ``states``; further tokens are next to improbable, the same in all states.
    """

    def __init__(self, name: str, states: Sequence[State], mask_token_id: int, vocabulary: int) -> None:
        self.name, self.vocabulary, self.mask_token_id = name, vocabulary, mask_token_id
        self.length = 1 + max(int(state.masked.max()) for state in states)
        narrow = states[0].logits.shape[1]
        if vocabulary < narrow:
            raise ValueError(f"the vocabulary is {vocabulary}, expected at least the {narrow} tokens of the states")
        noise = torch.randn(self.length, vocabulary - narrow, generator=torch.Generator().manual_seed(0))
        self.states = [
            State(
                one.masked,
                torch.cat([one.logits, noise[one.masked] + one.logits.amax(dim=1, keepdim=True) - BELOW], dim=1),
            )
            for one in states
        ]
        self._ranked: dict[tuple[int, bool], RankedBlocks] = {}

    def view(self, number: int, entropies: bool) -> BlockView:
        """A new view of a state, of which nothing was read yet."""
        state, key = self.states[number], (number, entropies)
        if key not in self._ranked:
            ranks = rank_rows(state.logits, self.mask_token_id, TOP_J, entropies)
            unit = np.zeros_like(state.masked)
            self._ranked[key] = gather_blocks(ranks, state.logits, unit, state.masked, 1, self.length)
        known = KnownState(np.zeros(self.length, dtype=np.int64), self._ranked[key], 0)
        return known.view(state.masked, self.mask_token_id)


def step_seconds(policy: Policy, chain: Chain, numbers: Sequence[int], clock: Clock) -> list[float]:
    """Seconds of ``policy.step`` at the states ``numbers``, in their order; its state is handed on between them."""
    spent, memory = [], policy.initial_state()
    for step, number in enumerate(numbers, start=1):
        view, random = chain.view(number, policy.needs == "entropy"), StepRandom(0, 0, 0, step)
        begin = clock()
        _, memory = policy.step(view, memory, random)
        spent.append(clock() - begin)
    return spent


def entropy_seconds(chain: Chain, numbers: Sequence[int], clock: Clock) -> list[float]:
    """Seconds that ranking takes longer with entropies than without, at every state."""
    spent = []
    for number in numbers:
        logits, seconds = chain.states[number].logits, []
        for entropies in (False, True):
            begin = clock()
            rank_rows(logits, chain.mask_token_id, TOP_J, entropies)
            seconds.append(clock() - begin)
        spent.append(seconds[1] - seconds[0])
    return spent


@dataclass(frozen=True, eq=False)
class Job:
    """A rule at one width; ``registered`` where it is an example of the registry."""

    policy: Policy
    chain: Chain
    registered: bool

    @property
    def numbers(self) -> list[int]:
        """The states it is measured at. Drawing tokens is slow, and at eight even states costs as much on average."""
        count = len(self.chain.states)
        some = count if self.registered else min(8, count)
        return [round(number) for number in np.linspace(0, count - 1, some).tolist()]


def jobs_of(chains: Sequence[Chain], own: Sequence[Chain] = (), drawn: Sequence[str] = DRAWN) -> list[Job]:
    """Every example of the registry, once, at every width that it notices; then the ``drawn`` ones.

    ``own`` are chains of a rule's own decode.
    """
    examples = [make_policy(text) for rule in BUILT_IN.values() for text in rule.examples]
    jobs = []
    for policy in {one.spec: one for one in examples}.values():
        mine = [chain for chain in own if chain.name == policy.spec]
        jobs += [Job(policy, chain, True) for chain in (chains[-1:] if policy.needs == "ranks" else [*chains, *mine])]
    return jobs + [Job(make_policy(text), chain, False) for text in drawn for chain in chains]


def measure(jobs: Sequence[Job], forward: Callable[[], float], rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """One row per job, from ``rounds`` rounds behind one that warms up; ``forward`` gives seconds."""
    order = np.random.default_rng(0)
    spent: list[list[list[float]]] = [[] for _ in jobs]
    extra: list[list[list[float]]] = [[] for _ in jobs]
    forwards: list[list[float]] = [[] for _ in jobs]
    for turn in range(rounds + 1):
        charged: dict[int, list[float]] = {}
        for k in order.permutation(len(jobs)).tolist():
            job = jobs[k]
            paid = forward()
            steps = step_seconds(job.policy, job.chain, job.numbers, clock)
            more = [0.0] * len(steps)
            if job.policy.needs == "entropy":  # the same for all rules of a round
                width = job.chain.vocabulary
                if width not in charged:
                    charged[width] = entropy_seconds(job.chain, job.numbers, clock)
                more = charged[width]
            if turn:
                forwards[k].append(paid)
                spent[k].append(steps)
                extra[k].append(more)
    return [_row(job, np.array(spent[k]), np.array(extra[k]), np.array(forwards[k])) for k, job in enumerate(jobs)]


def _row(job: Job, steps: np.ndarray, extra: np.ndarray, forwards: np.ndarray) -> dict[str, Any]:
    """The numbers of a job, of seconds: ``steps`` and ``extra`` float64 [rounds, states], ``forwards`` [rounds]."""
    total = steps + extra
    shares = total.mean(axis=1) / forwards
    low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75]).tolist()
    return {
        "policy": job.policy.spec,
        "reads": job.policy.needs,
        "registered": job.registered,
        "vocabulary": None if job.policy.needs == "ranks" else job.chain.vocabulary,
        "states_of": job.chain.name,
        "states": steps.shape[1],
        "step_ms": round(1e3 * float(np.median(steps.mean(axis=1))), 4),
        "entropies_ms": round(1e3 * float(np.median(extra.mean(axis=1))), 4),
        "dearest_state_ms": round(1e3 * float(np.median(total, axis=0).max()), 4),
        "forward_ms": round(1e3 * float(np.median(forwards)), 2),
        "share_of_a_forward": round(middle, 5),
        "quartiles": [round(low, 5), round(high, 5)],
        "within_limit": middle <= LIMIT,
    }


def run(shape: Shape, vocabularies: Sequence[int], rounds: int, clock: Clock = time.process_time) -> dict[str, Any]:
    """Measure all: the content of the result file."""
    load_before = os.getloadavg()[0]
    states, mask = recorded_states(STATES, LENGTH)
    checkpoint = shape.make(dtype="float32")
    stage = Stage(checkpoint, LENGTH, CONTEXT, 1, "packed", 0, clock=clock)
    stage.refresh()
    chains = [Chain(STATES, states, mask, vocabulary) for vocabulary in vocabularies]
    readers = [job.policy.spec for job in jobs_of(chains[:1], drawn=()) if job.policy.needs == "logits"]
    decodes = {spec: recorded_states(spec, LENGTH)[0] for spec in readers}
    own = [Chain(spec, seen, mask, width) for spec, seen in decodes.items() for width in vocabularies]
    rows = measure(jobs_of(chains, own), lambda: stage.step(0) / 1e3, rounds, clock)
    missed = [row for row in rows if row["registered"] and not row["within_limit"]]
    return {
        "what": "processor time of one step of every rule, as a share of one forward of the model",
        "device": device_name(torch.device("cpu")),
        "machine": f"{os.cpu_count()} cores, shared; load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after",
        "unit": "processor milliseconds of one thread, means over the states of a block; medians and quartiles over "
        "rounds; a share is of the forward measured right before",
        "model": shape.name,
        "parameters": shape.parameters(),
        "dtype": checkpoint.dtype,
        "block_length": LENGTH,
        "context_length": stage.context_length,
        "top_j": TOP_J,
        "masked": {STATES: [len(one.masked) for one in states]}
        | {spec: [len(one.masked) for one in seen] for spec, seen in decodes.items()},
        "rounds": rounds,
        "versions": {"draftgraph": tool_version(), "torch": torch.__version__, "numpy": np.__version__},
        "limit": LIMIT,
        "passed": not any(row["vocabulary"] in (None, vocabularies[0]) for row in missed),
        "missed": [[row["policy"], row["vocabulary"], row["states_of"]] for row in missed],
        "rows": rows,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the result, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="rounds behind the one that warms up")
    parser.add_argument("--vocabularies", default="8192,126464", help="widths of the logits, the model's own first")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rule_cost.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    content = run(LLADA_MEDIUM, [int(width) for width in options.vocabularies.split(",")], options.rounds)
    table = Table("vocabulary", "step, ms", "entropies, ms", "dearest, ms", "of a forward", "quartiles")
    table.add_column("rule", overflow="fold")
    for row in content["rows"]:
        low, high = row["quartiles"]
        table.add_row(
            "any" if row["vocabulary"] is None else f"{row['vocabulary']:,}", f"{row['step_ms']:.3f}",
            f"{row['entropies_ms']:.3f}" if row["reads"] == "entropy" else "", f"{row['dearest_state_ms']:.3f}",
            f"{row['share_of_a_forward']:.2%}", f"{low:.2%} to {high:.2%}",
            row["policy"] + (", its own decode" if row["states_of"] == row["policy"] != STATES else ""),
            style=None if row["within_limit"] else "red",
        )  # fmt: skip
    Console(width=120).print(table)
    write_json(options.out, content)
    return 0 if content["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
