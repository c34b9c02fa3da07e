"""Drafts by prediction: the chain of states that the policy will probably reach, from what the block has shown so far.

Nothing is calibrated. Every evaluated state, accepted or not, teaches how commits move the rest of the block
(``verify.drafters.influence``). From the newest distribution the next states are predicted one after the other, by the
policy itself on the predicted confidences; states that are known already are walked through for free, with their real
distributions. When the chain ends (the block would be complete), the rows left go to the alternatives that came
nearest to being chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from verify.drafters.contract import Evidence, Proposal
from verify.drafters.influence import Influences, Outlook
from verify.drafters.memory import KnownState, StateMemory
from verify.policies.contract import BlockView, Policy, PolicyError
from verify.ranked import RankedBlocks

#: Pairs in a learned set at most; a rule that commits one pair a step needs no larger ones.
LARGEST_SET = 4
#: Steps without a commit after which a chain is not followed further.
MAX_WAITS = 8


class InformedDrafter:
    """Proposes up to ``drafts`` predicted states at every anchor.

    Args:
        drafts: drafts per forward at most, ``D``; a bridge counts as one of them.
        bridges: whether a chain may lead on into the next block, in cache modes where this is possible.

    Raises:
        ValueError: a negative number of drafts.
    """

    max_vocabulary_rank = 1

    def __init__(self, drafts: int, bridges: bool = True) -> None:
        if isinstance(drafts, bool) or not isinstance(drafts, int) or drafts < 0:
            raise ValueError(f"drafts is {drafts!r}, expected a whole number of at least 0")
        self._drafts, self._bridges = drafts, bridges

    @property
    def max_drafts(self) -> int:
        return self._drafts

    @property
    def max_bridges(self) -> int:
        return self._drafts if self._bridges else 0

    def describe(self) -> dict[str, Any]:
        return {"drafter": "informed", "drafts": self._drafts, "bridges": self._bridges}

    def for_sequence(self) -> _Informed:
        return _Informed(self._drafts, self._bridges)


class _Informed:
    """See :class:`InformedDrafter`; one sequence."""

    remembers = True

    def __init__(self, drafts: int, bridges: bool) -> None:
        self._drafts, self._bridges = drafts, bridges
        self._influences = Influences()

    def start_block(self) -> None:
        self._influences.forget()

    def learn(self, states: np.ndarray, ranked: RankedBlocks, policy: Policy, mask_token_id: int) -> None:
        self._influences.learn(states, ranked, 1 if policy.step_size == 1 else LARGEST_SET, mask_token_id)

    def propose(self, evidence: Evidence) -> Proposal:
        chain = _Chain(evidence, self._influences, self._bridges)
        while chain.count < self._drafts and chain.grow():
            pass
        chain.fill(self._drafts)
        return Proposal.of(np.array(chain.drafts, dtype=np.int64).reshape(-1, len(evidence.block)), chain.bridges)


class _Chain:
    """The predicted next states from one anchor on.

    Attributes:
        drafts: the states that are not known yet, in the order of the chain, then alternatives.
        bridges: the same in the next block, each with the block that it stands behind.
    """

    def __init__(self, evidence: Evidence, influences: Influences, bridges: bool) -> None:
        self._evidence, self._influences = evidence, influences
        self.drafts: list[np.ndarray] = []
        self.bridges: list[tuple[np.ndarray, np.ndarray]] = []
        self._ahead = evidence.ahead if bridges else None
        self._filling = False
        self._complete: np.ndarray | None = None  # this block as it will end, once the chain is in the next one
        self._memory: StateMemory | None = evidence.known
        self._taken = {evidence.block.tobytes()}
        self._alternatives: list[tuple[float, np.ndarray, np.ndarray, np.ndarray]] = []
        self._state, self._masked = evidence.block, evidence.masked
        self._known: KnownState | None = None
        self._policy_state, self._random = evidence.policy_state, evidence.random
        base = evidence.base
        committed = np.flatnonzero(evidence.block != base.tokens)
        self._count = max(1, len(committed))
        self._outlook = influences.expect(Outlook.of(base.ranked, base.index), committed, evidence.block[committed])
        self._waits = 0

    @property
    def count(self) -> int:
        """Drafts and bridges so far."""
        return len(self.drafts) + len(self.bridges)

    def grow(self) -> bool:
        """Go one predicted step on; False when the chain is at its end."""
        masked = self._masked
        order = masked[np.argsort(-self._outlook.odds[masked], kind="stable")]
        chosen, tokens = self._step(order)
        self._random = self._random.after()
        if len(chosen) == 0:  # the rule waits a step; a rule with a history may go on afterwards
            self._waits += 1
            return self._waits < MAX_WAITS
        if self._complete is None:
            self._note_alternatives(order, len(chosen))
        state = self._state.copy()
        state[chosen] = tokens
        if len(chosen) == len(masked):
            return self._cross(state)
        self._state, self._masked = state, masked[state[masked] == self._evidence.mask_token_id]
        self._known = self._memory.find(state) if self._memory is not None else None
        if self._known is not None:
            self._outlook = Outlook.of(self._known.ranked, self._known.index)
        else:
            self._add(state)
            ascending = np.sort(chosen)
            self._outlook = self._influences.expect(self._outlook, ascending, state[ascending])
        return True

    def fill(self, drafts: int) -> None:
        """Give what is left of ``drafts`` to the alternatives that came nearest to being chosen."""
        if self.count >= drafts:
            return
        self._filling = True
        for _, base, chosen, tokens in sorted(self._alternatives, key=lambda found: found[0]):
            if self.count >= drafts:
                return
            state = base.copy()
            state[chosen] = tokens
            if (state == self._evidence.mask_token_id).any():
                if self._evidence.known.find(state) is None:
                    self._add(state)
            elif self._ahead is not None and state.tobytes() not in self._ahead and not self._evidence.ends(state):
                self._bridge(state, np.full_like(state, self._evidence.mask_token_id))

    def _cross(self, block: np.ndarray) -> bool:
        """The chain completes the block as ``block``; go on in the next one, where that can be."""
        if self._ahead is None or self._complete is not None or self._evidence.ends(block):
            return False
        self._complete = block
        self._memory = self._ahead.get(block.tobytes())
        self._state = np.full_like(block, self._evidence.mask_token_id)
        self._masked = np.arange(len(block))
        self._random = self._random.next_block()
        self._known = self._memory.find(self._state) if self._memory is not None else None
        if self._known is None:  # nothing is known of the next block yet: its first state is the bridge, and the last
            self._bridge(block, self._state)
            return False
        self._outlook = Outlook.of(self._known.ranked, self._known.index)
        return True

    def _bridge(self, block: np.ndarray, state: np.ndarray) -> None:
        key = block.tobytes() + state.tobytes()
        if key not in self._taken:
            self._taken.add(key)
            self.bridges.append((block, state))

    def _add(self, state: np.ndarray) -> None:
        if self._complete is not None and not self._filling:
            self._bridge(self._complete, state)
            return
        key = state.tobytes()
        if key not in self._taken:
            self._taken.add(key)
            self.drafts.append(state)

    def _step(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the policy commits next: exact at a known state, else under the expected confidences."""
        policy, mask = self._evidence.policy, self._evidence.mask_token_id
        if self._known is not None:
            view = self._known.view(self._masked, mask)
        elif policy.needs == "top_j":
            view = _expected_view(self._outlook, order)
        else:  # a rule that reads logits, or draws tokens: as many as it took last, the most confident first
            return order[: self._count], self._outlook.token[order[: self._count]]
        try:
            commits, self._policy_state = policy.step(view, self._policy_state, self._random)
        except PolicyError:  # it compares more ranks than are expected here
            return order[: self._count], self._outlook.token[order[: self._count]]
        return np.asarray(commits.positions), np.asarray(commits.tokens)

    def _note_alternatives(self, order: np.ndarray, count: int) -> None:
        """The nearest other choices of a step that takes ``count`` of the positions in ``order``.

        Where every step commits the same count, the last one is swapped for the next best. Else one more is taken, or
        one fewer; how near that was is the distance of its log-odds to the threshold, or to the last one taken.
        """
        policy, odds = self._evidence.policy, self._outlook.odds
        last = odds[order[count - 1]]
        if policy.step_size is not None:
            if count < len(order):
                self._note(last - odds[order[count]], np.append(order[: count - 1], order[count]))
            return
        tau = getattr(policy, "tau", 1.0)
        edge = np.log(tau) - np.log1p(-tau) if tau < 1 else last
        if count < len(order):
            self._note(abs(edge - odds[order[count]]), order[: count + 1])
        if count > 1:
            self._note(abs(last - edge), order[: count - 1])

    def _note(self, gap: float, chosen: np.ndarray) -> None:
        if len(chosen) < len(self._masked) or self._ahead is not None:
            self._alternatives.append((gap, self._state, chosen, self._outlook.token[chosen]))


def _expected_view(outlook: Outlook, order: np.ndarray) -> BlockView:
    """The block as a policy would see it if everything came as expected; one vocabulary rank."""
    # Influences add up, so odds may leave the range of exp; below -700 the probability is 0 anyhow.
    probability = 1 / (1 + np.exp(-np.maximum(outlook.odds[order], -700.0)))
    return BlockView(order, outlook.token[order, None], probability[:, None], _no_logits)


def _no_logits() -> np.ndarray:
    raise PolicyError("an expected state has no logits")
