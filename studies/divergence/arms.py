"""Decoding the same prompts in several ways that exact arithmetic could not tell apart.

The reference is plain decoding, one sequence at a time. Against it stand

* ``repeat``: the same once more. Zero, unless the device does not repeat itself;
* ``batch``: plain decoding, several sequences per forward. What every engine's users live with;
* ``blank``: plain decoding with blank drafts: forwards have the rows that the graph's drafts would have, but each of
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
from verify.drafters.graph import GraphDrafter
from verify.drafts import DraftFiller
from verify.policies.contract import Policy
from verify.ranked import AnchorRanks, LaggedRanker, Ranker

REPEAT, BATCH, BLANK, DRAFTS = "repeat", "batch", "blank", "drafts"
ARMS = (REPEAT, BATCH, BLANK, DRAFTS)


class BlankRanker(LaggedRanker):
    """Names the mask token at every rank, so that every draft is a copy of the real block and none is ever accepted."""

    def __init__(self, mask_token_id: int) -> None:
        self.mask_token_id = mask_token_id

    def rank(self, *args: Any, **kwargs: Any) -> AnchorRanks:
        ranks = super().rank(*args, **kwargs)
        return AnchorRanks(ranks.positions, np.full_like(ranks.tokens, self.mask_token_id))


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
    """What all ways of decoding share: model, prompts (token ids), policy, lengths and cache mode, drafts."""

    denoiser: Denoiser
    prompts: Sequence[Sequence[int]]
    policy: Policy
    config: DecodeConfig
    filler: DraftFiller


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
    graph = setting.filler if name in (BLANK, DRAFTS) else DraftFiller(())
    ranker = BlankRanker(setting.denoiser.mask_token_id) if name == BLANK else None
    start = time.perf_counter()
    results = _decode_all(setting, size, finder, on_prompt, graph, ranker)
    return ArmRun(name, size, results, finder.divergences, time.perf_counter() - start)


def _decode_all(
    setting: Setting,
    batch: int,
    observer: Observer,
    on_prompt: Callable[[], None] | None,
    graph: DraftFiller | None = None,
    ranker: Ranker | None = None,
) -> list[DecodeResult]:
    """All prompts through one loop, whatever the batch, so that nothing but what is asked for differs."""
    found: dict[int, DecodeResult] = {}
    for prompt_index, result in decode_batch(
        setting.denoiser, list(enumerate(setting.prompts)), setting.policy, setting.config,
        GraphDrafter(graph or (), ranker),
        batch_size=batch, observer=observer,
    ):  # fmt: skip
        found[prompt_index] = result
        if on_prompt is not None:
            on_prompt()
    return [found[prompt_index] for prompt_index in range(len(setting.prompts))]
