"""Lists on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def parse_list(
    text: str, convert: Callable[[str], Any], name: str, example: str = "0,3,5,8,10", least: int | None = None
) -> tuple[Any, ...]:
    """Parse ``a,b,c``.

    Args:
        text: what was given.
        convert: makes a value of a part.
        name: of the option.
        example: of such a list, for messages.
        least: the smallest number that is taken.

    Raises:
        ValueError: an empty list, a part that does not convert, or a number below ``least``.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        values = tuple(convert(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"{name}: cannot read {text!r} ({error}); expected for example {example}") from error
    if not values:
        raise ValueError(f"{name} is empty; expected for example {example}")
    if least is not None and min(values) < least:
        raise ValueError(f"{name} must be at least {least}, got {min(values)}")
    return values


def parse_drafts(text: str) -> tuple[int, ...]:
    """``0-16`` or ``0,1,2,4,8``, none below 0; raises ``ValueError`` otherwise."""
    low, dash, high = text.partition("-")
    if dash and low.strip().isdigit() and high.strip().isdigit():
        if int(low) > int(high):
            raise ValueError(f"--drafts: {text!r} runs backwards; write {high.strip()}-{low.strip()}")
        return tuple(range(int(low), int(high) + 1))
    return parse_list(text, int, "--drafts", "0-16 or 0,4,10", least=0)


def parse_loads(batch: str, context_length: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The lists of ``--batch`` and ``--context-length``, none below 1; raises ``ValueError`` otherwise."""
    return (
        parse_list(batch, int, "--batch", "1,4,16", least=1),
        parse_list(context_length, int, "--context-length", "256,1024", least=1),
    )
