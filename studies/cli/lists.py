"""Lists on the command line: one spelling for all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


def parse_list(
    text: str, convert: Callable[[str], Any], name: str, example: str = "0,3,5 or 0-16", least: int | None = None
) -> tuple[Any, ...]:
    """Parse ``a,b,c``; of whole numbers also ``0-16``, and ``0-4,8,16``.

    Args:
        text: the option's value.
        convert: makes a value of a part.
        name: of the option.
        example: of such a list, for messages.
        least: the smallest number that is taken.

    Raises:
        ValueError: an empty list, a part that does not convert, a range that runs backwards, or a number below
            ``least``.
    """
    values: list[Any] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        ends = _RANGE.fullmatch(part) if convert is int else None
        if ends is None:
            try:
                values.append(convert(part))
            except ValueError as error:
                raise ValueError(f"{name}: cannot read {text!r} ({error}); expected for example {example}") from error
            continue
        low, high = int(ends[1]), int(ends[2])
        if low > high:
            raise ValueError(f"{name}: {part!r} runs backwards; write {high}-{low}")
        values += range(low, high + 1)
    if not values:
        raise ValueError(f"{name} is empty; expected for example {example}")
    if least is not None and min(values) < least:
        raise ValueError(f"{name} must be at least {least}, got {min(values)}")
    return tuple(values)
