"""Rules by confidence: the best k, all above a threshold, counts from a schedule, and SDAR's dynamic mixture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from verify.policies.base import BasePolicy, Candidates, CountedPolicy
from verify.policies.contract import Policy
from verify.policies.orders import ORDER, OrderedPolicy
from verify.policies.parameters import Number, Steps, Whole, write_arguments
from verify.policies.randomness import StepRandom
from verify.policies.rule import Rule
from verify.policies.sampling import Sampling
from verify.policies.schedules import even_quotas, quota

_TAU = Number("tau")


@dataclass(frozen=True)
class StaticTopK(OrderedPolicy):
    """Commit the ``k`` most confident masked positions, or all that are left when fewer are (LLaDA, SDAR static).

    Another ``order`` than by confidence is one of :data:`verify.policies.orders.ORDERS`.
    """

    k: int
    order: str = "confidence"
    name = "static"
    parameters = (Whole("k"), ORDER)

    @property
    def step_size(self) -> int:
        return self.k

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[int, Any]:
        return self.k, state


@dataclass(frozen=True)
class Threshold(BasePolicy):
    """Commit the most confident masked position always, and every one with confidence >= ``tau`` (Fast-dLLM)."""

    tau: float
    name = "threshold"
    parameters = (_TAU,)

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[int, Any]:
        return max(1, int(np.count_nonzero(found.confidences >= self.tau))), state


@dataclass(frozen=True)
class Quota(OrderedPolicy, CountedPolicy):
    """Commit the most confident positions, as many as an even schedule over ``steps`` steps gives this one.

    The schedule is :func:`verify.policies.schedules.even_quotas`. ``positions`` is what the steps are counted from;
    None takes what is masked when the block begins. ``order`` is as in :class:`StaticTopK`.
    """

    steps: int
    positions: int | None = None
    order: str = "confidence"
    name = "quota"
    parameters = (Steps("S/L", lone="S"), ORDER)

    def arguments(self) -> list[str]:
        steps = self.steps if self.positions is None else (self.steps, self.positions)
        return write_arguments(self.parameters, [steps, self.order])

    def count(self, found: Candidates, masked: int, step: int) -> int:
        return quota(even_quotas(self.positions or masked, self.steps), step)


@dataclass(frozen=True)
class Dynamic(CountedPolicy):
    """Commit every position with confidence > ``tau`` when these are at least the step's quota, else the quota's best.

    Strictly greater, unlike ``threshold``. The quota is an integer, or (S, L): L positions spread over S steps.
    """

    tau: float
    quota: int | tuple[int, int] = 1
    name = "dynamic"
    parameters = (_TAU, Steps("S/L", lone="k", default=1))

    def count(self, found: Candidates, masked: int, step: int) -> int:
        if isinstance(self.quota, int):
            least = self.quota
        else:
            least = quota(even_quotas(self.quota[1], self.quota[0]), step)
        return max(least, int(np.count_nonzero(found.confidences > self.tau)))


def _even(steps: int | tuple[int, int]) -> int | None:
    """The count of every step where it is the same in all of them; None where it is not."""
    if isinstance(steps, int) or steps[1] % steps[0]:
        return None
    return steps[1] // steps[0]


def _quota(steps: int | tuple[int, int], order: str = "confidence", *, sampling: Sampling) -> Policy:
    """``quota:S`` or ``quota:S/L``; SDAR counts from the block, the prompt's tail included."""
    if (each := _even(steps)) is not None:
        return StaticTopK(each, order, sampling=sampling)
    counted, positions = (steps, None) if isinstance(steps, int) else steps
    return Quota(counted, positions, order, sampling=sampling)


def _low_confidence(steps: tuple[int, int], order: str = "confidence", *, sampling: Sampling) -> Policy:
    """LLaDA counts from what is masked, which is its whole block."""
    return _quota(steps if _even(steps) is not None else steps[0], order, sampling=sampling)


def _dynamic(tau: float, least: int | tuple[int, int], *, sampling: Sampling) -> Policy:
    each = _even(least)
    return Dynamic(tau, least if each is None else each, sampling=sampling)


_LLADA = "LLaDA (arXiv 2502.09992), generate.py, remasking low_confidence"
_SDAR = "SDAR (arXiv 2510.06303), generate.py, remasking_strategy"
_FAST = "Fast-dLLM (arXiv 2505.22618), generate.py of its LLaDA loop, threshold"

RULES = (
    Rule.of(StaticTopK, _LLADA, ["static:1", "static:1:margin", "static:1:entropy"]),
    Rule.of(Threshold, _FAST, ["threshold:0.9"]),
    replace(Rule.of(Quota, _LLADA, ["quota:8", "quota:8:margin", "quota:8:entropy"]), make=_quota),
    replace(Rule.of(Dynamic, _SDAR, ["dynamic:0.9"]), make=_dynamic),
    Rule(
        "low_confidence", (Steps("S/L"),), _low_confidence, "LLaDA: S steps per block of L.", _LLADA,
        ("low_confidence:8/32",), stands_for="static, quota",
    ),
    Rule(
        "low_confidence_static", (Steps("S/L"),), _quota, "SDAR: S steps per block of L, counted from a full block.",
        f"{_SDAR} low_confidence_static", ("low_confidence_static:4/4",), stands_for="static, quota",
    ),
    Rule(
        "low_confidence_dynamic", (_TAU, Steps("S/L", default=1)), _dynamic,
        "SDAR, LLaDA2: all above tau, if as many as the step's quota.",
        f"{_SDAR} low_confidence_dynamic", ("low_confidence_dynamic:0.9",), stands_for="dynamic",
    ),
    Rule(
        "confidence_threshold", (_TAU,), Threshold, "Fast-dLLM: the best, and all of at least tau.", _FAST,
        ("confidence_threshold:0.9",), stands_for="threshold",
    ),
    Rule(
        "random", (Steps("S/L"),), partial(_low_confidence, order="random"),
        "LLaDA: S steps per block of L, in random order.", _LLADA.replace("low_confidence", "random"),
        ("random:8/32",), stands_for="static, quota",
    ),
    Rule(
        "sequential", (Steps("S/L"),), partial(_quota, order="left_to_right"),
        "SDAR: S steps per block of L, left to right.", f"{_SDAR} sequential",
        ("sequential:4/4",), stands_for="static, quota",
    ),
)  # fmt: skip
