"""Reading saved results strictly: what is used is checked, what is not known is ignored.

Every figure reads through these few functions, so that all its messages have one form: the file, the place in it, what
was expected and what was found.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from figures.records.record import FigureDataError
from verify.files.strict_json import (
    MAX_INTEGER,
    StrictJsonError,
    Words,
    expect_integer,
    expect_list,
    expect_number,
    expect_object,
    expect_text,
    fail,
    read_json,
    show,
)

RESULTS_FORMAT = "draftgraph-results"
STUDY_FORMAT = "draftgraph-study"
LATENCY_FORMAT = "draftgraph-latency"
BUDGET_FORMAT = "draftgraph-budget"
DIVERGENCE_FORMAT = "draftgraph-divergence"
FORMAT_VERSION = 1
MAX_BYTES = 256 * 2**20
MAX_KEYS = 2**22  # a run of thousands of rows
SPLITS = ("search", "validation", "test")

Item = dict[str, Any]
T = TypeVar("T")


def read_saved(path: Path, build: Callable[[Item], T]) -> T:
    """The JSON object at ``path``, through ``build``.

    Raises:
        FigureDataError: the file cannot be read, is no JSON object, or ``build`` refuses it; the message begins with
            the path.
    """
    try:
        return build(expect_object(read_json(path, MAX_BYTES, MAX_KEYS), "file"))
    except StrictJsonError as error:
        raise FigureDataError(f"{path}: {error}") from None


def check_format(outer: Item, name: str) -> None:
    """Refuse another ``format`` than ``name`` and another ``version`` than the one this release draws."""
    if outer.get("format") != name:
        fail("format", show(name), outer.get("format", Words("no such field")))
    version = outer.get("version", Words("no such field"))
    if type(version) is not int or version != FORMAT_VERSION:
        fail("version", f"{FORMAT_VERSION}, the only one this release draws", version)


def each(outer: Item, name: str, read: Callable[[Item, str], T]) -> tuple[T, ...]:
    """The objects of the list ``outer[name]``, one by one through ``read``; none where there is no such list."""
    items = expect_list(outer.get(name, []), name)
    return tuple(read(expect_object(item, f"{name}[{index}]"), f"{name}[{index}]") for index, item in enumerate(items))


def some_rows(outer: Item, read: Callable[[Item, str], T]) -> tuple[T, ...]:
    """``outer["rows"]`` like :func:`each`, at least one."""
    if not expect_list(outer.get("rows", []), "rows"):
        fail("rows", "at least one result row", Words("none: the run was stopped before its first result"))
    return each(outer, "rows", read)


def need(item: Item, name: str, where: str) -> Any:
    """``item[name]``, which must be there."""
    if name not in item:
        fail(where, f"the field {show(name)}", Words(f"only {', '.join(item) or 'nothing'}"[:200]))
    return item[name]


def text(item: Item, name: str, where: str) -> str:
    """A text that is not empty."""
    return expect_text(need(item, name, where), f"{where}.{name}")


def optional_text(item: Item, name: str, where: str) -> str | None:
    """A text, or None where it is null or absent."""
    return None if item.get(name) is None else text(item, name, where)


def device(outer: Item) -> str:
    """``outer["device"]`` for a reader."""
    return text(outer, "device", "file")


def count(item: Item, name: str, where: str) -> int:
    """An integer of at least 0."""
    return expect_integer(need(item, name, where), f"{where}.{name}", 0, MAX_INTEGER)


def optional_count(item: Item, name: str, where: str) -> int | None:
    """A count, or None where it is null or absent."""
    return None if item.get(name) is None else count(item, name, where)


def number(item: Item, name: str, where: str, low: float = 0.0) -> float:
    """A finite number of at least ``low``."""
    return expect_number(need(item, name, where), f"{where}.{name}", low)


def optional_number(item: Item, name: str, where: str, low: float = 0.0) -> float | None:
    """A number, or None where it is null or absent."""
    return None if item.get(name) is None else number(item, name, where, low)


def numbers(item: Item, name: str, where: str, low: float = 0.0) -> tuple[float, ...]:
    """A list of finite numbers of at least ``low``."""
    place = f"{where}.{name}"
    found = expect_list(need(item, name, where), place, "a list of numbers")
    return tuple(expect_number(value, f"{place}[{index}]", low) for index, value in enumerate(found))


def counts(value: object, where: str) -> tuple[int, ...]:
    """A list of integers of at least 0."""
    return tuple(
        expect_integer(number, f"{where}[{index}]", 0, MAX_INTEGER)
        for index, number in enumerate(expect_list(value, where, "a list of counts"))
    )


def split_name(item: Item, where: str) -> str:
    """``item["split"]``, one of :data:`SPLITS`."""
    split = text(item, "split", where)
    if split not in SPLITS:
        fail(f"{where}.split", f"one of {', '.join(SPLITS)}", split)
    return split


def check_interval(low: float | None, high: float | None, name: str, where: str) -> None:
    """Refuse half an interval and one the wrong way round."""
    if (low is None) != (high is None):
        fail(f"{where}.{name}_low and _high", "both ends of the interval or neither", Words("one of them"))
    if low is not None and high is not None and low > high:
        fail(f"{where}.{name}_low", f"at most {name}_high = {high!r}", low)


def interval(item: Item, name: str, where: str, low: float = 0.0) -> tuple[float | None, float | None]:
    """``name_low`` and ``name_high`` of an item: both or neither, in order."""
    ends = optional_number(item, f"{name}_low", where, low), optional_number(item, f"{name}_high", where, low)
    check_interval(*ends, name, where)
    return ends


def pair(item: Item, name: str, where: str) -> tuple[float, float]:
    """``item[name]`` as an interval ``[low, high]``."""
    found = numbers(item, name, where, low=float("-inf"))
    if len(found) != 2 or found[0] > found[1]:
        fail(f"{where}.{name}", "an interval [low, high]", list(found))
    return found[0], found[1]
