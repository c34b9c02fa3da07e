"""The file of ``draftgraph calibration-size``: what graphs of more and more search prompts are worth on others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from figures.records.record import check_interval, check_pair, load_record
from verify.files.strict_json import Words, fail
from verify.files.typed_json import Amount, Count, Name, Positive


@dataclass(frozen=True)
class SizeRow:
    """One size and budget: means over the draws of ``search_prompts`` prompts.

    Attributes:
        search_prompts: of each draw; ``draws``: how many.
        in_sample_nfe_reduction: on the search prompts themselves.
        prompts: held-out ones, the same for all sizes; on these:
        nfe_reduction: with ``_low`` and ``_high``, the ends of its 95 % interval over them.
        draws_low, draws_high: least and largest nfe reduction of the draws.
        accepted_drafts: mean over anchors.
        forwards_plain: of plain decoding; ``forwards_mean``: with the graphs, mean over draws.
    """

    method: Name
    budget: Count
    search_prompts: Positive
    draws: Count
    in_sample_nfe_reduction: Amount
    prompts: Count
    nfe_reduction: Amount
    draws_low: Amount
    draws_high: Amount
    nfe_reduction_low: Amount | None = None
    nfe_reduction_high: Amount | None = None
    accepted_drafts: Amount | None = None
    forwards_plain: Count | None = None
    forwards_mean: Amount | None = None

    def check(self, where: str) -> None:
        """Refuse intervals the wrong way round."""
        check_interval(self.nfe_reduction_low, self.nfe_reduction_high, "nfe_reduction", where)
        check_interval(self.draws_low, self.draws_high, "draws", where)


@dataclass(frozen=True)
class Answer:
    """The gain in held-out nfe reduction from half of the search prompts to all of them, and what follows."""

    budget: Count
    half: Count
    whole: Count
    gain: float
    gain_interval: tuple[float, float]
    more_would_help: bool
    sentence: str = ""

    def check(self, where: str) -> None:
        """Refuse an interval the wrong way round."""
        check_pair(self.gain_interval, f"{where}.gain_interval")


@dataclass(frozen=True)
class CalibrationSize:
    """A curve: ``rows`` by budget, then by size, and at most one answer per budget."""

    FORMAT: ClassVar[str] = "draftgraph-calibration-size"

    rows: tuple[SizeRow, ...]
    answers: tuple[Answer, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)

    def check(self, where: str) -> None:
        """Refuse a curve without points, and one with a size twice."""
        if not self.rows:
            fail("rows", "at least one result row", Words("none"))
        for before, row in pairwise(sorted(self.rows, key=_place)):
            if _place(before) == _place(row):
                fail("rows", "every size once", Words(f"{row.search_prompts} prompts at budget {row.budget} twice"))

    def budgets(self) -> list[int]:
        """In ascending order."""
        return sorted({row.budget for row in self.rows})

    def answer(self, budget: int) -> Answer | None:
        """The answer at ``budget``, if there is one."""
        return next((answer for answer in self.answers if answer.budget == budget), None)


def _place(row: SizeRow) -> tuple[int, int]:
    return row.budget, row.search_prompts


def load_calibration_size(path: str | Path) -> CalibrationSize:
    """Read the file that ``draftgraph calibration-size --out`` wrote; its rows by budget, then by size.

    Raises:
        FigureDataError: no such file, another format, no rows, a field missing or of another type, an interval the
            wrong way round, a size twice.
    """
    curve = load_record(CalibrationSize, path)
    return replace(curve, rows=tuple(sorted(curve.rows, key=_place)))
