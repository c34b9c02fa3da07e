"""The chain: from a state to the one that the policy will probably reach next, and so on.

A step from a state that is known is exact: the policy sees its real distribution. From any other the policy sees the
confidences that the learned influences predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.drafters.contract import Evidence
from verify.drafters.influence import Influences, Outlook
from verify.drafters.memory import KnownState, StateMemory
from verify.policies.contract import BlockView, PolicyError
from verify.policies.randomness import StepRandom

#: Steps without a commit after which a chain is not followed further.
MAX_WAITS = 8

#: What a policy raises that asks more of a view than one expected rank holds: a PolicyError, which is a ValueError, as
#: the contract has it; a second rank that is not there; a sum of confidences that is 0. Others are mistakes of the
#: policy whatever it looks at (TypeError, AttributeError), and hiding them would help nobody.
UNREADABLE = (ValueError, LookupError, ArithmeticError)


@dataclass(eq=False, slots=True)
class Place:
    """Where a chain stands.

    Attributes:
        state: int64 [L], the state.
        masked: int [m], its masked offsets, ascending.
        outlook: what is expected of its distribution; None where nothing is, and the chain ends.
        known: the state as it is remembered; None where it was never evaluated.
        policy_state: the policy's state before its step there.
        random: the noise of that step.
        waits: steps without a commit so far.
        complete: int64 [L], the block as it ends, where ``state`` is one of the next block; else None.
        memory: the known states of the block that ``state`` is of.
    """

    state: np.ndarray
    masked: np.ndarray
    outlook: Outlook | None
    known: KnownState | None
    policy_state: Any
    random: StepRandom
    waits: int
    complete: np.ndarray | None
    memory: StateMemory | None


@dataclass(eq=False, slots=True)
class Step:
    """A step that a chain took.

    Attributes:
        place: where it was taken.
        order: int [m], the masked offsets there, the most confident first.
        chosen: int [c], the offsets committed; at least one.
        tokens: int [c], with which tokens.
        policy_state: the policy's state afterwards.
        random: the noise of the step that was taken; behind the place's own where the policy waited.
        waits: steps without a commit so far.
    """

    place: Place
    order: np.ndarray
    chosen: np.ndarray
    tokens: np.ndarray
    policy_state: Any
    random: StepRandom
    waits: int


class Predictor:
    """Predicts, from what is known at one anchor, what follows any state of the block."""

    def __init__(self, evidence: Evidence, influences: Influences, bridges: bool) -> None:
        self._evidence, self._influences = evidence, influences
        self.ahead = evidence.ahead if bridges else None
        self.copies = evidence.copies
        base = evidence.base
        committed = np.flatnonzero(evidence.block != base.tokens)
        self._count = max(1, len(committed))
        outlook = influences.expect(Outlook.of(base.ranked, base.index), committed, evidence.block[committed])
        self.start = Place(
            evidence.block, evidence.masked, outlook, None, evidence.policy_state, evidence.random, 0, None,
            evidence.known,
        )  # fmt: skip

    def step(self, place: Place) -> Step | None:
        """What the policy commits next; None where nothing is expected, or the policy waits for too long."""
        outlook = place.outlook
        if outlook is None:
            return None
        masked, policy_state, random, waits = place.masked, place.policy_state, place.random, place.waits
        order = masked[(-outlook.odds[masked]).argsort(kind="stable")]
        while True:
            chosen, tokens, policy_state = self._commits(place, order, policy_state, random)
            if len(chosen):
                return Step(place, order, chosen, tokens, policy_state, random, waits)
            waits += 1  # a rule with a history may go on afterwards
            if waits >= max(MAX_WAITS, getattr(self._evidence.policy, "longest_pause", 0)):
                return None
            random = random.after()

    def reach(self, step: Step, chosen: np.ndarray, tokens: np.ndarray) -> Place | None:
        """Where committing ``tokens`` (int [c]) at ``chosen`` (int [c]) leads, in the place of what ``step`` commits.

        None where the block would be complete and the chain cannot lead on into the next one.
        """
        place = step.place
        state = place.state.copy()
        state[chosen] = tokens
        if len(chosen) == len(place.masked):
            return self._cross(step, state)
        if len(chosen) == 1:
            masked = place.masked[place.masked != chosen[0]]
        else:
            masked = place.masked[state[place.masked] == self._evidence.mask_token_id]
        known = place.memory.find(state) if place.memory is not None else None
        if known is not None:
            outlook = Outlook.of(known.ranked, known.index)
        else:
            assert place.outlook is not None  # a step was taken there
            ascending = np.sort(chosen) if len(chosen) > 1 else chosen
            outlook = self._influences.expect(place.outlook, ascending, state[ascending])
        return Place(
            state, masked, outlook, known, step.policy_state, step.random.after(), step.waits, place.complete,
            place.memory,
        )  # fmt: skip

    def behind(self, block: np.ndarray) -> tuple[np.ndarray, StateMemory | None, KnownState | None] | None:
        """The first state of the next block if this one ends as ``block`` (int64 [L]), and what is known there.

        None where no bridge can lead there.
        """
        if self.ahead is None or self._evidence.ends(block):
            return None
        state = np.full_like(block, self._evidence.mask_token_id)
        memory = self.ahead.get(block.tobytes())
        return state, memory, memory.find(state) if memory is not None else None

    def _cross(self, step: Step, block: np.ndarray) -> Place | None:
        """The first place in the next block, where this one may end as ``block`` and more can be said."""
        first = self.behind(block) if step.place.complete is None else None
        if first is None:
            return None
        state, memory, known = first
        # Nothing is known of a next block that no forward has seen: its first state is proposed, and the chain ends.
        outlook = Outlook.of(known.ranked, known.index) if known is not None else None
        return Place(
            state, np.arange(len(block)), outlook, known, step.policy_state, step.random.next_block(), step.waits,
            block, memory,
        )  # fmt: skip

    def _commits(
        self, place: Place, order: np.ndarray, policy_state: Any, random: StepRandom
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        """Positions, tokens and the policy's state: exact at a known state, else under the expected confidences."""
        policy, mask, outlook = self._evidence.policy, self._evidence.mask_token_id, place.outlook
        assert outlook is not None
        guess = order[: self._count]
        if place.known is not None:
            view = place.known.view(place.masked, mask)
        elif policy.needs == "ranks" and policy.ranks == 1:
            view = expected_view(outlook, order)
        else:  # a rule that reads more than is expected, or draws tokens: as many as last, the most confident first
            return guess, outlook.token[guess], policy_state
        try:
            commits, after = policy.step(view, policy_state, random)
        except UNREADABLE:  # the decode itself never sees this view, so it must not fail for it
            return guess, outlook.token[guess], policy_state
        return np.asarray(commits.positions), np.asarray(commits.tokens), after


def expected_view(outlook: Outlook, order: np.ndarray) -> BlockView:
    """The block as a policy would see it if everything came as expected; one vocabulary rank."""
    # Influences add up, so odds may leave the range of exp; below -700 the probability is 0 anyhow.
    probability = outlook.odds[order]
    np.maximum(probability, -700.0, out=probability)
    np.exp(np.negative(probability, out=probability), out=probability)
    probability += 1.0
    np.divide(1.0, probability, out=probability)
    return BlockView(order, outlook.token[order, None], probability[:, None], _no_logits)


def _no_logits() -> np.ndarray:
    raise PolicyError("an expected state has no logits")
