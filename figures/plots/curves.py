"""The lines of the budget figures: which rows make which curve, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from figures.canvas.output import Table
from figures.canvas.style import method_order
from figures.records.run import ResultRow, Run

Metric = Literal["nfe_reduction", "accepted_drafts"]

_COLUMNS = ("policy", "cache", "method", "reading", "split", "budget", "value", "low", "high", "verified")


@dataclass(frozen=True)
class Curve:
    """One method on one split of one panel; lists are aligned and ordered by budget.

    ``verified[n]`` says whether the runtime verifier counted forwards for this point or only replay predicted them.
    ``values[0]`` is the shared point of plain decoding when the run has one and the method has no own budget 0.
    """

    method: str
    reading: str | None
    split: str
    budgets: list[int]
    values: list[float]
    lows: list[float | None]
    highs: list[float | None]
    verified: list[bool]


def curves(run: Run, panel: tuple[str, str], metric: Metric) -> list[Curve]:
    """The lines of one (policy, cache) panel in the order of the legend; plain decoding itself is none."""
    rows = [row for row in run.select(policy=panel[0], cache=panel[1]) if getattr(row, metric) is not None]
    found = []
    for method in sorted({row.method for row in rows} - {"plain"}, key=method_order):
        own = _best_reading([row for row in rows if row.method == method], metric)
        for split in ("search", "test"):
            points = sorted((row for row in own if row.split == split), key=lambda row: row.budget)
            if not points:
                continue
            if points[0].budget > 0:
                points = [row for row in rows if (row.method, row.split) == ("plain", split)][:1] + points
            found.append(
                Curve(
                    method=method,
                    reading=points[-1].reading,
                    split=split,
                    budgets=[row.budget for row in points],
                    values=[getattr(row, metric) for row in points],
                    lows=[getattr(row, f"{metric}_low") for row in points],
                    highs=[getattr(row, f"{metric}_high") for row in points],
                    verified=[row.forwards_measured is not None for row in points],
                )
            )
    return found + _bound(rows, metric)


def _bound(rows: Sequence[ResultRow], metric: Metric) -> list[Curve]:
    """The tightest bound that any row states per budget; it holds for accepted drafts on the search prompts only."""
    tightest: dict[int, float] = {}
    for row in rows:
        if row.split == "search" and row.bound is not None:
            tightest[row.budget] = min(tightest.get(row.budget, row.bound), row.bound)
    if metric != "accepted_drafts" or not tightest or any(row.method == "lp_bound" for row in rows):
        return []
    budgets = sorted(tightest)
    none: list[float | None] = [None] * len(budgets)
    values = [tightest[budget] for budget in budgets]
    return [Curve("lp_bound", None, "search", budgets, values, none, none, [False] * len(budgets))]


def _best_reading(rows: list[ResultRow], metric: Metric) -> list[ResultRow]:
    """The rows of the reading with the highest mean on test prompts (else on search prompts).

    Several readings of the published rule are compared with ours by the one that does best where it counts: the
    choice favours the other side.
    """
    readings = list(dict.fromkeys(row.reading for row in rows))
    if len(readings) == 1:
        return rows
    split = "test" if any(row.split == "test" for row in rows) else "search"

    def mean(reading: str | None) -> float:
        values = [getattr(row, metric) for row in rows if (row.reading, row.split) == (reading, split)]
        return sum(values) / len(values) if values else 0.0

    best = max(readings, key=mean)
    return [row for row in rows if row.reading == best]


def table_nfe_vs_budget(run: Run, metric: Metric = "nfe_reduction") -> Table:
    """Every drawn point, one row each."""
    rows = [
        (*panel, curve.method, curve.reading, curve.split, *point)
        for panel in run.panels()
        for curve in curves(run, panel, metric)
        for point in zip(curve.budgets, curve.values, curve.lows, curve.highs, curve.verified, strict=True)
    ]
    return Table(_COLUMNS, tuple(rows))
