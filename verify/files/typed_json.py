"""Dataclasses as JSON: a class with type hints is the specification of its file, for the writer and for the reader.

The reader walks the type hints and trusts nothing. Every message names the place, what was expected and what was found
(:mod:`verify.files.strict_json`). It understands

* ``str``, ``bool``, ``int``, ``float`` (finite; a whole number may stand for it) and ``Literal[...]``;
* ``Annotated`` numbers and texts with a :class:`Limit`, for which the names below are short;
* ``X | None``, where null stands for None;
* ``tuple[X, ...]`` and ``tuple[X, Y]`` as lists, ``dict[str, X]`` as objects, dataclasses as objects;
* ``Any``: whatever JSON holds, as far as its texts, numbers and nesting are within limits.

A field without a default must be there. Fields that the class does not know are ignored, so that a newer version may
add some. A dataclass with a method ``check(where)`` is asked, once it is made, whether its fields fit each other.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from verify.files.strict_json import (
    MAX_INTEGER,
    expect_field,
    expect_integer,
    expect_list,
    expect_number,
    expect_object,
    expect_plain,
    expect_text,
    fail,
    member,
)

T = TypeVar("T")

#: Metadata of a dataclass field that is not part of the file, such as the place it was read from.
NOT_SAVED: Mapping[str, Any] = {"saved": False}


@dataclasses.dataclass(frozen=True)
class Limit:
    """The least value of a number; ``above``: only greater ones. For a text: not empty."""

    low: float = 0
    above: bool = False


Count = Annotated[int, Limit(0)]
Positive = Annotated[int, Limit(1)]
Amount = Annotated[float, Limit(0)]
AboveZero = Annotated[float, Limit(0, above=True)]
#: A text that is not empty.
Name = Annotated[str, Limit()]


def from_json(kind: type[T], value: object, where: str = "") -> T:
    """``value``, as :func:`verify.files.strict_json.parse_json` gives it, as an instance of the dataclass ``kind``.

    Args:
        kind: a dataclass.
        value: what came.
        where: the place of ``value`` in its file, for messages; empty for the whole file.

    Raises:
        verify.files.strict_json.StrictJsonError: a field that is missing, of another type or out of range, or fields
            that do not fit each other.
    """
    item = expect_object(value, where or "file")
    found = {}
    known: Any = kind  # a class can be hashed, which mypy does not see for a type variable
    for field, hint, required in _fields(known):
        if required or field in item:
            place = member(where, field) if where else field
            found[field] = _read(hint, expect_field(item, field, where or "file"), place)
    made = kind(**found)
    check = getattr(made, "check", None)
    if check is not None:
        check(where or "file")
    return made


def to_json(value: Any) -> Any:
    """``value`` with dataclasses as objects and tuples as lists; the inverse of :func:`from_json`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field: to_json(getattr(value, field)) for field, _, _ in _fields(type(value))}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


@functools.cache
def _fields(kind: type) -> tuple[tuple[str, Any, bool], ...]:
    """Name and type hint of every field that is saved, and whether it must be there."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        (
            field.name,
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
        if field.metadata.get("saved", True)
    )


def _read(hint: Any, value: object, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _limited(args[0], args[1], value, where)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not types.NoneType]
        return None if value is None and len(inner) < len(args) else _read(inner[0], value, where)
    if origin is Literal:
        if value not in args or type(value) not in map(type, args):
            fail(where, f"one of {', '.join(map(str, args))}", value)
        return value
    if origin is tuple:
        return _tuple(args, value, where)
    if origin is dict:
        item = expect_object(value, where)
        return {expect_text(key, f"a key of {where}"): _read(args[1], item[key], member(where, key)) for key in item}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, where)
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: object, where: str) -> Any:
    if hint is Any:
        expect_plain(value, where)
    elif hint is str:
        return value if value == "" else expect_text(value, where)
    elif hint is bool:
        if not isinstance(value, bool):
            fail(where, "true or false", value)
    elif hint is int:
        if type(value) is not int or abs(value) > MAX_INTEGER:
            fail(where, "an integer", value)
    elif hint is float:
        return expect_number(value, where)
    else:
        raise TypeError(f"{where}: type hints of saved files cannot be {hint!r}")
    return value


def _limited(base: Any, limit: Limit, value: object, where: str) -> Any:
    if base is str:
        return expect_text(value, where)
    if base is int:
        return expect_integer(value, where, int(limit.low))
    if limit.above and (isinstance(value, bool) or not isinstance(value, int | float) or value <= limit.low):
        fail(where, f"a finite number above {limit.low:g}", value)
    return expect_number(value, where, limit.low)


def _tuple(args: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    items = expect_list(value, where)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_read(args[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    if len(items) != len(args):
        fail(where, f"a list of {len(args)}", value)
    return tuple(
        _read(arg, item, f"{where}[{index}]") for index, (arg, item) in enumerate(zip(args, items, strict=True))
    )
