"""The kit as a list: every check with the contexts and drafters that it is run with, and the policies to run it on."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from studies.conformance.declarations import SAMPLINGS, check_attributes, check_spec
from studies.conformance.decodes import (
    check_lossless,
    check_progress,
    check_rejected_drafts,
    check_replayed,
    check_replayed_states,
)  # fmt: skip
from studies.conformance.drafters import DRAFTERS
from studies.conformance.stage import EXACT
from studies.conformance.steps import (
    check_declared_needs,
    check_expected_views,
    check_mask_token,
    check_purity,
    check_thresholds,
    check_views_to_the_end,
)  # fmt: skip
from verify.policies.contract import Policy, PolicyError
from verify.policies.registry import registered_rules
from verify.policies.specification import make_policy, without_sampling

#: Checks that need no model, in the order in which they help most.
MODEL_FREE: tuple[Callable[[Policy], None], ...] = (
    check_attributes, check_spec, check_views_to_the_end, check_declared_needs, check_purity, check_expected_views,
    check_mask_token, check_thresholds,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One check of one policy.

    Attributes:
        spec: the policy's specification.
        name: the check, its context and its drafter.
        check: to be called with the policy; raises :class:`~studies.conformance.failures.Nonconformance`.
    """

    spec: str
    name: str
    check: Callable[[Policy], None]

    def __str__(self) -> str:
        return f"{self.spec} {self.name}"

    def run(self) -> None:
        """Make the policy and check it."""
        self.check(make_policy(self.spec))


def registered_specs() -> list[str]:
    """Every example of every registered rule, and each rule once with drawn tokens where it takes any; no policy twice.

    Rules of installed packages are among them.
    """
    found: dict[str, None] = {}
    for number, rule in enumerate(registered_rules().values()):
        for spec in rule.examples:
            found.setdefault(make_policy(spec).spec)
        try:
            drawn = make_policy(without_sampling(rule.examples[0]) + SAMPLINGS[number % len(SAMPLINGS)].text)
        except PolicyError:  # a rule that refuses to draw tokens
            continue
        found.setdefault(drawn.spec)
    return list(found)


def cases(specs: Iterable[str] | None = None, full: bool = False) -> list[Case]:
    """What the kit runs on some policies.

    Args:
        specs: their specifications; :func:`registered_specs` when left out.
        full: every exact context with every drafter, one sequence at a time and four. Otherwise every context once and
            every drafter at least once, combined differently for every policy; of a policy that draws tokens half that.
    """
    found = []
    for spec in registered_specs() if specs is None else specs:
        found += [Case(spec, check.__name__.removeprefix("check_"), check) for check in MODEL_FREE]
        for name, check in _every_decode() if full else _some_decodes(spec):
            found.append(Case(spec, name, check))
    return found


_Checks = list[tuple[str, Callable[[Policy], None]]]


def _some_decodes(spec: str) -> _Checks:
    turn = zlib.crc32(spec.encode())
    contexts = EXACT[turn % len(EXACT) :] + EXACT[: turn % len(EXACT)]
    dual = [context for context in EXACT if context[0] == "dual"]
    found = [_lossless("informed", contexts[0], 4), _lossless("random graph", contexts[1], 1)]
    found += _others(contexts[2], check_rejected_drafts)
    if make_policy(spec).temperature > 0:  # the same rule is tried with the best tokens in the other ways
        return found
    found += [
        _lossless("informed, graph", contexts[3], 4),
        _lossless("informed", contexts[4], 1),
        _lossless("informed, copies", dual[turn % len(dual)], 4),
    ]
    return found + _others(contexts[5], check_progress, check_replayed, check_replayed_states)


def _every_decode() -> _Checks:
    found: _Checks = []
    for context in EXACT:
        for name in DRAFTERS:
            found += [_lossless(name, context, batch) for batch in (1, 4)]
        found += _others(context, check_progress, check_rejected_drafts, check_replayed, check_replayed_states)
    return found


def _lossless(drafter: str, context: tuple[str, str], batch: int) -> tuple[str, Callable[[Policy], None]]:
    name = f"lossless: {drafter}, {' '.join(context)}, {batch} at a time"
    return name, partial(check_lossless, context=context, drafter=drafter, batch=batch)


def _others(context: tuple[str, str], *checks: Callable[..., None]) -> _Checks:
    return [
        (f"{check.__name__.removeprefix('check_')}: {' '.join(context)}", partial(check, context=context))
        for check in checks
    ]
