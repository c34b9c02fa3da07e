"""Unmasking policies: which masked positions a denoising step commits, and with which tokens.

A policy is a pure function with a copyable state. It never sees the model, only a view of one block's distribution in
rank order; so a policy behaves the same on a real block and on a draft of it, which is what makes speculation
lossless. Policies from elsewhere need only the attributes and the methods of :class:`Policy`; most are shorter with
``verify.policies.base``, and ``verify.policies.rule`` gives one a name (docs/policies.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from verify.policies.randomness import StepRandom

#: What a policy may read of a view, each with all before it; see :attr:`Policy.needs`.
NEEDS = ("ranks", "entropy", "logits")


class PolicyError(ValueError):
    """A policy specification that cannot be read, or a view that holds less than the policy needs."""


class UnknownPolicyError(PolicyError):
    """A specification whose first word names no rule that is known here."""


def _no_entropies() -> np.ndarray:
    raise PolicyError('this view has no entropies; a policy that reads them says "entropy" in its `needs`')


@dataclass(frozen=True, eq=False)
class BlockView:
    """One block's distribution as a policy sees it; ``m`` masked positions, ``J`` vocabulary ranks.

    Policies do not change what they are given.

    Attributes:
        positions: int [m], masked offsets in the block, position rank 1 first.
        tokens: int32 [m, J], vocabulary rank 1 first, never the mask token.
        probabilities: float64 [m, J], of ``tokens``.
        logits: a function returning float64 [m, V] on the host, in the order of ``positions``, the mask token at
            minus infinity; only to be called by a policy whose ``needs`` is "logits", as it costs a transfer.
        entropies: a function returning float64 [m], the entropy of every position in nats, in the order of
            ``positions``: of the distribution without the mask token, at temperature 1. Only to be called by a policy
            whose ``needs`` is "entropy" or "logits".
    """

    positions: np.ndarray
    tokens: np.ndarray
    probabilities: np.ndarray
    logits: Callable[[], np.ndarray]
    entropies: Callable[[], np.ndarray] = _no_entropies


@dataclass(frozen=True, eq=False)
class Commits:
    """What a step commits: ``positions`` (int [c], offsets, distinct, masked) and ``tokens`` (int [c])."""

    positions: np.ndarray
    tokens: np.ndarray


class Policy(Protocol):
    """The contract of an unmasking policy.

    Attributes:
        spec: the text that makes this very policy again, for example ``threshold:0.9`` or
            ``static:1@temperature=0.7``.
        needs: one of ``NEEDS``, what it reads of a view. "ranks" is the best tokens with their probabilities. What
            reads "logits" keeps those of a forward on the device, so drafters remember one forward only, and a state
            log cannot hold its decode.
        ranks: vocabulary ranks that it reads, at least 1; the decode keeps as many.
        monotone: whether committed positions stay committed. The loop refuses a policy that takes some back.
        may_do_nothing: whether a step may commit nothing. One that may do so for more steps in a row than the loop
            allows (``verify.sequence.MAX_EMPTY_STEPS``) has an attribute ``longest_pause`` too, the most of them.
        step_size: pairs that every step commits (while so many are left), None where it varies.
        temperature: 0 for argmax tokens.
    """

    @property
    def spec(self) -> str: ...

    @property
    def needs(self) -> str: ...

    @property
    def ranks(self) -> int: ...

    @property
    def monotone(self) -> bool: ...

    @property
    def may_do_nothing(self) -> bool: ...

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
        view of an expected one holds one vocabulary rank, no entropies and no logits. A policy that needs more raises
        :class:`PolicyError`, and the drafter guesses; an IndexError, ArithmeticError or other ValueError is taken for
        the same, so that drafts never end a decode that goes well without them. Any other error ends the decode.
        """
        ...
