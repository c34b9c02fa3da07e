"""The contract of drafters: what a forward evaluates beside the real block.

A drafter may propose any states of the block. Whatever it proposes, the tokens are those of plain decoding, because the
policy only ever sees distributions of states that were really evaluated. What it proposes decides how many forwards are
saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from verify.drafters.memory import KnownState, StateMemory
from verify.policies.contract import Policy
from verify.policies.randomness import StepRandom
from verify.ranked import RankedBlocks


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
        ahead: what is known of the next block: by the tokens of this block when it is complete (``tobytes()``), the
            states of the next one that were evaluated behind it. None where no bridge can be built: there is no next
            block, or the cache mode computes it together with everything else.
        copies: whether the first bridge behind a complete block is a copy, of the whole sequence (dual cache mode). One
            copy is held, and ``ahead`` has its block alone; a bridge behind another block replaces it.
        ends: whether a complete block, int64 [L], ends the sequence; no bridge leads on from it.
    """

    block: np.ndarray
    masked: np.ndarray
    base: KnownState
    known: StateMemory
    policy: Policy
    policy_state: Any
    random: StepRandom
    mask_token_id: int
    ahead: Mapping[bytes, StateMemory] | None
    ends: Callable[[np.ndarray], bool]
    copies: bool = False


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a forward evaluates beside the real block.

    Attributes:
        drafts: int64 [D, L], states of the block; distinct, none of them complete. Each costs ``L`` query tokens.
        bridges: int64 [K, 2, L]: the block as it may end, and a state of the next block behind it. Each costs ``2 L``
            query tokens. If the block really ends so, the next block needs no refresh forward. Where
            :attr:`Evidence.copies`, all stand behind the same block; while no copy of it is held, there is one, to the
            masked next block, which costs the rows of the whole sequence; then each costs ``L``.
    """

    drafts: np.ndarray
    bridges: np.ndarray

    @classmethod
    def of(cls, drafts: np.ndarray, bridges: Sequence[tuple[np.ndarray, np.ndarray]] = ()) -> Proposal:
        """A proposal of ``drafts``, int64 [D, L], and of pairs of blocks."""
        return cls(drafts, np.array(bridges, dtype=np.int64).reshape(-1, 2, drafts.shape[1]))


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
        """A forward evaluated ``states`` of the block (int64 [n, L], the reached one first).

        ``ranked`` holds their distributions, at the same indices.
        """
        ...

    def propose(self, evidence: Evidence) -> Proposal:
        """What to evaluate beside ``evidence.block``: at most ``max_drafts`` drafts and ``max_bridges`` bridges."""
        ...


def most_bridges(drafter: Drafter, cache: str, offers_copies: bool = True, schedule: str | None = None) -> int:
    """The most bridges of ``drafter`` at an anchor in a cache mode; ``offers_copies``: whether the model does.

    None under a ``schedule``: how long the next block is follows from its first distribution, which a bridge is to get.
    """
    if schedule is not None:
        return 0
    possible = cache == "block_causal" or (cache == "dual" and drafter.copies and offers_copies)
    return drafter.max_bridges if possible else 0


class Drafter(Protocol):
    """Makes a :class:`SequenceDrafter` for every sequence.

    Attributes:
        max_drafts: the most drafts that it proposes at an anchor.
        max_bridges: the most bridges that it proposes at an anchor.
        max_vocabulary_rank: the highest vocabulary rank that it reads, at least 1.
        copies: whether it proposes bridges in dual cache mode, too.
    """

    @property
    def max_drafts(self) -> int: ...

    @property
    def max_bridges(self) -> int: ...

    @property
    def max_vocabulary_rank(self) -> int: ...

    @property
    def copies(self) -> bool: ...

    def describe(self) -> dict[str, Any]:
        """What this drafter is, as plain JSON values: two drafters of one description propose the same."""
        ...

    def for_sequence(self) -> SequenceDrafter:
        """A drafter for a new sequence, which knows nothing yet."""
        ...
