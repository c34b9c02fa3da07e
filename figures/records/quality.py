"""The file of ``draftgraph quality``: valid answers against forward passes, by task, unmasking rule and drafter."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from figures.records.record import check_interval, load_record
from figures.records.words import facts
from verify.files.quoting import plain_or_quoted
from verify.files.strict_json import Words, fail
from verify.files.typed_json import AboveZero, Amount, Count, Name, Positive

QUALITY_NAME = "quality.json"
PLAIN = "plain"


@dataclass(frozen=True)
class QualityRow:
    """One unmasking rule with one drafter on the held-out prompts of one task.

    Attributes:
        domain: the task; ``policy``: the rule; ``method``: what drafts, "plain" for none; ``budget``: drafts a forward.
        prompts: held-out prompts of the task; ``valid``: of these, prompts with a valid answer, with the exact 95 %
            interval of the share (Clopper-Pearson).
        forwards: forward passes per answer, the mean over the prompts; ``_low`` and ``_high`` resample prompts.
        nfe_reduction: forward passes without drafts over those with them, with its interval likewise.
        replayed: whether ``forwards`` come from recordings; else every prompt was decoded with the drafts, and
            ``valid`` counts those very answers.
        measured_prompts: prompts that were decoded with the drafts; ``measured_identical``: of these, prompts with the
            tokens of the decode without drafts; ``forwards_measured``: counted there, all together;
            ``forwards_predicted``: of the same prompts by replay, None where nothing was replayed.
        nodes: of the graph, where there is one; ``exact``: whether identical tokens are promised.
    """

    domain: Name
    policy: Name
    method: Name
    budget: Count
    prompts: Positive
    valid: Count
    valid_low: Amount
    valid_high: Amount
    forwards: AboveZero
    nfe_reduction: AboveZero
    exact: bool
    replayed: bool
    forwards_low: Amount | None = None
    forwards_high: Amount | None = None
    nfe_reduction_low: Amount | None = None
    nfe_reduction_high: Amount | None = None
    measured_prompts: Count = 0
    measured_identical: Count = 0
    forwards_measured: Count = 0
    forwards_predicted: Count | None = None
    nodes: Count | None = None

    def check(self, where: str) -> None:
        """Refuse more than all, an interval the wrong way round, and one that leaves its share out."""
        for name, most in (("valid", "prompts"), ("measured_prompts", "prompts"),
                           ("measured_identical", "measured_prompts")):  # fmt: skip
            if getattr(self, name) > getattr(self, most):
                fail(f"{where}.{name}", f"at most {most} = {getattr(self, most)}", getattr(self, name))
        for name in ("valid", "forwards", "nfe_reduction"):
            check_interval(getattr(self, f"{name}_low"), getattr(self, f"{name}_high"), name, where)
        if not self.valid_low - 1e-9 <= self.share <= self.valid_high + 1e-9:
            fail(f"{where}.valid_low", f"an interval that holds the share {self.share:.6g}", self.valid_low)

    @property
    def share(self) -> float:
        """Share of the prompts with a valid answer."""
        return self.valid / self.prompts

    @property
    def holds(self) -> bool:
        """Whether what was decoded with drafts is what was promised and predicted; True where nothing was promised."""
        same = self.measured_identical == self.measured_prompts
        return not self.exact or (same and self.forwards_predicted in (None, self.forwards_measured))


#: Columns of a table of rows: the fields, and the share beside its count.
QUALITY_COLUMNS = tuple(
    name for one in fields(QualityRow) for name in ((one.name, "share") if one.name == "valid" else (one.name,))
)


@dataclass(frozen=True)
class LeftOut:
    """Held-out prompts whose answers cannot be checked."""

    reason: Name
    prompts: Positive


@dataclass(frozen=True)
class Quality:
    """A study of quality; its rows by rule, then by task, each without drafts first."""

    FORMAT: ClassVar[str] = "draftgraph-quality"

    rows: tuple[QualityRow, ...]
    config: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()

    def check(self, where: str) -> None:
        """Refuse no rows, a cell twice, and drafts of a rule that has no row without them."""
        if not self.rows:
            fail("rows", "at least one result row", Words("none: the study was stopped before its first result"))
        seen: dict[tuple[object, ...], int] = {}
        for index, row in enumerate(self.rows):
            key = (row.domain, row.policy, row.method, row.budget)
            if key in seen:
                cell = ", ".join(plain_or_quoted(str(part)) for part in key)
                fail(f"rows[{index}]", "every cell once", Words(f"{cell} as in rows[{seen[key]}]"))
            if (row.domain, row.policy, PLAIN, 0) not in {*seen, key}:
                fail(f"rows[{index}]", "a row of method plain and budget 0 before it", Words(f"none of {row.policy}"))
            seen[key] = index

    def domains(self) -> list[str]:
        """The tasks in the order of the rows."""
        return list(dict.fromkeys(row.domain for row in self.rows))

    def policies(self) -> list[str]:
        """The rules in the order of the rows."""
        return list(dict.fromkeys(row.policy for row in self.rows))

    def drafters(self) -> list[tuple[str, int]]:
        """(method, budget) of every drafter, in the order of the rows."""
        return list(dict.fromkeys((row.method, row.budget) for row in self.rows if row.method != PLAIN))

    def select(self, **wanted: object) -> list[QualityRow]:
        """The rows with these fields."""
        return [row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())]

    def plain(self, row: QualityRow) -> QualityRow:
        """The row of the same rule and task without drafts."""
        return self.select(domain=row.domain, policy=row.policy, method=PLAIN)[0]

    def about(self) -> str:
        """Model, cache and lengths as a sentence; empty where the study does not say."""
        return facts(self.config, ("model", "cache", "block_length", "dtype"))


def load_quality(path: str | Path) -> Quality:
    """Read ``quality.json`` (the file or the run directory that holds it).

    Raises:
        FigureDataError: no such file, another format, no rows, a field that is missing or of another type, counts or
            intervals that do not fit, or a cell twice.
    """
    path = Path(path)
    return load_record(Quality, path / QUALITY_NAME if path.is_dir() else path)
