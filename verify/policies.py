"""Unmasking policies: which masked positions a denoising step commits, and with which tokens.

A policy is a pure function with a copyable state. It never sees the model, only a view of one block's distribution in
rank order; so a policy behaves the same on a real block and on a draft of it, which is what makes speculation
lossless. Policies from elsewhere need only the attributes and the method of :class:`Policy`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from verify.randomness import StepRandom


class PolicyError(ValueError):
    """A policy specification that cannot be read."""


@dataclass(frozen=True, eq=False)
class BlockView:
    """One block's distribution as a policy sees it; ``m`` masked positions, ``J`` vocabulary ranks.

    Attributes:
        positions: int [m], masked offsets in the block, position rank 1 first.
        tokens: int32 [m, J], vocabulary rank 1 first, never the mask token.
        probabilities: float64 [m, J], of ``tokens``.
        logits: a function returning float64 [m, V] on the host, in the order of ``positions``, the mask token at
            minus infinity; only to be called by a policy whose ``needs`` is "logits", as it costs a transfer.
    """

    positions: np.ndarray
    tokens: np.ndarray
    probabilities: np.ndarray
    logits: Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Commits:
    """What a step commits: ``positions`` (int [c], offsets, distinct, masked) and ``tokens`` (int [c])."""

    positions: np.ndarray
    tokens: np.ndarray


class Policy(Protocol):
    """The contract of an unmasking policy.

    Attributes:
        spec: the text that makes this policy again, for example ``threshold:0.9``.
        needs: "top_j" or "logits".
        scope: "block"; a rule that looks at the whole sequence would say "sequence".
        monotone: whether committed positions stay committed.
        may_do_nothing: whether a step may commit nothing.
        stochastic: whether ``rng`` is used.
        step_size: pairs that every step commits (while so many are left), None where it varies.
        temperature: 0 for argmax tokens.
    """

    @property
    def spec(self) -> str: ...

    @property
    def needs(self) -> str: ...

    @property
    def scope(self) -> str: ...

    @property
    def monotone(self) -> bool: ...

    @property
    def may_do_nothing(self) -> bool: ...

    @property
    def stochastic(self) -> bool: ...

    @property
    def step_size(self) -> int | None: ...

    @property
    def temperature(self) -> float: ...

    def initial_state(self) -> Any:
        """The state before the first step of a sequence; copyable, None for policies without history."""
        ...

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        """Choose the commits of one step and the state after it; ``state`` is not changed in place."""
        ...


def proposals(view: BlockView, temperature: float, rng: StepRandom) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidate (positions, tokens, confidences), most confident first.

    At temperature 0 these are the top-1 tokens in position-rank order. Otherwise a token is sampled per position from
    softmax(logits / T) by the Gumbel-max rule, and its confidence is its probability at temperature 1 (LLaDA's
    low-confidence rule); equal confidences are ordered by position.
    """
    if temperature == 0.0:
        return view.positions, view.tokens[:, 0], view.probabilities[:, 0]
    logits = view.logits()
    noise = np.stack([rng.gumbel(int(position), logits.shape[1]) for position in view.positions])
    tokens = np.argmax(logits / temperature + noise, axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    probability = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    confidence = probability[np.arange(len(tokens)), tokens]
    order = np.lexsort((view.positions, -confidence))
    return view.positions[order], tokens[order], confidence[order]


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


def make_policy(spec: str, temperature: float = 0.0) -> Policy:
    """Make a policy from its specification, or from the name that a published loop gives it.

    Args:
        spec: ``static:k`` with an integer k >= 1, ``threshold:tau`` with 0 < tau <= 1, or one of the forms and names
            in ``verify.published_policies``; the policy's own ``spec`` is the one text for it that is stored.
        temperature: 0 takes argmax tokens; above 0 tokens are sampled with counter-based noise.

    Raises:
        PolicyError: the text names no policy, or a parameter is out of range.
    """
    from verify.published_policies import EXPECTED, parse_published  # it builds on this module

    own = "static:k (k >= 1) or threshold:tau (0 < tau <= 1), for example threshold:0.9"
    expected = f"expected {own}; or a published rule: {EXPECTED}"
    if not (isinstance(temperature, int | float) and 0 <= temperature < float("inf")):
        raise PolicyError(f"temperature is {temperature!r}, expected a finite number of at least 0")
    name, _, argument = spec.partition(":")
    try:
        if name == "static" and int(argument) >= 1:
            return StaticTopK(int(argument), float(temperature))
        if name == "threshold" and 0 < float(argument) <= 1:
            return Threshold(float(argument), float(temperature))
        if (published := parse_published(spec, float(temperature))) is not None:
            return published
    except ValueError:
        pass
    raise PolicyError(f"unknown policy {spec!r}; {expected}")


def step_sizes(spec: str) -> int | None:
    """Pairs per denoising step under the policy ``spec`` (None: one or more). Raises :class:`PolicyError`."""
    return make_policy(spec).step_size
