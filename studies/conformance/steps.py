"""Checks of single steps: what a policy declares, its purity, the borders of its rule, and views that hold less."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from studies.conformance.asking import Answer, ask, follow, moments
from studies.conformance.failures import Nonconformance, same
from studies.conformance.views import (
    Moment,
    as_declared,
    as_expected,
    boundary_views,
    masked_best_views,
    view_of,
)  # fmt: skip
from verify.policies.contract import Policy, PolicyError
from verify.policies.parameters import Number, Parameter, read_arguments
from verify.policies.randomness import StepRandom
from verify.policies.registry import find_rule
from verify.policies.specification import without_sampling

FIRST = StepRandom(3, 0, 0, 1)


def check_views_to_the_end(policy: Policy) -> None:
    """Progress at the borders: every boundary view is committed to its end, the distribution never changing."""
    for name, view in boundary_views().items():
        for _ in follow(policy, Moment(name, view, FIRST), policy.initial_state()):
            pass


def check_purity(policy: Policy) -> None:
    """The same view, state and noise give the same answer: asked again, in another order, by a copy, with other global
    generators; and neither the view nor the state is changed.
    """
    fresh = copy.deepcopy(policy)
    asked = moments(policy)
    first = [ask(policy, moment, state) for moment, state in asked]
    for (moment, state), before in zip(reversed(asked), reversed(first), strict=True):
        with _other_generators():
            again = ask(policy, moment, state)
        _expect_equal(policy, moment, before, again, "asked again, after other questions and with other global noise,")
        alone = ask(copy.deepcopy(fresh), moment, state)
        _expect_equal(policy, moment, before, alone, "a copy of the policy that was asked nothing else")


def check_declared_needs(policy: Policy) -> None:
    """Views cut down to what the policy declares that it reads give the same answers: `needs` and `ranks` are true."""
    for moment, state in moments(policy):
        whole = ask(policy, moment, state)
        try:
            cut = ask(policy, replace(moment, view=as_declared(moment.view, policy)), state)
        except Nonconformance:
            raise
        except Exception as error:
            raise Nonconformance(
                f"policy {policy.spec} ({moment.name}) fails on a view with {policy.ranks} vocabulary ranks and "
                f"{policy.needs!r}, which is what it declares that it reads: {type(error).__name__}: {error}"
            ) from error
        _expect_equal(policy, moment, whole, cut, "with no more vocabulary ranks than it declares it")


def check_expected_views(policy: Policy) -> None:
    """Asked about a state that a drafter only expects, it answers as of any other view or raises PolicyError."""
    for moment, state in moments(policy):
        expected = replace(moment, view=as_expected(moment.view), name=f"{moment.name}, only expected")
        try:
            ask(policy, expected, state)
        except (PolicyError, Nonconformance) as error:
            if isinstance(error, Nonconformance):
                raise
        except Exception as error:
            raise Nonconformance(
                f"policy {policy.spec} ({expected.name}: one vocabulary rank, no entropies, no logits) raised "
                f"{type(error).__name__}: {error}; expected an answer or a PolicyError"
            ) from error


def check_mask_token(policy: Policy) -> None:
    """Where the mask token has the highest logit, the answer is that without it."""
    for name, (high, low) in masked_best_views().items():
        moment = Moment(f"{name}, the arg-max is the mask token", high, FIRST)
        state = policy.initial_state()
        found, expected = ask(policy, moment, state), ask(policy, replace(moment, view=low), state)
        if found.commits != expected.commits:
            raise Nonconformance(
                f"policy {policy.spec} ({moment.name}) committed {found.commits}, but {expected.commits} where the "
                "mask token has the lowest logit; it is never a candidate, and no part of a denominator"
            )


def check_thresholds(policy: Policy) -> None:
    """At a threshold itself a rule does what it does on one side of it; see :func:`side_of` for which."""
    for name in thresholds(policy):
        _sides(policy, name)


def thresholds(policy: Policy) -> dict[str, float]:
    """The numbers among the parameters of ``policy``, by name; what :func:`side_of` can be asked about."""
    name, *texts = without_sampling(policy.spec).split(":")
    rule = find_rule(name)
    parameters: tuple[Parameter, ...] = rule.parameters if rule is not None else getattr(policy, "parameters", ())
    if not parameters:
        return {}
    values = read_arguments(parameters, texts)
    return {
        one.name: value for one, value in zip(parameters, values, strict=True) if isinstance(one, Number) and value > 0
    }


def side_of(policy: Policy, parameter: str) -> str | None:
    """How a rule compares with a threshold, found by asking: ``>=`` or ``>`` where a position is committed for a
    confidence above it, ``<=`` or ``<`` where it is for an entropy below it; None where neither is seen.

    Raises:
        KeyError: the policy has no such number.
    """
    thresholds(policy)[parameter]
    found = {side for side in _sides(policy, parameter) if side is not None}
    return found.pop() if len(found) == 1 else None


def _sides(policy: Policy, parameter: str) -> list[str | None]:
    """The side in every kind of view; the parameter's value is met at the second best of three positions, and alone."""
    value = thresholds(policy)[parameter]
    below, above = float(np.nextafter(value, 0.0)), float(np.nextafter(value, np.inf))
    sides: list[str | None] = []
    if value <= 1:
        three = below, value, min(above, 1.0)
        sides.append(_side(policy, parameter, [view_of([1.0, one, 0.01 * value]) for one in three]))
        _side(policy, parameter, [view_of([one, 0.01 * value]) for one in three])
    if policy.needs == "entropy":
        views = [view_of([0.9, 0.5, 0.3], entropies=[0.0, one, value + 9.0]) for one in (below, value, above)]
        sides.append(_side(policy, parameter, views))
    return sides


def _side(policy: Policy, parameter: str, views: list[Any]) -> str | None:
    names = (f"just below {parameter}", f"at {parameter} itself", f"just above {parameter}")
    below, at, above = (
        ask(policy, Moment(name, view, FIRST), policy.initial_state()).commits
        for name, view in zip(names, views, strict=True)
    )
    if at not in (below, above):
        raise Nonconformance(
            f"policy {policy.spec} commits {at} at {parameter} itself, but {below} just below it and {above} just "
            "above it; at a threshold a rule does what it does on one of its sides"
        )
    if below == above:
        return None
    if len(above) > len(below):
        return ">=" if at == above else ">"
    return "<=" if at == below else "<"


def _expect_equal(policy: Policy, moment: Moment, before: Answer, now: Answer, who: str) -> None:
    for name, first, second in (("commits", before.commits, now.commits), ("new state", before.state, now.state)):
        if not same(first, second):
            raise Nonconformance(
                f"policy {policy.spec} ({moment.name}) is not pure: {name} {first!r} at first, but {who} gives "
                f"{second!r} for the same view, state and noise"
            )


@contextmanager
def _other_generators() -> Iterator[None]:
    """Put the global generators into another state, and back."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = random.SystemRandom().randrange(2**31)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
