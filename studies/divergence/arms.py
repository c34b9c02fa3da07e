"""Decoding the same prompts in several ways that exact arithmetic could not tell apart.

The reference is plain decoding, one sequence at a time. Against it stand

* ``repeat``: the same once more. Zero, unless the device does not repeat itself;
* ``batch``: plain decoding, several sequences per forward. What every engine's users live with;
* ``blank``: plain decoding with blank drafts: forwards have the rows that the drafter's drafts would have, but each of
  them is a copy of the real block, which no step can lead to, so none is ever accepted. What wider forwards alone do;
* ``drafts``: speculation, one sequence at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.divergence.divergences import Decision, DecisionRecorder, Divergence, DivergenceFinder
from verify.decoding import DecodeConfig, DecodeResult, Observer, StepFact, decode_batch
from verify.denoiser import Denoiser
from verify.drafters.contract import Drafter, Evidence, Proposal, SequenceDrafter
from verify.policies.contract import Policy
from verify.ranked import RankedBlocks

REPEAT, BATCH, BLANK, DRAFTS = "repeat", "batch", "blank", "drafts"
ARMS = (REPEAT, BATCH, BLANK, DRAFTS)


class BlankDrafter:
    """Proposes a copy of the real block for every draft that another drafter proposes, so that none is ever accepted.

    A bridge becomes a copy with the masked next block behind it. The other drafter is shown the real block only, as
    blank drafts teach nothing.
    """

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter

    @property
    def max_drafts(self) -> int:
        return self._drafter.max_drafts

    @property
    def max_bridges(self) -> int:
        return self._drafter.max_bridges

    @property
    def max_vocabulary_rank(self) -> int:
        return self._drafter.max_vocabulary_rank

    @property
    def copies(self) -> bool:
        return self._drafter.copies

    def describe(self) -> dict[str, Any]:
        return {"drafter": "blank", "instead_of": self._drafter.describe()}

    def for_sequence(self) -> _Blank:
        return _Blank(self._drafter.for_sequence())


class _Blank:
    """See :class:`BlankDrafter`; one sequence."""

    remembers = False

    def __init__(self, drafter: SequenceDrafter) -> None:
        self._drafter = drafter

    def start_block(self) -> None:
        self._drafter.start_block()

    def learn(self, states: np.ndarray, ranked: RankedBlocks, policy: Policy, mask_token_id: int) -> None:
        self._drafter.learn(states[:1], ranked, policy, mask_token_id)

    def propose(self, evidence: Evidence) -> Proposal:
        proposed, block = self._drafter.propose(evidence), evidence.block
        pair = np.stack([block, np.full_like(block, evidence.mask_token_id)])
        return Proposal(
            np.repeat(block[None], len(proposed.drafts), axis=0), np.repeat(pair[None], len(proposed.bridges), axis=0)
        )


class Tee:
    """An observer that tells several."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def on_step(self, fact: StepFact) -> None:
        for observer in self.observers:
            observer.on_step(fact)


@dataclass(frozen=True, eq=False)
class Reference:
    """Plain decoding at batch 1: results by prompt, and every decision of every prompt."""

    results: list[DecodeResult]
    decisions: dict[int, list[Decision]]


@dataclass(frozen=True, eq=False)
class ArmRun:
    """One way to decode the prompts.

    Attributes:
        name: one of ``ARMS``.
        batch: sequences per forward, at most.
        results: by prompt.
        divergences: by prompt, where its path leaves the reference's; prompts that never do have none.
        seconds: wall time of the whole arm, on whatever machine this was.
    """

    name: str
    batch: int
    results: list[DecodeResult]
    divergences: dict[int, Divergence]
    seconds: float


@dataclass(frozen=True, eq=False)
class Setting:
    """What all ways of decoding share: model, prompts (token ids), policy, lengths and cache mode, drafter."""

    denoiser: Denoiser
    prompts: Sequence[Sequence[int]]
    policy: Policy
    config: DecodeConfig
    drafter: Drafter


def run_reference(
    setting: Setting, *, observer: Observer | None = None, on_prompt: Callable[[], None] | None = None
) -> Reference:
    """Decode all prompts plainly, one by one, and keep every decision; ``observer`` is told of the steps too."""
    recorder = DecisionRecorder()
    watching = recorder if observer is None else Tee(recorder, observer)
    results = _decode_all(setting, 1, watching, on_prompt)
    return Reference(results, dict(recorder.decisions))


def run_arm(
    name: str,
    setting: Setting,
    reference: Reference,
    *,
    batch: int = 1,
    on_prompt: Callable[[], None] | None = None,
) -> ArmRun:
    """Decode all prompts in one of the ways of ``ARMS`` and find where they part from the reference.

    Args:
        name: which way.
        setting: as for the reference.
        reference: what to compare with.
        batch: sequences per forward for ``batch``; the other ways take one.
        on_prompt: called after every prompt.

    Raises:
        ValueError: an unknown way, or ``batch`` with fewer than two sequences or prompts.
        verify.decoding.DecodeError: as in :func:`verify.decoding.decode`.
    """
    if name not in ARMS:
        raise ValueError(f"unknown way to decode {name!r}, expected one of {', '.join(ARMS)}")
    size = min(batch, len(setting.prompts)) if name == BATCH else 1
    if name == BATCH and size < 2:
        raise ValueError(
            f"a batch of {batch} over {len(setting.prompts)} prompts is no other shape than batch 1; expected at least "
            "2 of both"
        )
    finder = DivergenceFinder(reference.decisions, setting.policy)
    drafters = {BLANK: BlankDrafter(setting.drafter), DRAFTS: setting.drafter}
    start = time.perf_counter()
    results = _decode_all(setting, size, finder, on_prompt, drafters.get(name))
    return ArmRun(name, size, results, finder.divergences, time.perf_counter() - start)


def _decode_all(
    setting: Setting,
    batch: int,
    observer: Observer,
    on_prompt: Callable[[], None] | None,
    drafter: Drafter | None = None,
) -> list[DecodeResult]:
    """All prompts through one loop, whatever the batch, so that nothing but what is asked for differs."""
    found: dict[int, DecodeResult] = {}
    for prompt_index, result in decode_batch(
        setting.denoiser, list(enumerate(setting.prompts)), setting.policy, setting.config,
        () if drafter is None else drafter,
        batch_size=batch, observer=observer,
    ):  # fmt: skip
        found[prompt_index] = result
        if on_prompt is not None:
            on_prompt()
    return [found[prompt_index] for prompt_index in range(len(setting.prompts))]
