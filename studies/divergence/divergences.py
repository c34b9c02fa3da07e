"""Where two decodes of one prompt part, and how close the decision was there.

Two decodes that should be the same are followed step by step. As long as all commits are equal both stand at the same
state, so the first step at which their commits differ is a decision that both took about one state under distributions
that differ by rounding only: the *divergence*. Whatever differs after it follows from it. Some divergences heal
(the same positions in another order end in the same tokens); whether the tokens differ in the end is kept apart.

The **margin** of a divergence is how far rounding had to move the reference's numbers to change the decision. All are
differences of probabilities under the *reference's* distribution at that step:

* "another token": both commit a position with different tokens. Margin: top-1 minus top-2 probability there.
* "another position": both commit as many positions, not the same ones. Margin: the confidence of the least confident
  position that only the reference commits, minus that of the most confident one that only the other commits.
* "commits more", "commits fewer": the other decode commits more or fewer positions. Margin: the distance to the
  threshold of the confidence, among the positions that only one of the two commits, that lies nearest to it.

When several apply, the first of this list is meant. A margin is None where the rule does not decide by these numbers:
tokens sampled at a temperature, an order by margin or entropy, a count that depends on no threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from verify.decoding import StepFact
from verify.policies.confidence import Dynamic, Quota, StaticTopK, Threshold
from verify.policies.contract import Policy
from verify.policies.dream import Dream

ANOTHER_TOKEN, ANOTHER_POSITION = "another token", "another position"
COMMITS_MORE, COMMITS_FEWER = "commits more", "commits fewer"
KINDS = (ANOTHER_TOKEN, ANOTHER_POSITION, COMMITS_MORE, COMMITS_FEWER)


@dataclass(frozen=True, eq=False)
class Decision:
    """One denoising step with what its margin is made of; ``m`` masked positions, the most confident first.

    Attributes:
        block, step: of the sequence, and of the block (from 1).
        positions: int [m], masked offsets in the block.
        confidence: float64 [m], top-1 probability.
        runner_up: float64 [m], top-2 probability; NaN where the vocabulary ranks end before.
        commits: offset -> token.
    """

    block: int
    step: int
    positions: np.ndarray
    confidence: np.ndarray
    runner_up: np.ndarray
    commits: dict[int, int]

    @classmethod
    def of(cls, fact: StepFact) -> Decision:
        """The decision of a step, in arrays of its own."""
        probability = fact.top_probability
        missing = np.full(len(probability), np.nan)
        return cls(
            block=fact.block,
            step=fact.step,
            positions=np.array(fact.masked_position),
            confidence=np.array(probability[:, 0], dtype=np.float64),
            runner_up=np.array(probability[:, 1], dtype=np.float64) if probability.shape[1] > 1 else missing,
            commits=dict(zip(fact.commit_position.tolist(), fact.commit_token.tolist(), strict=True)),
        )

    def place(self, position: int) -> int:
        """The index of a masked offset in the arrays."""
        return int(np.flatnonzero(self.positions == position)[0])

    def commits_the_best(self) -> bool:
        """Whether the committed positions are the most confident ones."""
        return set(self.positions[: len(self.commits)].tolist()) == set(self.commits)


@dataclass(frozen=True)
class Divergence:
    """The first step at which a decode commits something else than the reference.

    Attributes:
        prompt_index: the prompt.
        block, step: the block, from 0, and its denoising step, from 1.
        kind: one of ``KINDS``.
        position: offset in the block of the decision: of the token, of the position that only the reference commits,
            or of the one nearest to the threshold.
        other_position: of the position that the other commits instead, for "another position".
        margin: see the module; None where it is not defined.
        noise: the largest difference between the two decodes in the confidence of any masked position at this step.
    """

    prompt_index: int
    block: int
    step: int
    kind: str
    position: int
    other_position: int | None
    margin: float | None
    noise: float


class DecisionRecorder:
    """An observer that keeps the decisions of every prompt, in order."""

    def __init__(self) -> None:
        self.decisions: dict[int, list[Decision]] = defaultdict(list)

    def on_step(self, fact: StepFact) -> None:
        self.decisions[fact.prompt_index].append(Decision.of(fact))


class DivergenceFinder:
    """An observer that follows decodes along recorded ones and keeps where each of them parts first.

    Args:
        reference: the decisions of every prompt.
        policy: of both.

    Attributes:
        divergences: by prompt index; a prompt that never parts has none.
    """

    def __init__(self, reference: dict[int, list[Decision]], policy: Policy) -> None:
        self.divergences: dict[int, Divergence] = {}
        self._reference, self._policy = reference, policy
        self._seen: dict[int, int] = defaultdict(int)

    def on_step(self, fact: StepFact) -> None:
        if fact.prompt_index in self.divergences:
            return
        # While nothing has parted both decodes have the same states, so the reference has this step too.
        mine = self._reference[fact.prompt_index][self._seen[fact.prompt_index]]
        self._seen[fact.prompt_index] += 1
        other = Decision.of(fact)
        if other.commits != mine.commits:
            self.divergences[fact.prompt_index] = part(fact.prompt_index, mine, other, self._policy)


def part(prompt_index: int, reference: Decision, other: Decision, policy: Policy) -> Divergence:
    """Describe the divergence of two decisions about one state; their commits must differ."""
    if (reference.block, reference.step) != (other.block, other.step):
        raise ValueError(
            f"step {other.step} of block {other.block} cannot be compared with step {reference.step} of block "
            f"{reference.block}; the decodes must have been equal so far"
        )
    ours, theirs = set(reference.commits), set(other.commits)
    both = [p for p in reference.positions.tolist() if p in ours & theirs]
    changed = [p for p in both if reference.commits[p] != other.commits[p]]
    lost = [p for p in reference.positions.tolist() if p in ours - theirs]  # the most confident first, as all below
    won = [p for p in reference.positions.tolist() if p in theirs - ours]
    other_position: int | None = None
    margin: float | None = None
    if changed:
        kind, position = ANOTHER_TOKEN, changed[0]
        k = reference.place(position)
        if policy.temperature == 0 and np.isfinite(reference.runner_up[k]):
            margin = float(reference.confidence[k] - reference.runner_up[k])
    elif len(ours) == len(theirs):
        kind, position, other_position = ANOTHER_POSITION, lost[-1], won[0]
        if orders_by_confidence(policy) and reference.commits_the_best() and other.commits_the_best():
            gap = reference.confidence[reference.place(position)] - reference.confidence[reference.place(won[0])]
            margin = float(gap)
    else:
        kind = COMMITS_MORE if len(theirs) > len(ours) else COMMITS_FEWER
        tau = threshold_of(policy)
        if tau is None:
            position = (won or lost)[0] if kind == COMMITS_MORE else (lost or won)[-1]
        else:
            distance, position = min((abs(reference.confidence[reference.place(p)] - tau), p) for p in lost + won)
            margin = float(distance)
    return Divergence(
        prompt_index=prompt_index,
        block=reference.block,
        step=reference.step,
        kind=kind,
        position=position,
        other_position=other_position,
        margin=margin,
        noise=_noise(reference, other),
    )


def orders_by_confidence(policy: Policy) -> bool:
    """Whether a rule takes top-1 tokens in the order of their whole probabilities, and their count from nothing else
    than a schedule or a threshold of these."""
    if not isinstance(policy, StaticTopK | Quota | Threshold | Dynamic | Dream) or not policy.sampling.plain:
        return False
    return getattr(policy, "order", "confidence") == "confidence"


def threshold_of(policy: Policy) -> float | None:
    """The confidence threshold of a rule that decides by one alone and takes top-1 tokens."""
    return policy.tau if isinstance(policy, Threshold | Dynamic) and orders_by_confidence(policy) else None


def _noise(reference: Decision, other: Decision) -> float:
    ours, theirs = np.argsort(reference.positions), np.argsort(other.positions)
    return float(np.abs(reference.confidence[ours] - other.confidence[theirs]).max(initial=0.0))


def decision_margins(decisions: Iterable[Decision], policy: Policy) -> np.ndarray:
    """How close every decision was, whether or not any decode parted there: float64, one per step that has a margin.

    The smallest of: the lead of the committed tokens over their runners-up; where positions are left, the lead of the
    last position committed over the next one; under a threshold, the distance to it of these two instead, as far as
    the rule would heed it. Empty for rules that do not decide by these numbers.
    """
    if not orders_by_confidence(policy):
        return np.zeros(0)
    tau = threshold_of(policy)
    found = [_closest(decision, tau) for decision in decisions if decision.commits and decision.commits_the_best()]
    return np.array([margin for margin in found if np.isfinite(margin)])


def _closest(decision: Decision, tau: float | None) -> float:
    """The margin of one decision whose commits are its first positions; infinity where nothing could change it."""
    count, confidence = len(decision.commits), decision.confidence
    lead = confidence[:count] - decision.runner_up[:count]
    margins = [float(np.nanmin(lead))] if np.isfinite(lead).any() else []
    last = float(confidence[count - 1])
    following = float(confidence[count]) if count < len(confidence) else None
    if tau is not None and last >= tau:
        # The best position is committed whatever its confidence; only further ones can fall out.
        margins += [last - tau] if count > 1 else []
    elif following is not None:
        margins.append(last - following)
    if tau is not None and following is not None:
        margins.append(tau - following)
    return min(margins, default=float("inf"))
