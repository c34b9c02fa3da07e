"""Reading a run directory: results.json as tidy rows, and the graph files that its rows name.

The reader is strict about what it uses - types, finite numbers, intervals the right way round, no row twice - and
ignores fields that it does not know, so that studies may write more than figures show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.canvas.style import BOUNDS
from figures.records.fields import (
    RESULTS_FORMAT,
    FigureDataError,
    Item,
    check_format,
    check_interval,
    count,
    counts,
    each,
    need,
    number,
    optional_count,
    optional_number,
    optional_text,
    read_saved,
    some_rows,
    split_name,
    text,
)
from verify.files.strict_json import Words, expect_list, expect_object, fail
from verify.graph.file import GraphFile, GraphFileError, load_graph

#: What the confidence chain and plain decoding are: something to compare with, not a calibrated graph.
BASELINES = frozenset({"plain", "chain"})


@dataclass(frozen=True)
class ResultRow:
    """One graph on the prompts of one split; None is what the study did not find out.

    Attributes:
        method: the search that made the graph; "plain" is decoding without drafts.
        reading: which reading of the published rule, None for other methods.
        budget: draft nodes asked for.
        accepted_drafts: drafts accepted, mean over all anchors; ``_visited``: over the anchors that a decode with
            this graph comes by.
        forwards_predicted: forward passes by replay; ``_measured``: counted by the runtime verifier (on as many
            prompts as the study spared for it).
        nfe_reduction: forwards of plain decoding over forwards with the graph.
        bound: no graph of this budget has a higher accepted drafts on this split.
        graph: path of the graph file, relative to the run directory.

    ``*_low`` and ``*_high`` are the ends of 95 % intervals from resampling prompts.
    """

    method: str
    reading: str | None
    budget: int
    policy: str
    cache: str
    split: str
    prompts: int | None
    accepted_drafts: float | None
    accepted_drafts_low: float | None
    accepted_drafts_high: float | None
    accepted_drafts_visited: float | None
    forwards_plain: int | None
    forwards_predicted: int | None
    forwards_measured: int | None
    nfe_reduction: float | None
    nfe_reduction_low: float | None
    nfe_reduction_high: float | None
    bound: float | None
    graph: str | None


@dataclass(frozen=True)
class Comparison:
    """Two methods at one budget on the same test prompts: NFE reduction of ``first`` minus that of ``second``.

    ``low`` and ``high`` are the ends of the paired 95 % interval. ``distinguishable`` says whether the prompts can tell
    the two apart.
    """

    policy: str
    budget: int
    first: str
    second: str
    difference: float
    low: float
    high: float
    distinguishable: bool

    def ahead(self) -> str | None:
        """The method that needs fewer forwards, None where the prompts cannot tell."""
        if not self.distinguishable:
            return None
        return self.first if self.difference > 0 else self.second


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
    comparisons: tuple[Comparison, ...] = ()

    def panels(self) -> list[tuple[str, str]]:
        """The (policy, cache) pairs in the order of the rows."""
        return list(dict.fromkeys((row.policy, row.cache) for row in self.rows))

    def policies(self) -> list[str]:
        """The policies in the order of the rows."""
        return list(dict.fromkeys(row.policy for row in self.rows))

    def setting(self) -> str:
        """Model and cache as a sentence, so that a figure says so on its own; empty where the run does not."""
        model = self.config.get("model")
        caches = ", ".join(dict.fromkeys(row.cache for row in self.rows))
        return f"Model: {model}, cache: {caches}." if isinstance(model, str) else ""

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

    Best is the largest nfe reduction on validation prompts, else on search prompts, never on test prompts: what is
    reported there must not have been chosen there. Ties go to the earlier row.

    Raises:
        FigureDataError: no row of a calibrated graph on validation or search prompts is among them.
    """
    calibrated = [row for row in rows if row.method not in BASELINES | BOUNDS and row.nfe_reduction is not None]
    for split in ("validation", "search"):
        found = [row for row in calibrated if row.split == split]
        if found:
            return max(found, key=lambda row: row.nfe_reduction or 0.0)
    raise FigureDataError(
        f"{run.directory}: no row of a calibrated graph on search prompts, by which the best one is chosen "
        f"(only {', '.join(sorted({row.method for row in rows})) or 'no rows at all'})"
    )


def load_run(directory: str | Path) -> Run:
    """Read ``directory``/results.json, or a file of results given as such; graphs lie relative to its directory.

    Raises:
        FigureDataError: no directory, no results.json, no JSON, another format or version, no rows, a field that is
            missing or of another type, an interval the wrong way round, or a row that comes twice. The message
            names the file, the place, what was expected and what was found.
    """
    directory = Path(directory)
    if directory.is_file():
        return read_saved(directory, lambda outer: _run(directory.parent, outer))
    if not directory.is_dir():
        raise FigureDataError(f"{directory}: expected a run directory, found no directory there")
    return read_saved(directory / "results.json", lambda outer: _run(directory, outer))


def _run(directory: Path, outer: Item) -> Run:
    check_format(outer, RESULTS_FORMAT)
    rows = some_rows(outer, _row)
    _no_duplicates(rows)
    return Run(
        directory=directory,
        config=expect_object(outer.get("config", {}), "config"),
        rows=rows,
        histograms=each(outer, "histograms", _histogram),
        rank_counts=each(outer, "rank_counts", _rank_counts),
        comparisons=each(outer, "comparisons", _comparison),
    )


def _no_duplicates(rows: Sequence[ResultRow]) -> None:
    """Two values for one point would make a line go back and forth, and no reader could tell which one holds."""
    seen: dict[tuple[object, ...], int] = {}
    for index, row in enumerate(rows):
        key = (row.method, row.reading, row.budget, row.policy, row.cache, row.split)
        if key in seen:
            fail(f"rows[{index}]", "every cell once", Words(f"{describe(row)} again, as in rows[{seen[key]}]"))
        seen[key] = index


def _row(item: Item, where: str) -> ResultRow:
    row = ResultRow(
        method=text(item, "method", where),
        reading=optional_text(item, "reading", where),
        budget=count(item, "budget", where),
        policy=text(item, "policy", where),
        cache=text(item, "cache", where),
        split=split_name(item, where),
        prompts=optional_count(item, "prompts", where),
        accepted_drafts=optional_number(item, "accepted_drafts", where),
        accepted_drafts_low=optional_number(item, "accepted_drafts_low", where),
        accepted_drafts_high=optional_number(item, "accepted_drafts_high", where),
        accepted_drafts_visited=optional_number(item, "accepted_drafts_visited", where),
        forwards_plain=optional_count(item, "forwards_plain", where),
        forwards_predicted=optional_count(item, "forwards_predicted", where),
        forwards_measured=optional_count(item, "forwards_measured", where),
        nfe_reduction=optional_number(item, "nfe_reduction", where),
        nfe_reduction_low=optional_number(item, "nfe_reduction_low", where),
        nfe_reduction_high=optional_number(item, "nfe_reduction_high", where),
        bound=optional_number(item, "bound", where),
        graph=optional_text(item, "graph", where),
    )
    for name in ("accepted_drafts", "nfe_reduction"):
        # A bound on one objective says nothing about the other; a measured graph has both.
        if getattr(row, name) is None and row.method not in BOUNDS:
            fail(f"{where}.{name}", "a number", item.get(name, Words("no such field")))
        check_interval(getattr(row, f"{name}_low"), getattr(row, f"{name}_high"), name, where)
    return row


def _comparison(item: Item, where: str) -> Comparison:
    ends = [number(item, name, where, low=float("-inf")) for name in ("low", "high")]
    if ends[0] > ends[1]:
        fail(f"{where}.low", f"at most high = {ends[1]!r}", ends[0])
    return Comparison(
        policy=text(item, "policy", where),
        budget=count(item, "budget", where),
        first=text(item, "first", where),
        second=text(item, "second", where),
        difference=number(item, "difference", where, low=float("-inf")),
        low=ends[0],
        high=ends[1],
        distinguishable=need(item, "distinguishable", where) is True,
    )


def _histogram(item: Item, where: str) -> Histogram:
    return Histogram(
        method=text(item, "method", where),
        reading=optional_text(item, "reading", where),
        budget=count(item, "budget", where),
        policy=text(item, "policy", where),
        split=split_name(item, where),
        counts=counts(need(item, "counts", where), f"{where}.counts"),
    )


def _rank_counts(item: Item, where: str) -> RankCounts:
    tables = {}
    for name in ("position_by_vocabulary", "position_by_depth"):
        place = f"{where}.{name}"
        table = tuple(
            counts(row, f"{place}[{index}]")
            for index, row in enumerate(expect_list(need(item, name, where), place, "a list of rows"))
        )
        if not table or not table[0]:
            fail(place, "a table of at least one row and one column", Words("an empty one"))
        for index, row in enumerate(table):
            if len(row) != len(table[0]):
                fail(f"{place}[{index}]", f"{len(table[0])} columns, as in the first row", Words(str(len(row))))
        tables[name] = table
    return RankCounts(policy=text(item, "policy", where), split=split_name(item, where), **tables)
