"""How figures say numbers and names, so that all of them say it in the same way."""

from __future__ import annotations

from collections.abc import Iterable

#: With fewer prompts than this an interval over prompts covers too little, so a headline concludes nothing.
FEWEST_PROMPTS = 12
#: What figures call the splits.
SPLIT_NAMES = {"test": "held-out (test)", "validation": "validation", "search": "search"}


def plural(count: int, noun: str) -> str:
    """ "1 prompt", "2 prompts", "12,000 anchors"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def prompts_of(split: str, numbers: Iterable[int | None]) -> str:
    """ "48 held-out (test) prompts", without the number where it is not known or differs."""
    known = set(numbers)
    number = known.pop() if len(known) == 1 else None
    name = SPLIT_NAMES[split]
    return f"{name} prompts" if number is None else plural(number, f"{name} prompt")


def too_few(numbers: Iterable[int | None]) -> int | None:
    """The least of the numbers of prompts where it is below :data:`FEWEST_PROMPTS`; None counts for nothing."""
    least = min((number for number in numbers if number is not None), default=FEWEST_PROMPTS)
    return least if least < FEWEST_PROMPTS else None


def cautious(headline: str, numbers: Iterable[int | None], split: str = "test") -> str:
    """``headline``, or how many prompts there were where they are too few to conclude anything from.

    Args:
        headline: what the figure shows.
        numbers: of prompts, of everything that the headline speaks of; None where a file does not say.
        split: of these prompts.
    """
    least = too_few(numbers)
    if least is None:
        return headline
    return f"Only {plural(least, f'{SPLIT_NAMES[split]} prompt')}: too few to conclude anything"


def percent(share: float) -> str:
    """A share for a sentence: "8 %", "0.4 %"; "100 %" and "0 %" only where the share is exactly that."""
    if 0 < share < 0.0005:
        return "less than 0.1 %"
    if 0.9995 < share < 1:
        return "more than 99.9 %"
    rounded = 0 < share < 0.0095 or 0.995 <= share < 1
    return f"{100 * share:.1f} %" if rounded else f"{100 * share:.0f} %"
