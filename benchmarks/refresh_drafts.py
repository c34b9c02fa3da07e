"""Where prefix and suffix are cached: do drafts in the refresh forward pay, or copies that save it?

    python benchmarks/refresh_drafts.py [--prompts 16] [--out FILE]

In dual cache mode a block's refresh computes the whole sequence. Rows of drafts beside it, at the positions of the
block, which see the rows of prefix and suffix of the same forward and themselves, see the very keys and values that
this forward caches. So they may be accepted, and the only question is what to draft: no distribution of the block is
known yet. Three guesses, and one that cannot be had:

* ``stale``: the block's distribution as the refresh of the block before saw it, with all of that block masked. No rows.
* ``deep``: ``L`` more rows in a step forward whose drafts reach the last step of the block. They stand for the next
  block and see the deepest draft instead of the block.
* ``behind``: the same behind the block as it will probably end, 2 ``L`` rows.
* ``true``: the distribution that the refresh itself computes. A bound for all guesses.

These are simulated on top of informed drafts. What is counted is what a runtime would pay: a draft in a refresh costs
``L`` query tokens. Where the simulation calls the model more often, two calls stand for one: the drafts of a refresh
are evaluated by a step forward over what that refresh has cached, which computes the same.

``copies`` is no simulation: ``InformedSettings(copies=True)`` computes the whole next refresh in a step forward, of
the sequence with the block as it will probably end (docs/method.md).

More query tokens buy fewer forwards also as more drafts per step, so informed drafts with one draft more stand beside.
Ratios are paired over prompts, with 95 % intervals from resampling prompts. The exit code is 1 when any token differs
from plain decoding.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.version import tool_version
from studies.statistics.intervals import PromptBootstrap
from verify.decoding import DecodeConfig, DecodeResult, decode_batch
from verify.denoiser import SlotDenoiser, cached_rows
from verify.drafters.contract import Evidence, Proposal
from verify.drafters.informed import InformedDrafter
from verify.drafters.memory import KnownState, StateMemory
from verify.drafters.settings import InformedSettings
from verify.engines.contract import BatchLogits
from verify.engines.copy_slots import CopyingSlotEngine
from verify.engines.rows import RowEngine
from verify.layout import SequenceLayout, exactness
from verify.policies.contract import Policy
from verify.policies.randomness import StepRandom
from verify.policies.specification import make_policy
from verify.ranking import RankedBlocks, gather_blocks, rank_rows
from verify.sequence import DecodeRules, SequenceDecoder

#: (policy, block length, budgets)
CELLS = (
    ("static:1", 32, (5, 10)),
    ("static:1", 16, (10,)),
    ("static:1", 8, (10,)),
    ("threshold:0.9", 32, (10,)),
    ("threshold:0.9", 16, (10,)),
)
SIMULATED = ("stale", "deep", "behind", "true")
GENERATION, TOP_J = 96, 8


class LookingAhead(InformedDrafter):
    """Informed drafts that also note how the block will probably end, where they reach its end."""

    def for_sequence(self) -> _LookingAhead:
        return _LookingAhead(self.max_drafts)


class _LookingAhead:
    """See :class:`LookingAhead`.

    Attributes:
        end: int64 [L], the block as it will probably end; None where the drafts do not reach so far, or where it ends
            the sequence.
    """

    remembers = True

    def __init__(self, drafts: int) -> None:
        # The end is the first bridge of the same chain with room for one more.
        self._inner = InformedDrafter(drafts).for_sequence(), InformedDrafter(drafts + 1).for_sequence()
        self.end: np.ndarray | None = None

    def start_block(self) -> None:
        self.end = None
        for inner in self._inner:
            inner.start_block()

    def learn(self, states: np.ndarray, ranked: RankedBlocks, policy: Policy, mask_token_id: int) -> None:
        for inner in self._inner:
            inner.learn(states, ranked, policy, mask_token_id)

    def propose(self, evidence: Evidence) -> Proposal:
        bridges = self._inner[1].propose(replace(evidence, ahead={}, copies=True)).bridges
        self.end = bridges[0, 0] if len(bridges) else None
        return self._inner[0].propose(evidence)


class Simulation:
    """One prompt decoded as a runtime with drafts in the refresh would decode it.

    Args:
        checkpoint: the model.
        rules: of the decode; its drafter is a :class:`LookingAhead`.
        config: lengths; the cache mode is ``dual``.
        variant: one of ``SIMULATED``.
    """

    def __init__(self, checkpoint: Checkpoint, rules: DecodeRules, config: DecodeConfig, variant: str) -> None:
        self.denoiser, self.rules, self.config, self.variant = checkpoint.denoiser, rules, config, variant
        self.engine = RowEngine(self.denoiser, "dual", "packed")
        self.length = config.block_length
        self.guesses = 0  # forwards that paid for a guess

    @torch.inference_mode()
    def decode(self, prompt: Sequence[int], number: int) -> DecodeResult:
        """Decode ``prompt``, number ``number``."""
        layout = SequenceLayout.make(len(prompt), self.config.generation_length, self.length, "dual")
        self.engine.open(0, number, layout)
        self.sequence = SequenceDecoder(self.rules, prompt, layout, number)
        self.guess: RankedBlocks | None = None
        self.guess_of: bytes | None = None
        while not self.sequence.done:
            if self.sequence.refresh_due:
                self._refresh()
            else:
                self._step()
        return self.sequence.result(exactness("dual", "packed"))

    def _refresh(self) -> None:
        one = self.sequence
        result = self.engine.refresh([0], [one.tokens], [one.start])
        own = result.rank(self.rules.mask_token_id, TOP_J)[0]
        rows = result.query_tokens[0]
        guess = own if self.variant == "true" else self.guess
        if guess is not None:
            drafts = self._propose(guess)
            one.states = np.concatenate([one.block[None], drafts])
            own = self.engine.step([0], [one.states]).rank(self.rules.mask_token_id, TOP_J)[0]
            rows += len(drafts) * self.length
        self.guess = self.guess_of = None
        if self.variant == "stale" and not self._last():
            self.guess = self._whole(one.tokens, one.start + self.length)
        one.advance(own, rows)

    def _step(self) -> None:
        one = self.sequence
        result = self.engine.step([0], [one.states])
        ranked, rows = result.rank(self.rules.mask_token_id, TOP_J)[0], result.query_tokens[0]
        end = one._drafter.end
        wanted = end is not None and not self._last() and end.tobytes() != self.guess_of
        if wanted and self.variant in ("deep", "behind"):
            self.guesses, self.guess_of = self.guesses + 1, end.tobytes()
            before = end
            if self.variant == "deep":
                before = one.states[np.count_nonzero(one.states == self.rules.mask_token_id, axis=1).argmin()]
            self.guess = self._behind(before, self.variant == "behind")
            rows += (1 + (self.variant == "behind")) * self.length
        one.advance(ranked, rows)

    def _last(self) -> bool:
        return self.sequence._number + 1 == len(self.sequence.layout.block_starts)

    def _propose(self, guess: RankedBlocks) -> np.ndarray:
        """Drafts int64 [D, L] of the block whose refresh is due, under the guessed distribution."""
        one, rules = self.sequence, self.rules
        return one._drafter.propose(
            Evidence(
                block=one.block.copy(),
                masked=one._masked,
                base=KnownState(one.block.copy(), guess, 0),
                known=StateMemory(),
                policy=rules.policy,
                policy_state=one._policy_state,
                random=StepRandom(rules.seed, one.prompt_index, one._number, one._step_number + 1),
                mask_token_id=rules.mask_token_id,
                ahead=None,
                ends=one._ends,
            )
        ).drafts

    def _whole(self, tokens: np.ndarray, start: int) -> RankedBlocks:
        """The distribution of the masked block at ``start`` in a forward over the whole sequence."""
        rows = torch.arange(len(tokens))
        mask = torch.ones(1, len(tokens), len(tokens), dtype=torch.bool)
        block = rows[start : start + self.length]
        logits, _ = self.denoiser(torch.from_numpy(tokens.copy())[None], rows[None], mask, None, logit_rows=block)
        return self._ranks_of(logits[0])

    def _behind(self, before: np.ndarray, both: bool) -> RankedBlocks:
        """The masked next block behind ``before``, over what is cached but for the next block's own rows.

        ``both``: whether ``before`` sees the next block too.
        """
        start, length, cache = self.sequence.start, self.length, self.engine._frames[0].cache
        cached = cached_rows(cache)
        tokens = torch.from_numpy(np.concatenate([before, np.full(length, self.rules.mask_token_id)]))
        mask = torch.ones(2 * length, cached + 2 * length, dtype=torch.bool)
        mask[length:, start : start + length] = False  # the suffix follows the prefix: here the next block is cached
        if both:
            mask[:length, start : start + length] = False
        else:
            mask[:length, cached + length :] = False
        positions = torch.arange(start, start + 2 * length)
        logits, _ = self.denoiser(
            tokens[None], positions[None], mask[None], cache, logit_rows=torch.arange(length, 2 * length)
        )
        return self._ranks_of(logits[0])

    def _ranks_of(self, logits: torch.Tensor) -> RankedBlocks:
        ranks = rank_rows(logits, self.rules.mask_token_id, TOP_J)
        return gather_blocks(ranks, None, np.zeros(self.length, dtype=int), np.arange(self.length), 1, self.length)


class CountingEngine(CopyingSlotEngine):
    """Counts copies made, and refreshes that they saved."""

    made = saved = 0

    def step(self, slots: Any, states: Any, bridges: Any = None) -> BatchLogits:
        mask = self.denoiser.mask_token_id
        self.made += sum(self._copies.wanted(k, b, mask) is not None for k, b in zip(slots, bridges, strict=True))
        return super().step(slots, states, bridges)

    def cross(self, slot: int, sequence: np.ndarray, start: int) -> None:
        self.saved += 1
        super().cross(slot, sequence, start)


def measure(checkpoint: Checkpoint, cell: tuple[str, int, tuple[int, ...]], options: argparse.Namespace) -> Any:
    """One cell: informed drafts as they are, with larger budgets, every simulated variant, and copies."""
    spec, length, budgets = cell
    policy, denoiser = make_policy(spec), checkpoint.denoiser
    config = DecodeConfig(length, GENERATION, "dual", end_token_ids=checkpoint.end_token_ids, top_j=TOP_J)
    prompts = list(enumerate(encode_prompts(
        load_prompt_set("bundled", "test", options.prompts), checkpoint.tokenizer, denoiser.vocabulary_size
    )))  # fmt: skip
    layouts = [SequenceLayout.make(len(prompt), GENERATION, length, "dual") for _, prompt in prompts]

    def decoded(drafts: Any, engine: Any = None) -> dict[int, DecodeResult]:
        return dict(decode_batch(denoiser, prompts, policy, config, drafts, engine=engine))

    plain = decoded(())
    rows: list[dict[str, Any]] = []
    for budget in budgets:
        base = decoded(InformedDrafter(budget))

        def note(
            name: str, found: dict[int, DecodeResult], base: Any = base, budget: int = budget, **more: int
        ) -> None:
            rows.append({"budget": budget, "variant": name} | compared(plain, base, found) | more)
            print(spec, length, json.dumps(rows[-1]), flush=True)

        note("informed", base)
        note("informed, D + 1", decoded(InformedDrafter(budget + 1)))
        for name in SIMULATED:
            rules = DecodeRules(
                policy, LookingAhead(budget), denoiser.mask_token_id, denoiser.vocabulary_size, config.end_token_ids,
                config.seed, None,
            )  # fmt: skip
            simulation = Simulation(checkpoint, rules, config, name)
            found = {k: simulation.decode(prompt, k) for k, prompt in prompts}
            note(name, found, guesses_paid=simulation.guesses)
        drafter = InformedDrafter(budget, InformedSettings(copies=True))
        engine = CountingEngine(cast(SlotDenoiser, denoiser), "dual", "packed", 1, layouts, budget, drafter.max_bridges)
        found = decoded(drafter, engine)
        note("copies", found, copies_paid=engine.made, refreshes_saved=engine.saved)
    return {"policy": spec, "block_length": length, "rows": rows}


def compared(
    plain: dict[int, DecodeResult], base: dict[int, DecodeResult], found: dict[int, DecodeResult]
) -> dict[str, Any]:
    """Forwards and query tokens, and both paired with those of ``base``."""
    prompts = sorted(found)

    def column(results: dict[int, DecodeResult], name: str) -> np.ndarray:
        return np.array([getattr(results[k], name) for k in prompts], dtype=float)

    bootstrap = PromptBootstrap(len(prompts))
    one = np.ones(len(prompts))
    forwards, tokens = (
        bootstrap.ratio_quotient((column(found, name), one), (column(base, name), one))
        for name in ("forwards", "query_tokens")
    )
    total = column(found, "forwards").sum()
    return {
        "prompts": len(prompts),
        "tokens_identical": sum(found[k].tokens == plain[k].tokens for k in prompts),
        "plain_forwards": int(column(plain, "forwards").sum()),
        "forwards": int(total),
        "forwards_saved": [round(1 - value, 4) for value in (forwards.estimate, forwards.high, forwards.low)],
        "query_tokens_more": [round(value - 1, 4) for value in (tokens.estimate, tokens.low, tokens.high)],
        "query_tokens_per_forward": round(column(found, "query_tokens").sum() / total, 1),
    }


def main() -> int:
    """Measure every cell, write the file, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=16, help="held-out prompts")
    parser.add_argument("--cells", type=int, nargs="*", help="numbers of the cells to run, from 0; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "refresh_drafts.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("bundled")
    cells = []
    for number in options.cells if options.cells else range(len(CELLS)):
        cells.append(measure(checkpoint, CELLS[number], options))
        write_json(
            options.out,
            {
                "what": "drafts in the refresh (simulated) and copies (decoded), on informed drafts, dual cache",
                "device": "cpu",
                "dtype": "float32",
                "machine": f"{platform.system()} {platform.machine()}, one thread",
                "model_revision": checkpoint.revision,
                "prompts": options.prompts,
                "generation_length": GENERATION,
                "versions": {"draftgraph": tool_version(), "torch": torch.__version__},
                "cells": cells,
            },
        )
    return 0 if all(row["tokens_identical"] == row["prompts"] for cell in cells for row in cell["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
