"""Parameters of rules: what each is called, which values it takes, and how they are written.

One declaration serves the parser, the shortest text, the error message and the table of ``draftgraph policies``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


class _Required:
    """The default of a parameter that must be given."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


@dataclass(frozen=True)
class Parameter:
    """A parameter of a rule; its kind, a subclass, says which values it takes.

    Attributes:
        name: as in forms and messages.
        default: what is taken where the text ends before it; ``REQUIRED`` where it must be given.
    """

    name: str
    default: Any = field(default=REQUIRED, kw_only=True)

    @property
    def required(self) -> bool:
        """Whether a text must give it."""
        return self.default is REQUIRED

    @property
    def form(self) -> str:
        """How it stands in the form of a specification."""
        return self.name

    @property
    def range(self) -> str:
        """The values that it takes, in words."""
        raise NotImplementedError

    def value(self, text: str) -> Any:
        """The value that ``text`` stands for; a ValueError with any message where it stands for none."""
        raise NotImplementedError

    def read(self, text: str) -> Any:
        """The value that ``text`` stands for.

        Raises:
            ValueError: it stands for none; the message says what came and what was expected.
        """
        try:
            return self.value(text)
        except ValueError:
            raise ValueError(f"{self.name} is {text!r}, expected {self.range}") from None

    def check_stored(self, text: str) -> None:
        """Refuse a ``text`` that may be typed but not stored, as it means something else on another machine.

        Raises:
            ValueError: it is such a text.
        """

    def write(self, value: Any) -> str:
        """The shortest text that :meth:`read` makes ``value`` of."""
        return str(value)


@dataclass(frozen=True)
class Whole(Parameter):
    """An integer from ``low`` to ``high``, both taken; None: without an upper end."""

    low: int = 1
    high: int | None = None

    @property
    def range(self) -> str:
        return f"an integer of at least {self.low}" + (f" and at most {self.high}" if self.high is not None else "")

    def value(self, text: str) -> int:
        found = int(text)
        if found < self.low or (self.high is not None and found > self.high):
            raise ValueError
        return found


@dataclass(frozen=True)
class Number(Parameter):
    """A finite number from ``low`` to ``high`` (None: without an upper end); an open end is not taken itself."""

    low: float = 0.0
    high: float | None = 1.0
    low_open: bool = True
    high_open: bool = False

    @property
    def range(self) -> str:
        words = "a number " + ("above " if self.low_open else "of at least ") + number_text(self.low)
        if self.high is not None:
            words += (" and below " if self.high_open else " and at most ") + number_text(self.high)
        return words

    def value(self, text: str) -> float:
        found = float(text)
        high = math.inf if self.high is None else self.high
        inside = self.low <= found <= high and math.isfinite(found)
        if not inside or (self.low_open and found == self.low) or (self.high_open and found == high):
            raise ValueError
        return found

    def write(self, value: float) -> str:
        return number_text(value)


@dataclass(frozen=True)
class Choice(Parameter):
    """One of some words; they may not hold ``:`` or ``@``."""

    options: tuple[str, ...] = ()

    @property
    def form(self) -> str:
        return "|".join(self.options)

    @property
    def range(self) -> str:
        return "one of " + ", ".join(self.options)

    def value(self, text: str) -> str:
        if text not in self.options:
            raise ValueError
        return text


@dataclass(frozen=True)
class Steps(Parameter):
    """Steps for a block: ``S/L``, S steps for L positions, as the pair (S, L); or a lone number, where it has a name.

    Attributes:
        lone: what a number without a slash is called, read as the integer itself; empty where one is refused.
    """

    lone: str = ""

    @property
    def form(self) -> str:
        return {"": self.name, "S": "S[/L]"}.get(self.lone, f"{self.lone} or :{self.name}")

    @property
    def range(self) -> str:
        pair = "S/L (S steps per block of L positions)"
        return f"an integer {self.lone} of at least 1, or {pair}" if self.lone else pair

    def read(self, text: str) -> int | tuple[int, int]:
        steps, slash, positions = text.partition("/")
        if slash:
            return Whole("S").read(steps), Whole("L").read(positions)
        if not self.lone:
            raise ValueError(f"{text!r} lacks the block length, expected {self.range}, for example 8/32")
        return Whole(self.lone).read(steps)

    def write(self, value: int | tuple[int, int]) -> str:
        return str(value) if isinstance(value, int) else f"{value[0]}/{value[1]}"


def read_arguments(parameters: Sequence[Parameter], texts: Sequence[str]) -> list[Any]:
    """The values of ``parameters`` in ``texts``, the defaults of those that it ends before.

    Raises:
        ValueError: too few or too many texts, or one that its parameter does not take.
    """
    least, most = sum(one.required for one in parameters), len(parameters)
    given = len([text for text in texts if text])
    if not least <= len(texts) <= most or given < least:
        expected = f"{least}" if least == most else f"{least} {'or' if most == least + 1 else 'to'} {most}"
        raise ValueError(f"it has {given} parameter{'s' * (given != 1)}, expected {expected}")
    values = [parameter.read(text) for parameter, text in zip(parameters, texts, strict=False)]
    return values + [parameter.default for parameter in parameters[len(texts) :]]


def write_arguments(parameters: Sequence[Parameter], values: Iterable[Any]) -> list[str]:
    """The shortest texts that :func:`read_arguments` makes ``values`` of: trailing defaults are left out."""
    stated = list(zip(parameters, values, strict=True))
    while stated and stated[-1][1] == stated[-1][0].default:
        stated.pop()
    return [parameter.write(value) for parameter, value in stated]


def form_of(parameters: Sequence[Parameter]) -> str:
    """How ``parameters`` stand in a specification, with a colon before each: ``:tau[:k or :S/L]``."""
    text = ""
    for parameter in parameters:
        text += f":{parameter.form}" if parameter.required else f"[:{parameter.form}"
    return text + "]" * sum(not parameter.required for parameter in parameters)


def number_text(value: float) -> str:
    """The shortest text of a number that reads back as the same one."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
