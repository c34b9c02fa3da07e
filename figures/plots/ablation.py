"""What figures of ``draftgraph ablate`` share: one thing varied, everything else held.

The studies ``method`` and ``accumulation`` vary the search and are drawn like a run (:func:`as_run`); the others vary a
setting, and have figures of their own.
"""

from __future__ import annotations

from figures.records.ablation import Ablation, AblationRow
from figures.records.record import FigureDataError
from figures.records.run import BASELINES, PUBLISHED, ResultRow, Run

#: Studies that vary the search itself: their figures are curves over the budget.
SEARCH_STUDIES = frozenset({"method", "accumulation"})
#: The budget that figures with one budget show where it was studied.
USUAL_BUDGET = 10


def as_run(ablation: Ablation) -> Run:
    """The study as a run, a policy per setting, for the curves over the budget.

    In the study of accumulations every reading of the published rule is a method of its own; elsewhere the readings
    are one method, of which curves show the one that is best on the search prompts. Plain decoding, which such studies
    do not write down, is there by definition: no draft, and as many forwards as without any.
    """
    stated = ablation.config.get("cache")
    cache = stated if isinstance(stated, str) and stated else "unknown"
    rows = [_plain(row, cache) for row in {(row.setting, row.split): row for row in ablation.rows}.values()]
    for row in ablation.rows:
        method, _, reading = row.method.partition(":")
        if method != PUBLISHED or ablation.study == "accumulation":
            method, reading = row.method, ""
        rows.append(
            ResultRow(
                method=method, reading=reading or None, budget=row.budget, policy=row.setting,
                cache=cache, split=row.split, prompts=row.prompts, accepted_drafts=row.accepted_drafts,
                accepted_drafts_low=row.accepted_drafts_low, accepted_drafts_high=row.accepted_drafts_high,
                forwards_plain=row.forwards_plain, forwards_predicted=row.forwards_predicted,
                nfe_reduction=row.nfe_reduction, nfe_reduction_low=row.nfe_reduction_low,
                nfe_reduction_high=row.nfe_reduction_high, bound=row.bound,
            )
        )  # fmt: skip
    return Run(tuple(rows), ablation.config, directory=ablation.path.parent)


def _plain(row: AblationRow, cache: str) -> ResultRow:
    return ResultRow(
        method="plain", budget=0, policy=row.setting, cache=cache, split=row.split, prompts=row.prompts,
        accepted_drafts=0.0, forwards_plain=row.forwards_plain, forwards_predicted=row.forwards_plain,
        nfe_reduction=1.0,
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
