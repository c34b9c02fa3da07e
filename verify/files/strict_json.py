"""Reading JSON that strangers wrote: nothing ambiguous, nothing absurd, and an error that names both sides.

Python's own reader takes the last of two equal keys, reads ``NaN``, turns ``1e999`` into infinity and
recurses as deep as the text tells it to. A file that another runtime reads too must mean one thing, so all of
that is refused. Every message has the form ``<where>: expected <this>, found <that>``.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from verify.files.quoting import plain_or_quoted, quoted

# Beyond this, readers that hold numbers as doubles (JavaScript, jq, Lua) silently change an integer.
MAX_INTEGER = 2**53 - 1
MAX_TEXT = 4096
MAX_NESTING = 16
# An object costs some 200 bytes of memory and a list 60 where the text has six or three, so both are counted in the
# text, before any is made.
MAX_KEYS = 2**18
MAX_CONTAINERS = 2**21


class StrictJsonError(ValueError):
    """JSON that is malformed, ambiguous or not of the expected form."""


def show(value: object) -> str:
    """``value`` for a message, in JSON's words and never longer than a line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, int | float):
        return repr(value) if type(value) in (int, float) else f"{float(value)!r} ({type(value).__name__})"
    if isinstance(value, list | tuple):
        if len(value) <= 4 and all(type(item) in (int, float) for item in value):
            return f"[{', '.join(show(item) for item in value)}]"
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    return f"a value of type {type(value).__name__}"


def member(where: str, key: str) -> str:
    """The place of the field ``key`` in the object at ``where``; a key that is no plain word is quoted."""
    shown = plain_or_quoted(key)
    return f"{where}.{shown}" if shown == key else f"{where}[{shown}]"


class Words(str):
    """A text that :func:`fail` prints as it is."""


def fail(where: str, expected: str, found: object) -> NoReturn:
    """Raise the error; ``found`` is shown as a value, or as it is when it is :class:`Words`."""
    text = found if isinstance(found, Words) else show(found)
    raise StrictJsonError(f"{where}: expected {expected}, found {text}")


def read_json(path: str | Path, max_bytes: int, max_keys: int = MAX_KEYS) -> Any:
    """Parse the JSON file at ``path``, of at most ``max_bytes`` bytes and ``max_keys`` keys in all its objects.

    Raises:
        StrictJsonError: there is no regular file, it holds more than ``max_bytes``, or :func:`parse_json`
            refuses it.
    """
    try:
        status = os.stat(path)
        # A pipe would block for ever and a device never ends, so the kind is asked before the file is opened.
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "neither a file nor a directory"
            fail("path", "a JSON file", Words(kind))
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        fail("path", "a readable JSON file", Words((error.strerror or type(error).__name__).lower()))
    if len(data) > max_bytes:
        fail("size", f"at most {max_bytes} bytes", Words(f"{max(status.st_size, len(data))} bytes"))
    return parse_json(data, max_keys)


def parse_json(data: bytes, max_keys: int = MAX_KEYS) -> Any:
    """Parse UTF-8 JSON strictly.

    Raises:
        StrictJsonError: more than ``max_keys`` keys or 2**21 lists and objects, not UTF-8, not JSON, a key twice
            in one object, NaN or an infinity (also as ``1e999``), an integer beyond 2**53 - 1, or nesting so deep
            that the reader would overflow.
    """
    # A colon behind a quote ends a key. Inside a text that may be an escaped quote, so this counts a few too many.
    if next(islice(re.finditer(rb'"[ \t\n\r]*:', data), max_keys, None), None) is not None:
        fail("size", f"at most {max_keys} keys", Words("more"))
    if (containers := data.count(b"[") + data.count(b"{")) > MAX_CONTAINERS:
        fail("size", f"at most {MAX_CONTAINERS} lists and objects", Words(f"{containers}"))
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object_of_distinct_keys,
            parse_constant=_no_constant,
            parse_float=_finite_float,
            parse_int=_safe_integer,
        )
    except UnicodeDecodeError as error:
        fail("text", "UTF-8", Words(f"byte 0x{data[error.start]:02x} at offset {error.start}"))
    except json.JSONDecodeError as error:
        fail("text", "JSON", Words(f"none at line {error.lineno}, column {error.colno}: {error.msg.lower()}"))
    except RecursionError:
        fail("text", f"nesting of at most {MAX_NESTING} levels", Words("nesting too deep to read"))


def _object_of_distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            fail("object", "every key once", Words(f"the key {show(key)} twice"))
        result[key] = value
    return result


def _no_constant(text: str) -> NoReturn:
    fail("number", "a finite number", Words(text))


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        fail("number", "a finite number", Words(text[:60]))
    return value


def _safe_integer(text: str) -> int:
    # The length first: reading a number of a million digits takes quadratic time.
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        fail(
            "number",
            "an integer within ±(2**53 - 1)",
            Words(text if len(text) <= 40 else f"{len(text)} digits"),
        )
    return int(text)


def expect_object(value: object, where: str, fields: Sequence[str] | None = None) -> dict[str, Any]:
    """``value`` as an object; with ``fields``, one that holds exactly these."""
    if not isinstance(value, dict):
        fail(where, "an object", value)
    if fields is not None:
        missing = [name for name in fields if name not in value]
        unknown = [name for name in value if name not in fields]
        if missing:
            expect_field(value, missing[0], where)
        if unknown:
            fail(where, f"no field but {', '.join(fields)}", Words(f"the field {show(unknown[0])}"))
    return value


def expect_format(payload: object, name: str, version: int) -> dict[str, Any]:
    """A whole file as an object that states the format ``name`` and this ``version``.

    Asked before its fields: a file of another version may well have others.
    """
    outer = expect_object(payload, "file")
    if outer.get("format") != name:
        fail("format", f'"{name}"', outer.get("format", Words("no such field")))
    found = outer.get("version", Words("no such field"))
    if type(found) is not int or found != version:
        fail("version", f"{version}, the only one this release reads", found)
    return outer


def expect_field(item: dict[str, Any], name: str, where: str) -> Any:
    """``item[name]``, which must be there."""
    if name not in item:
        names = ", ".join(map(show, item)) or "nothing"
        fail(where, f"the field {show(name)}", Words(f"only {names if len(names) <= 200 else names[:197] + '...'}"))
    return item[name]


def expect_list(value: object, where: str, what: str = "a list") -> Sequence[Any]:
    """``value`` as a list."""
    if not isinstance(value, list):
        fail(where, what, value)
    return value


def expect_integer(value: object, where: str, low: int, high: int = MAX_INTEGER) -> int:
    """``value`` as an integer in ``low..high``; ``true`` and ``1.0`` are refused."""
    if type(value) is not int or not low <= value <= high:
        fail(
            where, f"an integer of at least {low}" if high == MAX_INTEGER else f"an integer from {low} to {high}", value
        )
    return value


def expect_number(value: object, where: str, low: float = -math.inf) -> float:
    """``value`` as a finite number of at least ``low``; ``true`` is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < low:
        fail(where, "a finite number" + (f" of at least {low:g}" if low > -math.inf else ""), value)
    return float(value)


def expect_text(value: object, where: str) -> str:
    """``value`` as a non-empty text that UTF-8 can hold (JSON can name half of a surrogate pair)."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        fail(where, f"a text of 1 to {MAX_TEXT} characters", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        fail(where, "a text that UTF-8 can hold", value)
    return value


def expect_plain(value: object, where: str, levels: int = MAX_NESTING) -> None:
    """Check that ``value`` is null, true, false, finite numbers, texts, and lists and objects of such."""
    if value is None or isinstance(value, bool) or value == "":
        return
    if isinstance(value, str):
        expect_text(value, where)
    elif isinstance(value, int):
        expect_integer(value, where, -MAX_INTEGER, MAX_INTEGER)
    elif isinstance(value, float):
        expect_number(value, where)
    elif levels == 0:
        fail(where, f"nesting of at most {MAX_NESTING} levels", Words("a deeper one"))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            expect_plain(item, f"{where}[{index}]", levels - 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            expect_text(key, f"a key of {where}")
            expect_plain(item, member(where, key), levels - 1)
    else:
        fail(where, "null, true, false, a number, a text, a list or an object", value)
