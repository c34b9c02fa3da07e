"""What a decode tells those who watch it: its denoising steps as they happened, and all that its forwards evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from verify.ranked import RankedBlocks


@dataclass(frozen=True, eq=False)
class StepFact:
    """One denoising step as it happened; array shapes as in ``calibrate.traces.table.Traces``."""

    prompt_index: int
    block: int
    step: int
    masked_position: np.ndarray
    top_token: np.ndarray
    top_probability: np.ndarray
    commit_position: np.ndarray
    commit_token: np.ndarray
    event: str


class Observer(Protocol):
    """Is told of every denoising step; steps of one prompt come in order, those of a batch interleave."""

    def on_step(self, fact: StepFact) -> None: ...


@dataclass(frozen=True, eq=False)
class ForwardFact:
    """What one forward evaluated for a sequence.

    Attributes:
        prompt_index: the prompt's number.
        block: 0-based number of the block being solved.
        states: int64 [1 + D, L], the reached state, then the drafts.
        bridges: int64 [K, 2, L], this block as it may end, and a state of the next one behind it.
        ranked: the distributions of the states, then those of the bridges' next blocks.
    """

    prompt_index: int
    block: int
    states: np.ndarray
    bridges: np.ndarray
    ranked: RankedBlocks


class ForwardObserver(Protocol):
    """Is told of every forward before its distributions are used, accepted or not."""

    def on_forward(self, fact: ForwardFact) -> None: ...
