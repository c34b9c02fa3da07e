"""The decode rules of published loops, and their names: LLaDA, Fast-dLLM, SDAR, LLaDA2, Dream (docs/models.md).

====================================  =============================  ==================================================
published name, as an alias           is here                        rule
====================================  =============================  ==================================================
``low_confidence:S/L``                ``static:L/S``, ``quota:S``    LLaDA: S steps per block of L
``low_confidence_static:S/L``         ``static:L/S``, ``quota:S/L``  SDAR: the same, counted from a full block
``low_confidence_dynamic:tau[:S/L]``  ``dynamic:tau[:k | :S/L]``     SDAR, LLaDA2: all above tau, if as many as static
``confidence_threshold:tau``          ``threshold:tau``              Fast-dLLM: the best, and all of at least tau
``maskgit_plus:S[:eps]``              ``dream:confidence:S[:eps]``   Dream: by probability, S steps of its time schedule
``topk_margin:S[:eps]``               ``dream:margin:S[:eps]``       Dream: by the lead over the second token
``entropy:S[:eps]``                   ``dream:entropy:S[:eps]``      Dream: by negative entropy
====================================  =============================  ==================================================

``static:L/S`` stands where S divides L, as every step then commits the same count. None of these rules looks back:
the only history is how many positions were masked when the block began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.policies import BlockView, Commits, Policy, PolicyError, StaticTopK, Threshold, proposals
from verify.randomness import StepRandom
from verify.schedules import even_quotas, timed_quotas

ORDERS = ("confidence", "margin", "entropy")
DREAM_EPS = 1e-3


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
    """Commit the most confident positions, as many as :func:`verify.schedules.even_quotas` gives this step.

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


@dataclass(frozen=True)
class Dream(_Counted):
    """Commit the best positions in ``order``, as many as Dream's time schedule gives this step.

    ``confidence`` is the probability of the token, ``margin`` its lead over the second one, ``entropy`` the negative
    entropy of the distribution; all under the distribution at the temperature, from which tokens are sampled above 0.
    """

    order: str = "confidence"
    steps: int = 1
    eps: float = DREAM_EPS

    @property
    def spec(self) -> str:
        tail = "" if self.eps == DREAM_EPS else f":{_number(self.eps)}"
        return f"dream:{self.order}:{self.steps}{tail}"

    @property
    def needs(self) -> str:
        return "logits" if self.stochastic or self.order == "entropy" else "top_j"

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        state = self.masked_at_start(view, state, rng)
        count = _quota(timed_quotas(state, self.steps, self.eps), rng.step)
        tokens, score = self._scored(view, rng)
        order = np.lexsort((view.positions, -score))[:count]
        return Commits(view.positions[order], tokens[order]), state

    def _scored(self, view: BlockView, rng: StepRandom) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int [m] and scores float64 [m] of the masked positions, in the view's order."""
        if self.needs == "top_j":
            if self.order == "confidence":
                return view.tokens[:, 0], view.probabilities[:, 0]
            if view.probabilities.shape[1] < 2:
                raise PolicyError("the margin order compares two tokens; keep at least two vocabulary ranks (top_j)")
            return view.tokens[:, 0], view.probabilities[:, 0] - view.probabilities[:, 1]
        logits = view.logits() / (self.temperature or 1.0)
        probability = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        tokens = view.tokens[:, 0]
        if self.stochastic:
            noise = np.stack([rng.gumbel(int(position), logits.shape[1]) for position in view.positions])
            tokens = np.argmax(logits + noise, axis=1)
        if self.order == "entropy":
            return tokens, (probability * np.log(probability + 1e-10)).sum(axis=1)
        if self.order == "margin":
            best = np.sort(probability, axis=1)[:, -2:]
            return tokens, best[:, 1] - best[:, 0]
        return tokens, probability[np.arange(len(tokens)), tokens]


#: What the parser understands, for the error of :func:`verify.policies.make_policy`.
EXPECTED = (
    "quota:S[/L], dynamic:tau[:k or :S/L], dream:confidence|margin|entropy:S[:eps], low_confidence:S/L, "
    "low_confidence_static:S/L, low_confidence_dynamic:tau[:S/L], confidence_threshold:tau, maskgit_plus:S, "
    "topk_margin:S, entropy:S"
)

_DREAM_ALIASES = {"maskgit_plus": "confidence", "topk_margin": "margin", "entropy": "entropy"}


def parse_published(spec: str, temperature: float) -> Policy | None:
    """The policy that a specification or a published name stands for; None when it is neither.

    Raises:
        ValueError: a parameter is no number or out of range.
    """
    name, *arguments = spec.split(":")
    match name, arguments:
        case "quota" | "low_confidence" | "low_confidence_static", [fraction]:
            steps, positions = _read_fraction(fraction, optional=name == "quota")
            if positions is not None and positions % steps == 0:
                return StaticTopK(positions // steps, temperature)
            # LLaDA counts from what is masked, which is its whole block; SDAR from the block, prompt tail included.
            return Quota(temperature, steps, None if name == "low_confidence" else positions)
        case "dynamic" | "low_confidence_dynamic", [tau]:
            return Dynamic(temperature, _share(tau))
        case "dynamic", [tau, count] if "/" not in count:
            return Dynamic(temperature, _share(tau), _whole(count))
        case "dynamic" | "low_confidence_dynamic", [tau, fraction]:
            steps, positions = _read_fraction(fraction, optional=False)
            assert positions is not None
            if positions % steps == 0:
                return Dynamic(temperature, _share(tau), positions // steps)
            return Dynamic(temperature, _share(tau), 1, steps, positions)
        case "confidence_threshold", [tau]:
            return Threshold(_share(tau), temperature)
        case "dream", [order, steps, *eps] if order in ORDERS and len(eps) <= 1:
            return Dream(temperature, order, _whole(steps), _share(eps[0]) if eps else DREAM_EPS)
        case _, [steps, *eps] if name in _DREAM_ALIASES and len(eps) <= 1:
            return Dream(temperature, _DREAM_ALIASES[name], _whole(steps), _share(eps[0]) if eps else DREAM_EPS)
    return None


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(f"{text} is below 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError(f"{text} is not above 0 and at most 1")
    return value


def _read_fraction(text: str, optional: bool) -> tuple[int, int | None]:
    steps, slash, positions = text.partition("/")
    if not slash and not optional:
        raise ValueError(f"{text} lacks the block length; expected steps/length, for example 8/32")
    return _whole(steps), _whole(positions) if slash else None


def _fraction(steps: int, positions: int | None) -> str:
    return f"{steps}" if positions is None else f"{steps}/{positions}"


def _number(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
