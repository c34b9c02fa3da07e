"""Rules by confidence: the best k, all above a threshold, counts from a schedule, and SDAR's dynamic mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.policies.contract import BlockView, Commits, proposals
from verify.policies.randomness import StepRandom
from verify.policies.schedules import even_quotas


@dataclass(frozen=True)
class StaticTopK:
    """Commit the ``k`` most confident masked positions, or all that are left when fewer are (LLaDA, SDAR static)."""

    k: int
    temperature: float = 0.0
    scope = "block"
    monotone = True
    may_do_nothing = False

    @property
    def spec(self) -> str:
        return f"static:{self.k}"

    @property
    def needs(self) -> str:
        return "logits" if self.stochastic else "top_j"

    @property
    def stochastic(self) -> bool:
        return self.temperature > 0

    @property
    def step_size(self) -> int | None:
        return self.k

    def initial_state(self) -> None:
        return None

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        positions, tokens, _ = proposals(view, self.temperature, rng)
        return Commits(positions[: self.k], tokens[: self.k]), state


@dataclass(frozen=True)
class Threshold:
    """Commit the most confident masked position always, and every one with confidence >= ``tau`` (Fast-dLLM)."""

    tau: float
    temperature: float = 0.0
    scope = "block"
    monotone = True
    may_do_nothing = False

    @property
    def spec(self) -> str:
        short = f"{self.tau:g}"
        return f"threshold:{short if float(short) == self.tau else repr(self.tau)}"

    @property
    def needs(self) -> str:
        return "logits" if self.stochastic else "top_j"

    @property
    def stochastic(self) -> bool:
        return self.temperature > 0

    @property
    def step_size(self) -> int | None:
        return None

    def initial_state(self) -> None:
        return None

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        positions, tokens, confidence = proposals(view, self.temperature, rng)
        count = max(1, int(np.count_nonzero(confidence >= self.tau)))
        return Commits(positions[:count], tokens[:count]), state


@dataclass(frozen=True)
class _Counted:
    """What the rules below share: block by block, monotone, at least one commit a step, counts that vary."""

    temperature: float
    scope = "block"
    monotone = True
    may_do_nothing = False
    step_size = None

    @property
    def stochastic(self) -> bool:
        return self.temperature > 0

    @property
    def needs(self) -> str:
        return "logits" if self.stochastic else "top_j"

    def initial_state(self) -> int:
        """The state is the number of positions masked when the block began; before the first block there is none."""
        return 0

    @staticmethod
    def masked_at_start(view: BlockView, state: int, rng: StepRandom) -> int:
        return len(view.positions) if rng.step == 1 else state


def _quota(quotas: tuple[int, ...], step: int) -> int:
    """The count of a 1-based step; a block that outlives its schedule goes on with the last count."""
    return quotas[min(step, len(quotas)) - 1]


@dataclass(frozen=True)
class Quota(_Counted):
    """Commit the most confident positions, as many as :func:`verify.policies.schedules.even_quotas` gives this step.

    ``positions`` is what the steps are counted from; None takes what is masked when the block begins.
    """

    steps: int = 1
    positions: int | None = None

    @property
    def spec(self) -> str:
        return f"quota:{_fraction(self.steps, self.positions)}"

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        state = self.masked_at_start(view, state, rng)
        count = _quota(even_quotas(self.positions or state, self.steps), rng.step)
        positions, tokens, _ = proposals(view, self.temperature, rng)
        return Commits(positions[:count], tokens[:count]), state


@dataclass(frozen=True)
class Dynamic(_Counted):
    """Commit every position with confidence > ``tau`` when these are at least the step's quota, else the quota's best.

    Strictly greater, unlike ``threshold``. The quota is 1 (``steps`` is None), ``steps`` positions (``positions`` is
    None), or ``positions`` spread over ``steps``.
    """

    tau: float = 1.0
    count: int = 1
    steps: int | None = None
    positions: int | None = None

    @property
    def spec(self) -> str:
        head = f"dynamic:{_number(self.tau)}"
        if self.steps is not None:
            return f"{head}:{_fraction(self.steps, self.positions)}"
        return head if self.count == 1 else f"{head}:{self.count}"

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        state = self.masked_at_start(view, state, rng)
        count = self.count
        if self.steps is not None:
            count = _quota(even_quotas(self.positions or state, self.steps), rng.step)
        positions, tokens, confidence = proposals(view, self.temperature, rng)
        count = max(count, int(np.count_nonzero(confidence > self.tau)))
        return Commits(positions[:count], tokens[:count]), state


def _fraction(steps: int, positions: int | None) -> str:
    return f"{steps}" if positions is None else f"{steps}/{positions}"


def _number(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
