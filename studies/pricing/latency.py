"""The latency file: a table of ``calibrate.measuring.latency_table`` as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from calibrate.files import write_json
from calibrate.measuring.latency_table import LatencyError, LatencyTable
from calibrate.version import tool_version
from studies.runs.run_directory import read_json

LATENCY_FORMAT = "draftgraph-latency"
LATENCY_VERSION = 1
#: Tables of a folder that a message lists.
_NAMED = 4


def save_latency(table: LatencyTable, path: str | Path) -> None:
    """Write a table as JSON, units named."""
    write_json(
        path, {"format": LATENCY_FORMAT, "version": LATENCY_VERSION, "tool_version": tool_version(), **asdict(table)}
    )


_TEXTS = ("device", "dtype", "model", "backend", "unit", "note", "cache", "engine")
_COUNTS = ("block_length", "context_length", "batch", "repeats")


def load_latency(path: str | Path) -> LatencyTable:
    """Read a table.

    Raises:
        LatencyError: nothing there, a folder, no latency file, of another version, or with fields that are no table:
            text among numbers, columns of different length, rows that do not follow from the numbers of drafts.
        studies.runs.run_directory.RunDirectoryError: the file is no JSON.
    """
    if Path(path).is_dir():
        tables = sorted(str(table) for table in Path(path).glob("batch-*-context-*.json"))
        if tables:
            listed = ", ".join(tables[:_NAMED]) + (", ..." if len(tables) > _NAMED else "")
            raise LatencyError(f"{path} is a folder of tables; name one: {listed}")
        raise LatencyError(f"{path} is a folder, expected a latency file of `draftgraph latency`")
    if not Path(path).is_file():
        raise LatencyError(f"{path} is no file; measure one with `draftgraph latency --out {path}`")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != LATENCY_FORMAT:
        raise LatencyError(f"{path} is no latency file; measure one with `draftgraph latency`")
    if content.get("version") != LATENCY_VERSION:
        raise LatencyError(f"{path} has version {content.get('version')!r}, this draftgraph reads {LATENCY_VERSION}")
    known = fields(LatencyTable)
    missing = sorted(item.name for item in known if item.default is MISSING and item.name not in content)
    if missing:
        raise LatencyError(f"{path} lacks {', '.join(missing)}; measure it again")
    said = {item.name: content[item.name] for item in known if item.name in content}
    for name in ("drafts", "query_tokens"):
        said[name] = _column(path, name, said[name], _is_count, "integers of at least 0")
    for name in ("latency", "low", "high"):
        said[name] = _column(path, name, said[name], _is_time, "numbers")
    for names, fits, expected in (
        (_TEXTS, lambda value: isinstance(value, str), "a text"),
        (_COUNTS, lambda value: _is_count(value) and value > 0, "an integer of at least 1"),
        (("refresh",), _is_time, "a number"),
    ):
        for name in names:
            if name in said and not fits(said[name]):
                raise LatencyError(f"{path}: {name} must be {expected}, found {said[name]!r}; measure it again")
    table = LatencyTable(**said)
    columns = (table.drafts, table.query_tokens, table.latency, table.low, table.high)
    if len({len(column) for column in columns}) != 1 or not table.drafts or table.drafts[0] != 0:
        raise LatencyError(
            f"{path}: drafts, query_tokens, latency, low and high must be as long as each other, drafts from 0"
        )
    if list(table.drafts) != sorted(set(table.drafts)):
        raise LatencyError(f"{path}: drafts must ascend, found {list(table.drafts)}")
    if table.query_tokens != tuple(table.batch * table.block_length * (1 + drafts) for drafts in table.drafts):
        raise LatencyError(
            f"{path}: query_tokens must be batch * block length * (1 + drafts), found {list(table.query_tokens)}"
        )
    if table.unit != "ms":
        raise LatencyError(f"{path} holds times in {table.unit!r}, expected 'ms'")
    if min(table.latency) <= 0 or table.refresh <= 0:
        raise LatencyError(f"{path} holds a time that is not above 0")
    return table


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _column(path: str | Path, name: str, value: Any, fits: Callable[[Any], bool], expected: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise LatencyError(f"{path}: {name} must be a list of {expected}, found {value!r}; measure it again")
    for item in value:
        if not fits(item):
            raise LatencyError(f"{path}: {name} must hold {expected}, found {item!r}; measure it again")
    return tuple(value)
