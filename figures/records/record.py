"""Reading and writing saved files: one dataclass per kind of file, which the study that writes it fills.

The class names its format in ``FORMAT``; its type hints say what the file holds (:mod:`verify.files.typed_json`). What
is written goes through the reader first, so that no file of ours is refused by us.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from calibrate.files import write_json
from calibrate.version import tool_version
from verify.files.strict_json import StrictJsonError, Words, expect_object, fail, read_json, show
from verify.files.typed_json import from_json, to_json

FORMAT_VERSION = 1
MAX_BYTES = 256 * 2**20
MAX_KEYS = 2**22  # a run of thousands of rows


class FigureDataError(ValueError):
    """Saved results that cannot be used: missing, malformed, or without the rows that are needed."""


class Saved(Protocol):
    """A dataclass that is the content of a file."""

    FORMAT: ClassVar[str]


T = TypeVar("T", bound=Saved)


def load_record(kind: type[T], path: str | Path) -> T:
    """The file at ``path`` as an instance of ``kind``.

    Raises:
        FigureDataError: there is no regular file, it is no JSON object of the format and version, or a field is
            missing or wrong; the message is ``<path>: <place>: expected <this>, found <that>``.
    """
    try:
        outer = expect_object(read_json(path, MAX_BYTES, MAX_KEYS), "file")
        check_format(outer, kind.FORMAT)
        return from_json(kind, outer)
    except StrictJsonError as error:
        raise FigureDataError(f"{path}: {error}") from None


def save_record(record: Saved, path: str | Path) -> None:
    """Write ``record`` as JSON, whole or not at all, with its format, its version and the version of this tool.

    Raises:
        FigureDataError: the record breaks its own type hints, so nobody could read it.
        OSError: the file cannot be written; whatever stood at ``path`` is untouched.
    """
    content = to_json(record)
    try:
        from_json(type(record), content)
    except StrictJsonError as error:
        raise FigureDataError(f"{path}: {error}") from None
    header = {"format": record.FORMAT, "version": FORMAT_VERSION, "tool_version": tool_version()}
    write_json(path, {**header, **content})


def read_object(path: str | Path) -> dict[str, Any]:
    """The JSON object at ``path``, of whatever format.

    Raises:
        FigureDataError: the file cannot be read or holds no JSON object.
    """
    try:
        return expect_object(read_json(path, MAX_BYTES, MAX_KEYS), "file")
    except StrictJsonError as error:
        raise FigureDataError(f"{path}: {error}") from None


def check_format(outer: dict[str, Any], name: str) -> None:
    """Refuse another ``format`` than ``name`` and another ``version`` than the one this release reads."""
    if outer.get("format") != name:
        fail("format", show(name), outer.get("format", Words("no such field")))
    version = outer.get("version", Words("no such field"))
    if type(version) is not int or version != FORMAT_VERSION:
        fail("version", f"{FORMAT_VERSION}, the only one this release reads", version)


def check_interval(low: float | None, high: float | None, name: str, where: str) -> None:
    """Refuse half an interval and one the wrong way round."""
    if (low is None) != (high is None):
        fail(f"{where}.{name}_low and _high", "both ends of the interval or neither", Words("one of them"))
    if low is not None and high is not None and low > high:
        fail(f"{where}.{name}_low", f"at most {name}_high = {high!r}", low)


def check_pair(pair: tuple[float, float], where: str) -> None:
    """Refuse an interval ``[low, high]`` the wrong way round."""
    if pair[0] > pair[1]:
        fail(where, "an interval [low, high]", list(pair))
