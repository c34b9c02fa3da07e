"""``results.json`` of ``draftgraph calibrate``: every graph that was found, as rows, and the graph files they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Literal

from figures.records.record import FigureDataError, check_interval, load_record
from verify.files.quoting import plain_or_quoted, quoted
from verify.files.strict_json import Words, fail
from verify.files.typed_json import NOT_SAVED, Amount, Count, Name
from verify.graph.file import GraphFile, GraphFileError, load_graph

#: The name of the file in a run directory.
RESULTS_NAME = "results.json"
#: What the confidence chain and plain decoding are: something to compare with, not a calibrated graph.
BASELINES = frozenset({"plain", "chain"})
#: Drafters that learn while they decode: they have rows, but no graph. Accepted drafts over all anchors mean nothing
#: for them, as what they propose depends on the anchors that they came by.
LEARNING = frozenset({"informed"})
#: Limits instead of graphs: drawn as dotted lines without markers, never chosen as the best method.
BOUNDS = frozenset({"lp_bound"})
#: The method that has several readings; as ``published:READING`` each of them is a method of its own.
PUBLISHED = "published"

Split = Literal["search", "validation", "test"]


@dataclass(frozen=True)
class ResultRow:
    """One graph on the prompts of one split; None is what the study did not find out.

    ``*_low`` and ``*_high`` are the ends of 95 % intervals from resampling prompts. Fields that are only measured are
    None on search prompts.

    Attributes:
        method: the search that made the graph; "plain" is decoding without drafts, "informed" a drafter that learns.
        budget: draft nodes asked for; ``nodes``: how many the graph has, None where there is no graph.
        reading: which reading of the published rule, None for other methods.
        prompts: of the split.
        accepted_drafts: drafts accepted, mean over all anchors; ``_visited``: over the anchors that a decode with
            this graph comes by.
        forwards_plain: forward passes of plain decoding; ``forwards_predicted``: with the graph, by replay.
        nfe_reduction: the first over the second.
        tokens_per_forward: tokens committed per forward pass.
        drafted_blocks: blocks of rows beside the real one in the mean forward, refreshes included.
        bound: no graph of this budget has higher accepted drafts on this split.
        gap: how far the graph may be below the bound, as a share of it.
        search_seconds: of the search.
        measured_prompts: prompts that the runtime verifier decoded, and on these:
        forwards_measured: forward passes counted; ``forwards_predicted_measured``: by replay.
        tokens_identical: share of the prompts whose tokens are those of plain decoding.
        query_tokens: over all forwards.
        seconds: wall time.
        exact: whether cache mode, back-end and dtype promise identical tokens.
        graph: path of the graph file, relative to the run directory and inside it.
    """

    method: Name
    budget: Count
    policy: Name
    cache: Name
    split: Split
    reading: Name | None = None
    nodes: Count | None = None
    prompts: Count | None = None
    accepted_drafts: Amount | None = None
    accepted_drafts_low: Amount | None = None
    accepted_drafts_high: Amount | None = None
    accepted_drafts_visited: Amount | None = None
    forwards_plain: Count | None = None
    forwards_predicted: Count | None = None
    nfe_reduction: Amount | None = None
    nfe_reduction_low: Amount | None = None
    nfe_reduction_high: Amount | None = None
    tokens_per_forward: Amount | None = None
    drafted_blocks: Amount | None = None
    bound: Amount | None = None
    gap: Amount | None = None
    search_seconds: Amount | None = None
    measured_prompts: Count | None = None
    forwards_measured: Count | None = None
    forwards_predicted_measured: Count | None = None
    tokens_identical: Amount | None = None
    query_tokens: Count | None = None
    seconds: Amount | None = None
    exact: bool | None = None
    graph: Name | None = None

    def check(self, where: str) -> None:
        """Refuse a graph without values, an interval the wrong way round, a graph file outside the run."""
        for name in ("accepted_drafts", "nfe_reduction"):
            # A bound on one objective says nothing about the other; a measured graph has both.
            learns = self.method in LEARNING and name == "accepted_drafts"
            if getattr(self, name) is None and self.method not in BOUNDS and not learns:
                fail(f"{where}.{name}", "a number", None)
            check_interval(getattr(self, f"{name}_low"), getattr(self, f"{name}_high"), name, where)
        if self.graph is not None and not _stays_inside(self.graph):
            fail(f"{where}.graph", "a relative path without '..', so that the file lies in the run", self.graph)


def _stays_inside(path: str) -> bool:
    windows = PureWindowsPath(path)
    return not (PurePosixPath(path).is_absolute() or windows.drive or windows.root or ".." in windows.parts)


@dataclass(frozen=True)
class ReadingRow:
    """One reading of the published rule on the prompts of one split; fields as in :class:`ResultRow`."""

    policy: Name
    reading: Name
    budget: Count
    split: Split
    prompts: Count
    accepted_drafts: Amount
    accepted_drafts_visited: Amount
    forwards_plain: Count
    forwards_predicted: Count
    nfe_reduction: Amount
    tokens_per_forward: Amount | None = None
    drafted_blocks: Amount | None = None


@dataclass(frozen=True)
class Comparison:
    """Two methods at one budget on the same test prompts: NFE reduction of ``first`` minus that of ``second``.

    ``low`` and ``high`` are the ends of the paired 95 % interval. ``distinguishable`` says whether the prompts can tell
    the two apart. Where ``second_budget`` is given, ``second`` is the graph of that budget: the smallest one whose
    forwards carry about as many rows in the mean as those of ``first``.
    """

    policy: Name
    budget: Count
    first: Name
    second: Name
    difference: float
    low: float
    high: float
    distinguishable: bool
    split: Split = "test"
    prompts: Count | None = None
    sentence: str = ""
    second_budget: Count | None = None

    def check(self, where: str) -> None:
        """Refuse an interval the wrong way round."""
        if self.low > self.high:
            fail(f"{where}.low", f"at most high = {self.high!r}", self.low)

    def ahead(self) -> str | None:
        """The method that needs fewer forwards, None where the prompts cannot tell."""
        if not self.distinguishable:
            return None
        return self.first if self.difference > 0 else self.second


@dataclass(frozen=True)
class Histogram:
    """``counts[n]`` forwards accepted ``n`` drafts."""

    method: Name
    budget: Count
    policy: Name
    split: Split
    counts: tuple[Count, ...]
    reading: Name | None = None


@dataclass(frozen=True)
class RankCounts:
    """How often the pairs of formulas were committed.

    Attributes:
        position_by_vocabulary: [position rank - 1][vocabulary rank - 1], pairs committed by the next step.
        position_by_depth: [position rank - 1][steps ahead - 1].
    """

    policy: Name
    split: Split
    position_by_vocabulary: tuple[tuple[Count, ...], ...]
    position_by_depth: tuple[tuple[Count, ...], ...]

    def check(self, where: str) -> None:
        """Refuse tables that are empty or whose rows have different lengths."""
        for name in ("position_by_vocabulary", "position_by_depth"):
            table = getattr(self, name)
            if not table or not table[0]:
                fail(f"{where}.{name}", "a table of at least one row and one column", Words("an empty one"))
            for index, row in enumerate(table):
                if len(row) != len(table[0]):
                    expected = f"{len(table[0])} columns, as in the first row"
                    fail(f"{where}.{name}[{index}]", expected, Words(str(len(row))))


@dataclass(frozen=True)
class Run:
    """A run: its configuration, the rows of all policies, and what figures need beside them.

    Attributes:
        rows: by policy, then by method and budget; each (method, reading, budget, policy, cache, split) once.
        config: of the run; which fields it has depends on the command.
        comparisons: of methods, on test prompts.
        readings: of the published rule, all of them.
        histograms: one per graph and split.
        rank_counts: one per policy.
        directory: where the run lies; paths of graph files are relative to it.
    """

    FORMAT: ClassVar[str] = "draftgraph-results"

    rows: tuple[ResultRow, ...]
    config: dict[str, Any] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    readings: tuple[ReadingRow, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    rank_counts: tuple[RankCounts, ...] = ()
    directory: Path = field(default=Path(), metadata=NOT_SAVED, compare=False)

    def check(self, where: str) -> None:
        """Refuse a run without rows, and one with two rows for one point."""
        if not self.rows:
            fail("rows", "at least one result row", Words("none: the run was stopped before its first result"))
        seen: dict[tuple[object, ...], int] = {}
        for index, row in enumerate(self.rows):
            key = (row.method, row.reading, row.budget, row.policy, row.cache, row.split)
            if key in seen:
                fail(f"rows[{index}]", "every cell once", Words(f"{describe(row)} again, as in rows[{seen[key]}]"))
            seen[key] = index

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

    def select(self, **values: object) -> list[ResultRow]:
        """The rows whose fields equal ``values``, in order."""
        return [row for row in self.rows if all(getattr(row, key) == value for key, value in values.items())]

    def load_graph(self, row: ResultRow) -> GraphFile:
        """The graph file that ``row`` names.

        Raises:
            FigureDataError: the row names none, the file lies outside the run (a link may lead there), or it is
                missing or breaks the format.
        """
        if row.graph is None:
            raise FigureDataError(f"{self.directory}: {describe(row)} names no graph file, so none can be drawn")
        path = self.directory / row.graph
        if not _stays_inside(row.graph) or not path.resolve().is_relative_to(self.directory.resolve()):
            raise FigureDataError(
                f"graph of {describe(row)}: expected a file in {self.directory}, found {quoted(row.graph)}, which "
                "leads out of it"
            )
        try:
            return load_graph(path)
        except GraphFileError as error:
            raise FigureDataError(f"graph of {describe(row)}: {error}") from None


def describe(row: ResultRow) -> str:
    """A row in words, for messages."""
    reading = f" ({plain_or_quoted(row.reading)})" if row.reading else ""
    method, policy = plain_or_quoted(row.method), plain_or_quoted(row.policy)
    return f"{method}{reading} with budget {row.budget}, policy {policy}, split {row.split}"


def best_row(run: Run, rows: Sequence[ResultRow]) -> ResultRow:
    """The row of the best graph among ``rows`` (of one policy and budget); never a baseline or a bound.

    Best is the largest nfe reduction on validation prompts, else on search prompts, never on test prompts: what is
    reported there must not have been chosen there. Ties go to the earlier row.

    Raises:
        FigureDataError: no row of a calibrated graph on validation or search prompts is among them.
    """
    others = BASELINES | BOUNDS | LEARNING
    calibrated = [row for row in rows if row.method not in others and row.nfe_reduction is not None]
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
            missing or of another type, an interval the wrong way round, a graph file outside the directory, or a row
            that comes twice. The message names the file, the place, what was expected and what was found.
    """
    directory = Path(directory)
    if directory.is_file():
        return replace(load_record(Run, directory), directory=directory.parent)
    if not directory.is_dir():
        raise FigureDataError(f"{directory}: expected a run directory, found no directory there")
    return replace(load_record(Run, directory / RESULTS_NAME), directory=directory)
