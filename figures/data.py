"""Reading a run directory: results.json as tidy rows, and the graph files that its rows name.

The reader is strict about what it uses - types, finite numbers, intervals the right way round, no row twice - and
ignores fields that it does not know, so that studies may write more than figures show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from figures.style import BOUNDS
from verify.graph_file import GraphFile, GraphFileError, load_graph
from verify.strict_json import (
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
RESULTS_VERSION = 1
MAX_BYTES = 256 * 2**20
SPLITS = ("search", "validation", "test")
#: What the confidence chain and plain decoding are: something to compare with, not a calibrated graph.
BASELINES = frozenset({"plain", "chain"})

T = TypeVar("T")


class FigureDataError(ValueError):
    """A run directory that cannot be drawn: missing, malformed, or without the rows that a figure needs."""


@dataclass(frozen=True)
class ResultRow:
    """One graph on the prompts of one split; None is what the study did not find out.

    Attributes:
        method: the search that made the graph; "plain" is decoding without drafts.
        reading: which reading of the published rule, None for other methods.
        budget: draft nodes asked for.
        accepted_length: drafts accepted, mean over all anchors; ``_visited``: over the anchors that a decode with
            this graph comes by.
        forwards_predicted: forward passes by replay; ``_measured``: counted by the runtime verifier (on as many
            prompts as the study spared for it).
        nfe_reduction: forwards of plain decoding over forwards with the graph.
        bound: no graph of this budget has a higher accepted length on this split.
        graph: path of the graph file, relative to the run directory.

    ``*_low`` and ``*_high`` are the ends of 95 % intervals from resampling prompts.
    """

    method: str
    reading: str | None
    budget: int
    policy: str
    context: str
    split: str
    prompts: int | None
    accepted_length: float | None
    accepted_length_low: float | None
    accepted_length_high: float | None
    accepted_length_visited: float | None
    forwards_plain: int | None
    forwards_predicted: int | None
    forwards_measured: int | None
    nfe_reduction: float | None
    nfe_reduction_low: float | None
    nfe_reduction_high: float | None
    bound: float | None
    graph: str | None


@dataclass(frozen=True)
class Histogram:
    """``counts[n]`` forwards accepted ``n`` drafts."""

    method: str
    reading: str | None
    budget: int
    policy: str
    split: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class RankCounts:
    """How often the pairs of formulas were committed.

    Attributes:
        position_by_vocabulary: [position rank - 1][vocabulary rank - 1], pairs committed by the next step.
        position_by_depth: [position rank - 1][steps ahead - 1].
    """

    policy: str
    split: str
    position_by_vocabulary: tuple[tuple[int, ...], ...]
    position_by_depth: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Run:
    """A run directory that was read."""

    directory: Path
    config: dict[str, Any]
    rows: tuple[ResultRow, ...]
    histograms: tuple[Histogram, ...]
    rank_counts: tuple[RankCounts, ...]

    def panels(self) -> list[tuple[str, str]]:
        """The (policy, context) pairs in the order of the rows."""
        return list(dict.fromkeys((row.policy, row.context) for row in self.rows))

    def policies(self) -> list[str]:
        """The policies in the order of the rows."""
        return list(dict.fromkeys(row.policy for row in self.rows))

    def setting(self) -> str:
        """Model and context as a sentence, so that a figure says so on its own; empty where the run does not."""
        model = self.config.get("model")
        contexts = ", ".join(dict.fromkeys(row.context for row in self.rows))
        return f"Model: {model}, context: {contexts}." if isinstance(model, str) else ""

    def select(self, **wanted: object) -> list[ResultRow]:
        """The rows whose fields equal ``wanted``, in order."""
        return [row for row in self.rows if all(getattr(row, key) == value for key, value in wanted.items())]

    def load_graph(self, row: ResultRow) -> GraphFile:
        """The graph file that ``row`` names.

        Raises:
            FigureDataError: the row names none, or the file is missing or breaks the format.
        """
        if row.graph is None:
            raise FigureDataError(f"{self.directory}: {describe(row)} names no graph file, so none can be drawn")
        try:
            return load_graph(self.directory / row.graph)
        except GraphFileError as error:
            raise FigureDataError(f"graph of {describe(row)}: {error}") from None


def describe(row: ResultRow) -> str:
    """A row in words, for messages."""
    reading = f" ({row.reading})" if row.reading else ""
    return f"{row.method}{reading} with budget {row.budget}, policy {row.policy}, split {row.split}"


def best_row(run: Run, rows: Sequence[ResultRow]) -> ResultRow:
    """The row of the best graph among ``rows`` (of one policy and budget); never a baseline or a bound.

    Best is the largest nfe reduction on validation prompts, else on search prompts, else on test prompts: what is
    reported on test prompts must not have been chosen there. Ties go to the earlier row.

    Raises:
        FigureDataError: no row of a calibrated graph is among them.
    """
    calibrated = [row for row in rows if row.method not in BASELINES | BOUNDS and row.nfe_reduction is not None]
    for split in ("validation", "search", "test"):
        found = [row for row in calibrated if row.split == split]
        if found:
            return max(found, key=lambda row: row.nfe_reduction or 0.0)
    raise FigureDataError(
        f"{run.directory}: no row of a calibrated graph "
        f"(only {', '.join(sorted({row.method for row in rows})) or 'no rows at all'}), so there is no best one"
    )


def load_run(directory: str | Path) -> Run:
    """Read ``directory``/results.json.

    Raises:
        FigureDataError: no directory, no results.json, no JSON, another format or version, no rows, a field that is
            missing or of another type, an interval the wrong way round, or a row that comes twice. The message
            names the file, the place, what was expected and what was found.
    """
    directory = Path(directory)
    path = directory / "results.json"
    if not directory.is_dir():
        raise FigureDataError(f"{directory}: expected a run directory, found no directory there")
    try:
        return _run(directory, read_json(path, MAX_BYTES))
    except StrictJsonError as error:
        raise FigureDataError(f"{path}: {error}") from None


def _run(directory: Path, payload: object) -> Run:
    outer = expect_object(payload, "file")
    if outer.get("format") != RESULTS_FORMAT:
        fail("format", show(RESULTS_FORMAT), outer.get("format", Words("no such field")))
    version = outer.get("version", Words("no such field"))
    if type(version) is not int or version != RESULTS_VERSION:
        fail("version", f"{RESULTS_VERSION}, the only one this release draws", version)
    if not expect_list(outer.get("rows", []), "rows"):
        fail("rows", "at least one result row", Words("none: the run was stopped before its first result"))
    rows = _each(outer, "rows", _row)
    _no_duplicates(rows)
    return Run(
        directory=directory,
        config=expect_object(outer.get("config", {}), "config"),
        rows=rows,
        histograms=_each(outer, "histograms", _histogram),
        rank_counts=_each(outer, "rank_counts", _rank_counts),
    )


def _each(outer: dict[str, Any], name: str, read: Callable[[dict[str, Any], str], T]) -> tuple[T, ...]:
    items = expect_list(outer.get(name, []), name)
    return tuple(read(expect_object(item, f"{name}[{index}]"), f"{name}[{index}]") for index, item in enumerate(items))


def _no_duplicates(rows: Sequence[ResultRow]) -> None:
    """Two values for one point would make a line go back and forth, and no reader could tell which one holds."""
    seen: dict[tuple[object, ...], int] = {}
    for index, row in enumerate(rows):
        key = (row.method, row.reading, row.budget, row.policy, row.context, row.split)
        if key in seen:
            fail(f"rows[{index}]", "every cell once", Words(f"{describe(row)} again, as in rows[{seen[key]}]"))
        seen[key] = index


def _need(item: dict[str, Any], name: str, where: str) -> Any:
    if name not in item:
        fail(where, f"the field {show(name)}", Words(f"only {', '.join(item) or 'nothing'}"[:200]))
    return item[name]


def _text(item: dict[str, Any], name: str, where: str) -> str:
    return expect_text(_need(item, name, where), f"{where}.{name}")


def _optional_text(item: dict[str, Any], name: str, where: str) -> str | None:
    return None if item.get(name) is None else expect_text(item[name], f"{where}.{name}")


def _count(item: dict[str, Any], name: str, where: str) -> int:
    return expect_integer(_need(item, name, where), f"{where}.{name}", 0, MAX_INTEGER)


def _optional_count(item: dict[str, Any], name: str, where: str) -> int | None:
    return None if item.get(name) is None else _count(item, name, where)


def _optional_number(item: dict[str, Any], name: str, where: str) -> float | None:
    return None if item.get(name) is None else expect_number(item[name], f"{where}.{name}", 0.0)


def _split(item: dict[str, Any], where: str) -> str:
    split = _text(item, "split", where)
    if split not in SPLITS:
        fail(f"{where}.split", f"one of {', '.join(SPLITS)}", split)
    return split


def _row(item: dict[str, Any], where: str) -> ResultRow:
    row = ResultRow(
        method=_text(item, "method", where),
        reading=_optional_text(item, "reading", where),
        budget=_count(item, "budget", where),
        policy=_text(item, "policy", where),
        context=_text(item, "context", where),
        split=_split(item, where),
        prompts=_optional_count(item, "prompts", where),
        accepted_length=_optional_number(item, "accepted_length", where),
        accepted_length_low=_optional_number(item, "accepted_length_low", where),
        accepted_length_high=_optional_number(item, "accepted_length_high", where),
        accepted_length_visited=_optional_number(item, "accepted_length_visited", where),
        forwards_plain=_optional_count(item, "forwards_plain", where),
        forwards_predicted=_optional_count(item, "forwards_predicted", where),
        forwards_measured=_optional_count(item, "forwards_measured", where),
        nfe_reduction=_optional_number(item, "nfe_reduction", where),
        nfe_reduction_low=_optional_number(item, "nfe_reduction_low", where),
        nfe_reduction_high=_optional_number(item, "nfe_reduction_high", where),
        bound=_optional_number(item, "bound", where),
        graph=_optional_text(item, "graph", where),
    )
    for name in ("accepted_length", "nfe_reduction"):
        # A bound on one objective says nothing about the other; a measured graph has both.
        if getattr(row, name) is None and row.method not in BOUNDS:
            fail(f"{where}.{name}", "a number", item.get(name, Words("no such field")))
        low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
        if (low is None) != (high is None):
            fail(f"{where}.{name}_low and _high", "both ends of the interval or neither", Words("one of them"))
        if low is not None and low > high:
            fail(f"{where}.{name}_low", f"at most {name}_high = {high!r}", low)
    return row


def _histogram(item: dict[str, Any], where: str) -> Histogram:
    counts = _counts(_need(item, "counts", where), f"{where}.counts")
    return Histogram(
        method=_text(item, "method", where),
        reading=_optional_text(item, "reading", where),
        budget=_count(item, "budget", where),
        policy=_text(item, "policy", where),
        split=_split(item, where),
        counts=counts,
    )


def _counts(value: object, where: str) -> tuple[int, ...]:
    return tuple(
        expect_integer(count, f"{where}[{index}]", 0, MAX_INTEGER)
        for index, count in enumerate(expect_list(value, where, "a list of counts"))
    )


def _rank_counts(item: dict[str, Any], where: str) -> RankCounts:
    tables = {}
    for name in ("position_by_vocabulary", "position_by_depth"):
        place = f"{where}.{name}"
        table = tuple(
            _counts(row, f"{place}[{index}]")
            for index, row in enumerate(expect_list(_need(item, name, where), place, "a list of rows"))
        )
        if not table or not table[0]:
            fail(place, "a table of at least one row and one column", Words("an empty one"))
        for index, row in enumerate(table):
            if len(row) != len(table[0]):
                fail(f"{place}[{index}]", f"{len(table[0])} columns, as in the first row", Words(str(len(row))))
        tables[name] = table
    return RankCounts(policy=_text(item, "policy", where), split=_split(item, where), **tables)
