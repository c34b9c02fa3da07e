"""The one list of rules by name: ours, the names that published loops give them, and those of installed packages.

A package adds rules by an entry point of the group ``draftgraph.policies`` whose object is a
:class:`~verify.policies.rule.Rule`, or a tuple of several (docs/policies.md). Packages are asked only for a name that
is not ours, or for the whole list, so a command under our own rules imports none of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from verify.policies import confidence, credit, dream, klass, learned, parallel
from verify.policies.rule import Rule

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: The group of entry points that add rules.
GROUP = "draftgraph.policies"

_OURS = (*confidence.RULES, *dream.RULES, *parallel.RULES, *credit.RULES, *klass.RULES, *learned.RULES)

#: Our own rules and names, in the order in which they are listed.
BUILT_IN: Mapping[str, Rule] = MappingProxyType(
    {rule.name: rule for rule in sorted(_OURS, key=lambda rule: bool(rule.stands_for))}
)


class PolicyPluginWarning(UserWarning):
    """A package that announces rules which cannot be used; everything else works."""


def find_rule(name: str) -> Rule | None:
    """The rule called ``name``, None where there is none."""
    return BUILT_IN[name] if name in BUILT_IN else _added()[0].get(name)


def registered_rules() -> dict[str, Rule]:
    """Every rule by name: ours first, then those of installed packages.

    A package that cannot be used is named by a :class:`PolicyPluginWarning`, once, and left out.
    """
    return {**BUILT_IN, **_added()[0]}


def unusable_plugins() -> tuple[str, ...]:
    """One sentence for every entry point of ``GROUP`` that adds nothing, or not all that it announces."""
    return _added()[1]


@cache
def _added() -> tuple[Mapping[str, Rule], tuple[str, ...]]:
    from importlib.metadata import entry_points  # here: reading a graph file under our own rules needs none of it

    added: dict[str, Rule] = {}
    wrong: list[str] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: (_package(point), point.name)):
        try:
            for rule in _rules(point):
                taken = BUILT_IN.get(rule.name) or added.get(rule.name)
                if taken is not None:
                    owner = taken.distribution or "draftgraph"
                    raise ValueError(f"its rule {rule.name!r} has a name that is taken by {owner}; rename it")
                added[rule.name] = replace(rule, distribution=_package(point))
        except Exception as error:  # whatever a package does when it is imported, our own rules must go on
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            wrong.append(f"the policies of package {_package(point)} ({point.value}) cannot be used: {kind}{error}")
            warnings.warn(wrong[-1], PolicyPluginWarning, stacklevel=4)
    return MappingProxyType(added), tuple(wrong)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value.partition(":")[0]


def _rules(point: EntryPoint) -> tuple[Rule, ...]:
    found = point.load()
    rules = tuple(found) if isinstance(found, tuple | list) else (found,)
    for rule in rules:
        if not isinstance(rule, Rule):
            raise ValueError(
                f"{point.value} is {type(rule).__name__}, expected a verify.policies.rule.Rule, or several"
            )
    return rules
