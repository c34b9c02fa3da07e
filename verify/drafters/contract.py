"""The contract of drafters: what a forward evaluates beside the real block.

A drafter may propose any states of the block. Whatever it proposes, the tokens are those of plain decoding, because the
policy only ever sees distributions of states that were really evaluated. What it proposes decides how many forwards are
saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from verify.drafters.memory import KnownState, StateMemory
from verify.policies.contract import Policy
from verify.policies.randomness import StepRandom
from verify.ranking import RankedBlocks


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a drafter is told at an anchor.

    Attributes:
        block: int64 [L], the reached state ``R``; its distribution is not known yet, and it is never a draft.
        masked: int [m], the offsets still masked in it, ascending; at least one.
        base: the state whose distribution the last step used: ``R`` is ``base`` plus what that step committed.
        known: every state of the block that is remembered.
        policy: the unmasking policy.
        policy_state: its state after the last step; never changed in place.
        random: the noise of the next step; later steps follow by :meth:`StepRandom.after`.
        mask_token_id: the model's.
    """

    block: np.ndarray
    masked: np.ndarray
    base: KnownState
    known: StateMemory
    policy: Policy
    policy_state: Any
    random: StepRandom
    mask_token_id: int


class SequenceDrafter(Protocol):
    """A drafter at work on one sequence.

    Attributes:
        remembers: whether the walk may go on through every known state of the block. False keeps it to the states of
            the newest forward, which is what a replay of plain traces predicts.
    """

    remembers: bool

    def start_block(self) -> None:
        """A new block begins: what was learned of the old one no longer holds, as other keys are cached now."""
        ...

    def learn(self, states: np.ndarray, ranked: RankedBlocks, policy: Policy, mask_token_id: int) -> None:
        """A forward evaluated ``states`` (int64 [1 + D, L], the reached one first) with the distributions
        ``ranked``.
        """
        ...

    def propose(self, evidence: Evidence) -> np.ndarray:
        """The states to evaluate beside ``evidence.block``: int64 [D', L], distinct, none of them complete.

        D' is at most the drafter's ``max_drafts``; each costs ``L`` query tokens.
        """
        ...


class Drafter(Protocol):
    """Makes a :class:`SequenceDrafter` for every sequence.

    Attributes:
        max_drafts: the most drafts that it proposes at an anchor.
        max_vocabulary_rank: the highest vocabulary rank that it reads, at least 1.
    """

    @property
    def max_drafts(self) -> int: ...

    @property
    def max_vocabulary_rank(self) -> int: ...

    def for_sequence(self) -> SequenceDrafter:
        """A drafter for a new sequence, which knows nothing yet."""
        ...
