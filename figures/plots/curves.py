"""The lines of the budget figures: which rows make which curve, and which curves a reader is shown, as data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from figures.canvas.output import Table
from figures.canvas.style import method_order
from figures.records.run import BASELINES, BOUNDS, ResultRow, Run

Metric = Literal["nfe_reduction", "accepted_drafts"]
Panel = tuple[str, str]  # policy, cache

_COLUMNS = ("policy", "cache", "method", "reading", "split", "budget", "value", "low", "high", "verified")
#: Searches that end close to greedy on every model so far. Beside better known methods they are drawn in grey.
BACKGROUND = frozenset({"tree_greedy", "sequoia", "cut", "random"})


@dataclass(frozen=True)
class Curve:
    """One method on one split of one panel; lists are aligned and ordered by budget.

    ``readings[n]`` is how the published rule was read at this budget, None for other methods. ``verified[n]`` says
    whether the runtime verifier counted forwards for this point or only replay predicted them. ``values[0]`` is the
    shared point of plain decoding when the run has one and the method has no row of budget 0.
    """

    method: str
    split: str
    budgets: list[int]
    values: list[float]
    lows: list[float | None]
    highs: list[float | None]
    verified: list[bool]
    readings: list[str | None]


def curves(run: Run, panel: Panel, metric: Metric) -> list[Curve]:
    """The lines of one panel in the order of the legend, the bound last; plain decoding has no line."""
    rows = [row for row in run.select(policy=panel[0], cache=panel[1]) if getattr(row, metric) is not None]
    rows = _one_reading(rows)
    found = []
    for method in sorted({row.method for row in rows} - {"plain"}, key=method_order):
        for split in ("search", "test"):
            points = sorted(
                (row for row in rows if (row.method, row.split) == (method, split)), key=lambda row: row.budget
            )
            if not points:
                continue
            if points[0].budget > 0:
                points = [row for row in rows if (row.method, row.split) == ("plain", split)][:1] + points
            found.append(
                Curve(
                    method=method,
                    split=split,
                    budgets=[row.budget for row in points],
                    values=[getattr(row, metric) for row in points],
                    lows=[getattr(row, f"{metric}_low") for row in points],
                    highs=[getattr(row, f"{metric}_high") for row in points],
                    verified=[row.forwards_measured is not None for row in points],
                    readings=[row.reading for row in points],
                )
            )
    return found + _bound(rows, metric)


def _one_reading(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """``rows`` with one reading of each method at each budget: the one with the best value on the search prompts.

    What is reported on test prompts must not have been chosen there. Where several readings have no rows of search
    prompts, nothing can be chosen, and each reading becomes a method of its own.
    """
    readings: dict[tuple[str, int], dict[str | None, float]] = {}
    for row in rows:
        own = readings.setdefault((row.method, row.budget), {})
        value = row.nfe_reduction if row.split == "search" and row.nfe_reduction is not None else float("-inf")
        own[row.reading] = max(own.get(row.reading, value), value)
    kept = []
    for row in rows:
        own = readings[row.method, row.budget]
        best = max(own, key=lambda reading: own[reading])
        if own[best] == float("-inf") and len(own) > 1:
            kept.append(replace(row, method=f"{row.method}:{row.reading}"))
        elif row.reading == best:
            kept.append(row)
    return kept


def _bound(rows: Sequence[ResultRow], metric: Metric) -> list[Curve]:
    """The tightest bound that any row states per budget; it holds for accepted drafts on the search prompts only."""
    tightest: dict[int, float] = {}
    for row in rows:
        if row.split == "search" and row.bound is not None:
            tightest[row.budget] = min(tightest.get(row.budget, row.bound), row.bound)
    if metric != "accepted_drafts" or not tightest or any(row.method in BOUNDS for row in rows):
        return []
    budgets = sorted(tightest)
    nothing: list[None] = [None] * len(budgets)
    values = [tightest[budget] for budget in budgets]
    return [Curve("lp_bound", "search", budgets, values, [*nothing], [*nothing], [False] * len(budgets), [*nothing])]


def held_out(found: Iterable[Curve]) -> list[Curve]:
    """The curves of graphs on test prompts; those on search prompts where no graph has test rows at all."""
    graphs = [curve for curve in found if curve.method not in BOUNDS]
    return [curve for curve in graphs if curve.split == "test"] or graphs


@dataclass(frozen=True)
class Cast:
    """Who is shown how, the same in all panels.

    Attributes:
        front: methods with a colour, in the order of legends.
        behind: methods drawn in grey.
        twins: per method that is drawn those that have the very same points, and are therefore not drawn.
    """

    front: list[str]
    behind: list[str]
    twins: dict[str, list[str]]


def cast(panels: Mapping[Panel, Sequence[Curve]], spoken_of: Collection[str] = ()) -> Cast:
    """Choose what a reader sees: a line a method would make a band of lines that nobody can tell apart.

    ``spoken_of``: methods that the heading names, which must have a colour.
    """
    points: dict[str, dict[Panel, tuple[object, ...]]] = {}
    for panel, found in panels.items():
        for curve in held_out(found):
            points.setdefault(curve.method, {})[panel] = (tuple(curve.budgets), tuple(curve.values))
    methods = sorted(points, key=method_order)
    known = [method for method in methods if method not in BACKGROUND or method in spoken_of]
    front = known if set(known) - BASELINES else methods
    drawn: list[str] = []
    twins: dict[str, list[str]] = {}
    for method in [*front, *(method for method in methods if method not in front)]:
        # The chain keeps its line whatever lies on it: everything is compared with it.
        same = [other for other in drawn if points[method].items() <= points[other].items()]
        if same and method not in BASELINES and same[0] not in BASELINES:
            twins.setdefault(same[0], []).append(method)
        else:
            drawn.append(method)
    return Cast([m for m in drawn if m in front], [m for m in drawn if m not in front], twins)


def table_nfe_vs_budget(run: Run, metric: Metric = "nfe_reduction") -> Table:
    """Every point, one row each: those drawn, and those of search prompts and of the bound, which the note sums up."""
    rows = [
        (*panel, curve.method, reading, curve.split, *point)
        for panel in run.panels()
        for curve in curves(run, panel, metric)
        for reading, *point in zip(
            curve.readings, curve.budgets, curve.values, curve.lows, curve.highs, curve.verified, strict=True
        )
    ]
    return Table(_COLUMNS, tuple(rows))
