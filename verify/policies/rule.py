"""A rule by name: how it is written, what it makes, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from verify.policies.base import BasePolicy
from verify.policies.contract import Policy
from verify.policies.parameters import Parameter, form_of, read_arguments

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Rule:
    """A rule, or a name that a published loop gives to one.

    Attributes:
        name: the first word of a specification.
        parameters: what follows it, each behind a colon; those with a default come last.
        make: called with the values of the parameters in order, and ``sampling`` by keyword. A ValueError of it is
            shown to the user with the specification and the form.
        summary: what it commits, in one sentence.
        source: where it was published: paper and section, or repository and file.
        examples: specifications that are good values to begin with, at least one; one for each kind of view that the
            rule may read.
        exact: whether it commits what its source commits when given the same distributions. Drafts are lossless either
            way.
        stands_for: of a published name the rules that it makes; their ``name`` is stored, this one never is.
        distribution: the installed package that brought it, empty for the rules of draftgraph.

    Raises:
        ValueError: a name that a specification cannot hold, a parameter without a default behind one with, or no
            example.
    """

    name: str
    parameters: tuple[Parameter, ...]
    make: Callable[..., Policy]
    summary: str
    source: str
    examples: tuple[str, ...]
    exact: bool = True
    stands_for: str = ""
    distribution: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"the rule's name is {self.name!r}, expected a letter, then letters, digits, '_', '.' or '-'"
            )
        required = [one.required for one in self.parameters]
        if required != sorted(required, reverse=True):
            raise ValueError(f"rule {self.name}: a parameter that must be given stands behind one with a default")
        if not self.examples:
            raise ValueError(f"rule {self.name} has no example, expected at least one specification")

    @classmethod
    def of(cls, policy: type[BasePolicy], source: str, examples: Sequence[str], *, exact: bool = True) -> Rule:
        """The rule of a policy class, which has its name and parameters; the summary is its docstring's first line."""
        summary = (policy.__doc__ or "").strip().partition("\n")[0].replace("``", "")
        return cls(policy.name, policy.parameters, policy, summary, source, tuple(examples), exact)

    @property
    def form(self) -> str:
        """How it is written, parameters with defaults in brackets: ``dynamic:tau[:k or :S/L]``."""
        return self.name + form_of(self.parameters)

    def values(self, texts: Sequence[str]) -> list[Any]:
        """The values of the parameters in ``texts``; a ValueError says what is wrong with them."""
        return read_arguments(self.parameters, texts)
