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

from verify.policies.randomness import StepRandom


class PolicyError(ValueError):
    """A policy specification that cannot be read, or a view that holds less than the policy needs."""


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
        """Choose the commits of one step and the state after it; ``state`` is not changed in place.

        A drafter may also ask about a state that it only expects, or that was evaluated and may never be reached. The
        view of an expected one holds one vocabulary rank and no logits. A policy that needs more raises
        :class:`PolicyError`, and the drafter guesses; an IndexError, ArithmeticError or other ValueError is taken for
        the same, so that drafts never end a decode that goes well without them. Any other error ends the decode.
        """
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
