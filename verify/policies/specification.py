"""Policies from text: a rule of the registry, its parameters, and how tokens are drawn.

``static:4`` is a rule with a parameter, ``static:4@temperature=0.7,top_p=0.9`` the same with drawn tokens. A published
loop's name is taken wherever a rule is, and stored as the rule that it stands for; where every step commits the same
count, that is ``static``. ``draftgraph policies`` lists them all.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from verify.policies.contract import Policy, PolicyError, UnknownPolicyError
from verify.policies.parameters import Steps, number_text
from verify.policies.registry import BUILT_IN, find_rule, registered_rules, unusable_plugins
from verify.policies.rule import Rule
from verify.policies.sampling import ARGMAX, MARK, Sampling, read_sampling


class TemperatureConflict(PolicyError):
    """A specification with one temperature, and another one beside it."""


def make_policy(spec: str, temperature: float | None = None, *, stored: bool = False) -> Policy:
    """Make a policy from its specification, or from the name that a published loop gives it.

    Args:
        spec: a rule with its parameters, for example ``static:k`` with an integer k >= 1 or ``threshold:tau`` with
            0 < tau <= 1, perhaps with a sampling behind ``@``: ``temperature``, ``top_p``, ``top_k``. The policy's own
            ``spec`` is the one text for it that is stored.
        temperature: short for ``@temperature=...``: 0 takes argmax tokens; above 0 tokens are drawn with
            counter-based noise. None takes what ``spec`` says, else 0.
        stored: ``spec`` comes out of a file, so what may be typed but not stored is refused.

    Raises:
        UnknownPolicyError: the first word names no rule.
        PolicyError: a parameter is missing, too many, unreadable or out of range; or ``spec`` has another temperature.

    >>> make_policy("threshold:0.90").spec
    'threshold:0.9'
    >>> make_policy("low_confidence:8/32").spec, make_policy("static:4", temperature=0.7).spec
    ('static:4', 'static:4@temperature=0.7')
    """
    rule, values, sampling = _read(spec, temperature, stored)
    try:
        return rule.make(*values, sampling=sampling)
    except ValueError as error:
        raise _refused(spec, rule, error) from error


def canonical_policy(policy: str, temperature: float) -> str:
    """The one text of a stored policy, whose ``temperature`` may stand beside it alone, as older files have it.

    Texts of rules that are not ours, and texts that cannot be read, come back as they are; no package is asked.

    Raises:
        TemperatureConflict: the text has another temperature than ``temperature``.
    """
    if without_sampling(policy).partition(":")[0] not in BUILT_IN:
        return policy
    try:
        return make_policy(policy, temperature, stored=True).spec
    except TemperatureConflict:
        raise
    except PolicyError:
        return policy


def without_sampling(spec: str) -> str:
    """The rule and its parameters alone, as they are written in ``spec``."""
    return spec.partition(MARK)[0]


def step_sizes(spec: str) -> int | None:
    """Pairs per denoising step under the policy ``spec`` (None: one or more). Raises :class:`PolicyError`."""
    return make_policy(spec).step_size


def stated_block_length(spec: str) -> int | None:
    """The ``L`` of an ``S/L`` in ``spec``, the block length that its steps are counted for; None where there is none.

    It is part of the text only: ``low_confidence:8/32`` is stored as ``static:4``. Raises :class:`PolicyError`.
    """
    rule, values, _ = _read(spec)
    steps = (value for one, value in zip(rule.parameters, values, strict=True) if isinstance(one, Steps))
    return next((value[1] for value in steps if isinstance(value, tuple)), None)


def _read(spec: str, temperature: float | None = None, stored: bool = False) -> tuple[Rule, list[Any], Sampling]:
    """The rule, the values of its parameters, and the sampling."""
    text, mark, behind = spec.partition(MARK)
    beside = ARGMAX if temperature is None else Sampling(temperature)
    name, *arguments = text.split(":")
    rule = find_rule(name)
    if rule is None:
        known = registered_rules()
        near = [known[one].form for one in get_close_matches(name.lower(), known, cutoff=0.7)]
        forms = ", ".join(rule.form for rule in known.values())
        expected = (
            f"did you mean {' or '.join(near)}? `draftgraph policies` lists all" if near else f"expected one of {forms}"
        )
        unusable = "".join(f"; {sentence}" for sentence in unusable_plugins())
        raise UnknownPolicyError(f"unknown policy {spec!r}; {expected}{unusable}")
    try:
        if stored:
            for parameter, argument in zip(rule.parameters, arguments, strict=False):  # their number is checked below
                parameter.check_stored(argument)
        values = rule.values(arguments)
        stated = read_sampling(behind) if mark else {}
        sampling = Sampling(**({"temperature": beside.temperature} | stated))
    except ValueError as error:
        raise _refused(spec, rule, error) from error
    if temperature is not None and sampling.temperature != beside.temperature:
        raise TemperatureConflict(
            f"policy {spec!r} has temperature {number_text(sampling.temperature)}, but temperature "
            f"{number_text(beside.temperature)} is stated beside it; leave one of them out"
        )
    return rule, values, sampling


def _refused(spec: str, rule: Rule, error: ValueError) -> PolicyError:
    sampling = f"{MARK}temperature=T,top_p=P,top_k=K" if MARK in spec else ""
    return PolicyError(f"policy {spec!r}: {error}; the form is {rule.form}{sampling}")
