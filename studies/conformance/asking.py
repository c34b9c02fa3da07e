"""Asking a policy for one step, with every rule of the contract that one answer can break looked at."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.conformance.failures import Nonconformance, same
from studies.conformance.stage import MASK_ID
from studies.conformance.views import Moment, boundary_views, random_logits, view_of_logits, without
from verify.policies.contract import BlockView, Policy
from verify.policies.randomness import StepRandom
from verify.sequence import MAX_EMPTY_STEPS


@dataclass(frozen=True, eq=False)
class Answer:
    """What a policy answered: the committed token of every offset, in its order, and the state afterwards."""

    commits: dict[int, int]
    state: Any


def ask(policy: Policy, moment: Moment, state: Any) -> Answer:
    """One step of ``policy``; neither the view nor ``state`` may be another afterwards.

    Raises:
        Nonconformance: they are, or the commits are none that the block can take.
        Exception: what the policy raises.
    """
    view, where = moment.view, f"policy {policy.spec} ({moment.name})"
    before = [array.copy() for array in _arrays(view)]
    kept = copy.deepcopy(state)
    if not same(state, kept):
        raise Nonconformance(f"{where} has the state {state!r}, which is not equal to its own copy")
    commits, after = policy.step(view, state, moment.random)
    for name, now, then in zip(("positions", "tokens", "probabilities"), _arrays(view), before, strict=True):
        if not np.array_equal(now, then, equal_nan=now.dtype.kind == "f"):
            raise Nonconformance(f"{where} changed the {name} of the view that it was given; copy what is to change")
    if not same(state, kept):
        raise Nonconformance(
            f"{where} changed the state that it was given, from {kept!r} to {state!r}; a step returns a new state"
        )
    positions, tokens = np.asarray(commits.positions), np.asarray(commits.tokens)
    if positions.ndim != 1 or positions.shape != tokens.shape:
        raise Nonconformance(
            f"{where} committed positions of shape {positions.shape} and tokens of shape {tokens.shape}, expected one "
            "list each, of one length"
        )
    if len(positions) and not (positions.dtype.kind in "iu" and tokens.dtype.kind in "iu"):
        raise Nonconformance(
            f"{where} committed {positions.dtype} positions and {tokens.dtype} tokens, expected integers"
        )
    offsets = positions.tolist()
    if len(set(offsets)) < len(offsets) or not set(offsets) <= set(view.positions.tolist()):
        raise Nonconformance(
            f"{where} committed positions {offsets}, expected distinct ones of the masked {view.positions.tolist()}"
        )
    if MASK_ID in tokens.tolist():
        raise Nonconformance(f"{where} committed the mask token {MASK_ID}; it is never a candidate")
    if not offsets and not policy.may_do_nothing:
        raise Nonconformance(f"{where} committed nothing, which it declares it never does (may_do_nothing)")
    if policy.step_size is not None and len(offsets) not in (0, min(policy.step_size, len(view.positions))):
        raise Nonconformance(
            f"{where} committed {len(offsets)} of {len(view.positions)} positions, but declares step_size "
            f"{policy.step_size}"
        )
    # The state is kept apart from what the policy may still hold of it.
    return Answer(dict(zip(offsets, tokens.tolist(), strict=True)), copy.deepcopy(after))


def _arrays(view: BlockView) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return view.positions, view.tokens, view.probabilities


def follow(policy: Policy, first: Moment, state: Any) -> Iterator[tuple[Moment, Any, Answer]]:
    """The steps of a decode whose distribution never changes, to the end of the block.

    Yields:
        every moment, the state of the policy before it, and the answer.

    Raises:
        Nonconformance: as :func:`ask`, or it commits nothing too often in a row.
    """
    moment, empty = first, 0
    while True:
        answer = ask(policy, moment, state)
        yield moment, state, answer
        empty = 0 if answer.commits else empty + 1
        if empty == MAX_EMPTY_STEPS:
            raise Nonconformance(
                f"policy {policy.spec} ({first.name}) committed nothing in {empty} steps in a row, with "
                f"{len(moment.view.positions)} positions masked; a decode would be given up"
            )
        left = without(moment.view, np.array(list(answer.commits), dtype=np.int64))
        if left is None:
            return
        moment, state = moment.next(left), answer.state


def moments(policy: Policy) -> list[tuple[Moment, Any]]:
    """Moments to ask ``policy`` about, each with the state that it then has: borders, and random decodes.

    Raises:
        Nonconformance: the policy breaks the contract on the way.
    """
    found: list[tuple[Moment, Any]] = []
    for number, (name, view) in enumerate(boundary_views().items()):
        first = Moment(name, view, StepRandom(3, 0, number, 1))
        steps = follow(policy, first, policy.initial_state())
        found += [(moment, state) for (moment, state, _), _ in zip(steps, range(2), strict=False)]
    for seed in range(3):
        found += _random_decode(policy, seed)
    return found


def _random_decode(policy: Policy, seed: int) -> list[tuple[Moment, Any]]:
    """Two blocks, one after the other, with the state of the policy going on."""
    found: list[tuple[Moment, Any]] = []
    state = policy.initial_state()
    for block in range(2):
        random = StepRandom(7, seed, block, 1)
        masked = list(range(8))
        for logits, _ in zip(random_logits(10 * seed + block), range(24), strict=False):
            moment = Moment(
                f"random decode {seed}, block {block}, step {random.step}", view_of_logits(logits, masked), random
            )
            found.append((moment, state))
            answer = ask(policy, moment, state)
            masked = [position for position in masked if position not in answer.commits]
            random, state = random.after(), answer.state
            if not masked:
                break
    return found
