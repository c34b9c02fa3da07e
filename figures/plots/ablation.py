"""Reading the results of ``draftgraph ablate``: one thing varied, everything else held.

The studies ``method`` and ``accumulation`` vary the search and are drawn like a run (:func:`as_run`); the others vary a
setting, and have figures of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.canvas.style import PUBLISHED
from figures.canvas.words import facts
from figures.records import fields
from figures.records.fields import RESULTS_FORMAT, FigureDataError, Item
from figures.records.run import BASELINES, ResultRow, Run
from verify.files.strict_json import Words, fail

#: Studies that vary the search itself: their figures are curves over the budget.
SEARCH_STUDIES = frozenset({"method", "accumulation"})
#: The budget that figures with one budget show where it was studied.
USUAL_BUDGET = 10


@dataclass(frozen=True)
class AblationRow:
    """One graph in one setting on the prompts of one split; None is what the study did not find out.

    ``*_low`` and ``*_high`` are the ends of 95 % intervals from resampling prompts.
    """

    setting: str
    method: str
    budget: int
    split: str
    prompts: int | None
    accepted_drafts: float
    accepted_drafts_low: float | None
    accepted_drafts_high: float | None
    forwards_plain: int | None
    forwards_predicted: int | None
    nfe_reduction: float
    nfe_reduction_low: float | None
    nfe_reduction_high: float | None
    bound: float | None


@dataclass(frozen=True)
class Ablation:
    """A study that was read."""

    path: Path
    study: str
    question: str | None
    config: dict[str, Any]
    rows: tuple[AblationRow, ...]

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
    path = path / "results.json" if path.is_dir() else path
    return fields.read_saved(path, lambda outer: _ablation(path, outer))


def _ablation(path: Path, outer: Item) -> Ablation:
    fields.check_format(outer, RESULTS_FORMAT)
    rows = fields.some_rows(outer, _row)
    seen: dict[tuple[object, ...], int] = {}
    for index, (_, row) in enumerate(rows):
        key = (row.setting, row.method, row.budget, row.split)
        if key in seen:
            fail(f"rows[{index}]", "every cell once", Words(f"{', '.join(map(str, key))} as in rows[{seen[key]}]"))
        seen[key] = index
    studies = sorted({study for study, _ in rows})
    if len(studies) > 1:
        fail("rows", "rows of one study", Words(", ".join(studies)))
    config = outer.get("config")
    return Ablation(
        path=path,
        study=studies[0],
        question=fields.optional_text(outer, "question", "file"),
        config=config if isinstance(config, dict) else {},
        rows=tuple(row for _, row in rows),
    )


def _row(item: Item, where: str) -> tuple[str, AblationRow]:
    accepted = fields.interval(item, "accepted_drafts", where)
    saved = fields.interval(item, "nfe_reduction", where)
    row = AblationRow(
        setting=fields.text(item, "setting", where),
        method=fields.text(item, "method", where),
        budget=fields.count(item, "budget", where),
        split=fields.split_name(item, where),
        prompts=fields.optional_count(item, "prompts", where),
        accepted_drafts=fields.number(item, "accepted_drafts", where),
        accepted_drafts_low=accepted[0],
        accepted_drafts_high=accepted[1],
        forwards_plain=fields.optional_count(item, "forwards_plain", where),
        forwards_predicted=fields.optional_count(item, "forwards_predicted", where),
        nfe_reduction=fields.number(item, "nfe_reduction", where),
        nfe_reduction_low=saved[0],
        nfe_reduction_high=saved[1],
        bound=fields.optional_number(item, "bound", where),
    )
    return fields.text(item, "study", where), row


def as_run(ablation: Ablation) -> Run:
    """The study as a run, a policy per setting, for the curves over the budget.

    In the study of accumulations every reading of the published rule is a method of its own; elsewhere the readings
    are one method, of which curves show the one that is best on the search prompts. Plain decoding, which such studies
    do not write down, is there by definition: no draft, and as many forwards as without any.
    """
    cache = ablation.config.get("cache")
    rows = [_plain(row, cache) for row in {(row.setting, row.split): row for row in ablation.rows}.values()]
    for row in ablation.rows:
        method, _, reading = row.method.partition(":")
        if method != PUBLISHED or ablation.study == "accumulation":
            method, reading = row.method, ""
        rows.append(
            ResultRow(
                method=method, reading=reading or None, budget=row.budget, policy=row.setting,
                cache=cache if isinstance(cache, str) else "", split=row.split, prompts=row.prompts,
                accepted_drafts=row.accepted_drafts, accepted_drafts_low=row.accepted_drafts_low,
                accepted_drafts_high=row.accepted_drafts_high, accepted_drafts_visited=None,
                forwards_plain=row.forwards_plain, forwards_predicted=row.forwards_predicted, forwards_measured=None,
                nfe_reduction=row.nfe_reduction, nfe_reduction_low=row.nfe_reduction_low,
                nfe_reduction_high=row.nfe_reduction_high, bound=row.bound, graph=None,
            )
        )  # fmt: skip
    return Run(ablation.path.parent, ablation.config, tuple(rows), (), ())


def _plain(row: AblationRow, cache: Any) -> ResultRow:
    return ResultRow(
        method="plain", reading=None, budget=0, policy=row.setting,
        cache=cache if isinstance(cache, str) else "", split=row.split, prompts=row.prompts,
        accepted_drafts=0.0, accepted_drafts_low=None, accepted_drafts_high=None, accepted_drafts_visited=None,
        forwards_plain=row.forwards_plain, forwards_predicted=row.forwards_plain, forwards_measured=None,
        nfe_reduction=1.0, nfe_reduction_low=None, nfe_reduction_high=None, bound=None, graph=None,
    )  # fmt: skip


def usual_budget(ablation: Ablation, budget: int | None = None) -> int:
    """``budget`` if it was studied on test prompts; without one 10, else the largest there is.

    Raises:
        FigureDataError: it was not studied.
    """
    there = sorted({row.budget for row in ablation.held_out()})
    if budget is None:
        return USUAL_BUDGET if USUAL_BUDGET in there else there[-1]
    if budget not in there:
        raise FigureDataError(f"{ablation.path}: budget {budget} was not studied, only {', '.join(map(str, there))}")
    return budget


def best_method(ablation: Ablation, budget: int) -> str:
    """The calibrated method with the highest mean nfe reduction on the *search* prompts at ``budget``.

    What is reported on test prompts must not have been chosen there. Of equal methods it is the first; a baseline where
    there is no other.

    Raises:
        FigureDataError: several methods, and none has rows of search prompts.
    """
    there = list(dict.fromkeys(row.method for row in ablation.held_out() if row.budget == budget))
    calibrated = [method for method in there if method not in BASELINES] or there
    values: dict[str, list[float]] = {}
    for row in ablation.rows:
        if row.split == "search" and row.budget == budget and row.method in calibrated:
            values.setdefault(row.method, []).append(row.nfe_reduction)
    if len(calibrated) == 1:
        return calibrated[0]
    if not values:
        raise FigureDataError(
            f"{ablation.path}: no rows of search prompts at budget {budget}, by which one of "
            f"{', '.join(calibrated)} would be chosen"
        )
    return max(values, key=lambda method: sum(values[method]) / len(values[method]))
