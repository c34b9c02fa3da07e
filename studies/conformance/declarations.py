"""Checks of what a policy says of itself: its attributes, and the text that makes it again."""

from __future__ import annotations

import math

import numpy as np

from studies.conformance.failures import Nonconformance
from verify.policies.contract import NEEDS, Policy, PolicyError
from verify.policies.parameters import Number, Whole
from verify.policies.registry import find_rule
from verify.policies.sampling import MARK, Sampling
from verify.policies.specification import canonical_policy, make_policy, without_sampling

#: How tokens are drawn where a rule is tried with drawn tokens.
SAMPLINGS = (Sampling(0.8), Sampling(1.0, top_p=0.9, top_k=20))


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_attributes(policy: Policy) -> None:
    """The attributes of the contract are there, of their types and in their ranges."""
    temperature = policy.temperature
    wanted = {
        "spec": (bool(policy.spec) and isinstance(policy.spec, str), "a text that is not empty"),
        "needs": (policy.needs in NEEDS, f"one of {', '.join(NEEDS)}"),
        "ranks": (_is_whole(policy.ranks, 1), "an integer of at least 1"),
        "monotone": (isinstance(policy.monotone, bool), "True or False"),
        "may_do_nothing": (isinstance(policy.may_do_nothing, bool), "True or False"),
        "step_size": (policy.step_size is None or _is_whole(policy.step_size, 1), "None or an integer of at least 1"),
        "temperature": (
            isinstance(temperature, int | float) and 0 <= temperature < math.inf,
            "a finite number of at least 0",
        ),
    }
    for name, (right, expected) in wanted.items():
        if not right:
            raise Nonconformance(f"policy {policy.spec!r}: {name} is {getattr(policy, name)!r}, expected {expected}")


def check_spec(policy: Policy) -> None:
    """`spec` makes the very same policy again, by a registered rule; also with drawn tokens, and with every number of
    it a bit larger or smaller.
    """
    _expect_same(policy)
    for sampling in SAMPLINGS:
        drawn = _drawn(policy, sampling)
        if drawn is None:
            continue
        _expect_same(drawn)
        if drawn.temperature != sampling.temperature:
            raise Nonconformance(
                f"policy {drawn.spec} has temperature {drawn.temperature:g}, expected {sampling.temperature:g}"
            )
    name, *texts = without_sampling(policy.spec).split(":")
    rule = find_rule(name)
    assert rule is not None  # it was made again
    values = rule.values(texts)
    for number, (parameter, value) in enumerate(zip(rule.parameters, values, strict=True)):
        for other in _neighbours(parameter, value):
            changed = [*values[:number], other, *values[number + 1 :]]
            written = [one.write(part) for one, part in zip(rule.parameters, changed, strict=True)]
            try:
                varied = make_policy(":".join([name, *written]), policy.temperature)
            except PolicyError:  # out of the range of the parameter, or the rule takes no such combination
                continue
            _expect_same(varied)


def _neighbours(parameter: object, value: object) -> list[float]:
    if isinstance(parameter, Number) and isinstance(value, float):
        return [float(np.nextafter(value, -math.inf)), float(np.nextafter(value, math.inf))]
    if isinstance(parameter, Whole) and isinstance(value, int):
        return [value - 1, value + 1]
    return []


def _drawn(policy: Policy, sampling: Sampling) -> Policy | None:
    """The same rule with drawn tokens; None for a rule that refuses to draw any."""
    try:
        return make_policy(without_sampling(policy.spec) + sampling.text)
    except PolicyError:
        return None


def _expect_same(policy: Policy) -> None:
    try:
        again = make_policy(policy.spec)
    except PolicyError as error:
        raise Nonconformance(
            f"policy {policy.spec!r} cannot be made again from its own spec: {error}; a rule is registered by an entry "
            "point of the group draftgraph.policies, and its spec begins with its name"
        ) from error
    if again != policy:
        raise Nonconformance(
            f"make_policy({policy.spec!r}) gives {again!r}, expected the very same policy {policy!r}; a spec names "
            "every parameter to its last bit and the sampling, and a frozen dataclass compares them"
        )
    if again.spec != policy.spec or canonical_policy(policy.spec, policy.temperature) != policy.spec:
        raise Nonconformance(
            f"policy {policy.spec!r} made again calls itself {again.spec!r}; one policy has one text, as files compare "
            "it"
        )
    if (policy.temperature > 0) != (f"{MARK}temperature=" in policy.spec):
        raise Nonconformance(
            f"policy {policy.spec!r} has temperature {policy.temperature:g}, but its spec says otherwise"
        )
