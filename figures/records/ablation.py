"""``results.json`` of ``draftgraph ablate``: one thing varied, everything else held."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from figures.records.record import FigureDataError, check_interval, load_record
from figures.records.run import RESULTS_NAME, Split
from figures.records.words import facts
from verify.files.quoting import plain_or_quoted
from verify.files.strict_json import Words, fail
from verify.files.typed_json import NOT_SAVED, Amount, Count, Name

#: A setting of the study of domains is "made on -> run on".
ARROW = " -> "
#: The name of all domains together in such a setting.
ALL_DOMAINS = "all"


@dataclass(frozen=True)
class AblationRow:
    """One graph in one setting on the prompts of one split; None is what the study did not find out.

    ``*_low`` and ``*_high`` are the ends of 95 % intervals from resampling prompts; all other fields are those of
    :class:`figures.records.run.ResultRow`. ``reading`` is the one that ``published`` chose on the search prompts.
    """

    study: Name
    setting: Name
    method: Name
    budget: Count
    split: Split
    accepted_drafts: Amount
    nfe_reduction: Amount
    nodes: Count | None = None
    reading: Name | None = None
    prompts: Count | None = None
    accepted_drafts_low: Amount | None = None
    accepted_drafts_high: Amount | None = None
    accepted_drafts_visited: Amount | None = None
    forwards_plain: Count | None = None
    forwards_predicted: Count | None = None
    nfe_reduction_low: Amount | None = None
    nfe_reduction_high: Amount | None = None
    tokens_per_forward: Amount | None = None
    drafted_blocks: Amount | None = None
    bound: Amount | None = None
    gap: Amount | None = None
    search_seconds: Amount | None = None

    def check(self, where: str) -> None:
        """Refuse intervals the wrong way round."""
        for name in ("accepted_drafts", "nfe_reduction"):
            check_interval(getattr(self, f"{name}_low"), getattr(self, f"{name}_high"), name, where)


@dataclass(frozen=True)
class Ablation:
    """A study that varies one thing; ``path`` is where it was read from."""

    FORMAT: ClassVar[str] = "draftgraph-ablation"

    rows: tuple[AblationRow, ...]
    config: dict[str, Any] = field(default_factory=dict)
    question: Name | None = None
    path: Path = field(default=Path(), metadata=NOT_SAVED, compare=False)

    def check(self, where: str) -> None:
        """Refuse no rows, rows of several studies, and two rows for one cell."""
        if not self.rows:
            fail("rows", "at least one result row", Words("none: the study was stopped before its first result"))
        seen: dict[tuple[object, ...], int] = {}
        for index, row in enumerate(self.rows):
            key = (row.setting, row.method, row.budget, row.split)
            if key in seen:
                cell = ", ".join(plain_or_quoted(str(part)) for part in key)
                fail(f"rows[{index}]", "every cell once", Words(f"{cell} as in rows[{seen[key]}]"))
            seen[key] = index
        studies = sorted({row.study for row in self.rows})
        if len(studies) > 1:
            fail("rows", "rows of one study", Words(", ".join(map(plain_or_quoted, studies))))

    @property
    def study(self) -> str:
        """What was varied."""
        return self.rows[0].study

    def held_out(self) -> list[AblationRow]:
        """The rows on test prompts.

        Raises:
            FigureDataError: there are none.
        """
        found = [row for row in self.rows if row.split == "test"]
        if not found:
            raise FigureDataError(f"{self.path}: no rows of test prompts, so there is nothing held out to draw")
        return found

    def settings(self) -> list[str]:
        """The settings in the order of the rows."""
        return list(dict.fromkeys(row.setting for row in self.rows))

    def methods(self) -> list[str]:
        """The methods in the order of the rows."""
        return list(dict.fromkeys(row.method for row in self.rows))

    def about(self) -> str:
        """Model and cache as a sentence; empty where the study does not say."""
        return facts(self.config, ("model", "cache"))

    def test_prompts(self) -> list[int | None]:
        """The number of held-out prompts of each row that has such."""
        return [row.prompts for row in self.held_out()]


def load_ablation(path: str | Path) -> Ablation:
    """Read ``results.json`` of a run directory of ``draftgraph ablate`` (the file or its directory).

    Raises:
        FigureDataError: no such file, another format, no rows, a field that is missing or of another type, an interval
            the wrong way round, or rows of several studies or of one cell twice.
    """
    path = Path(path)
    path = path / RESULTS_NAME if path.is_dir() else path
    return replace(load_record(Ablation, path), path=path)
