"""What the budget figures may conclude: only what the paired comparisons of the saved run say.

Two lines, and two intervals, may look apart where the prompts cannot tell the graphs apart, and the other way round.
The comparison of both graphs prompt by prompt decides; a figure counts those that the run calls distinguishable. Our
graph of a budget is the one with the best value on the search prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from figures.canvas.style import method_style
from figures.canvas.words import too_few
from figures.plots.curves import BACKGROUND, Metric, Panel, curves
from figures.records.run import BASELINES, BOUNDS, LEARNING, PUBLISHED, Run

CHAIN, INFORMED = "chain", "informed"


@dataclass(frozen=True)
class Tally:
    """At how many budgets our graph needs fewer or more forwards than another, beyond what chance explains."""

    ahead: int = 0
    behind: int = 0
    total: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.ahead + other.ahead, self.behind + other.behind, self.total + other.total)


def ours(run: Run, panel: Panel) -> dict[int, str]:
    """Per budget above 0 our search with the best nfe reduction on the search prompts.

    Of equal ones it is one that is drawn in colour, then the first.
    """
    best: dict[int, tuple[tuple[float, bool], str]] = {}
    for row in run.select(policy=panel[0], cache=panel[1], split="search"):
        known = row.method in BASELINES | BOUNDS | LEARNING or row.method.partition(":")[0] == PUBLISHED
        if row.budget == 0 or known or row.nfe_reduction is None:
            continue
        rank = row.nfe_reduction, row.method not in BACKGROUND
        if row.budget not in best or rank > best[row.budget][0]:
            best[row.budget] = rank, row.method
    return {budget: method for budget, (_, method) in sorted(best.items())}


def tally(run: Run, panel: Panel, against: str) -> Tally:
    """Our graph against ``against`` over the budgets of a panel, by the paired comparisons on test prompts.

    The published rule is left out where :func:`not_judged` says so.
    """
    left_out = not_judged(run, panel) if against == PUBLISHED else set()
    return _count(run, panel, {b: (method, against) for b, method in ours(run, panel).items() if b not in left_out})


def tally_informed(run: Run, panel: Panel) -> Tally:
    """Informed drafts against our graph of the same budget, over the budgets of a panel, on test prompts."""
    return _count(run, panel, {budget: (INFORMED, method) for budget, method in ours(run, panel).items()})


def _count(run: Run, panel: Panel, pairs: Mapping[int, tuple[str, str]]) -> Tally:
    found = Tally()
    for pair in run.comparisons:
        one, other = pairs.get(pair.budget, ("", ""))
        if pair.policy == panel[0] and pair.second_budget is None and {pair.first, pair.second} == {one, other}:
            found += Tally(pair.ahead() == one, pair.ahead() == other, 1)
    return found


def misplaced(reading: str | None, policy: str) -> bool:
    """Whether the published rule is read with degree-1 accumulation although a step may commit several tokens.

    This reading was made for single tokens and fails there, so being ahead of it says nothing.
    """
    return (reading or "").startswith("degree1") and policy.partition(":")[0] != "static"


def not_judged(run: Run, panel: Panel) -> set[int]:
    """The budgets at which the reading of the published rule is :func:`misplaced`."""
    return {
        budget
        for curve in curves(run, panel, "nfe_reduction")
        for budget, reading in zip(curve.budgets, curve.readings, strict=True)
        if curve.method == PUBLISHED and misplaced(reading, panel[0])
    }


def verdict(run: Run, panels: Sequence[Panel], metric: Metric = "nfe_reduction") -> str:
    """One sentence over all panels; empty where no comparison of a calibrated graph with the chain was saved.

    Comparisons are of forwards, so there is none for accepted drafts.
    """
    if metric != "nfe_reduction":
        return ""
    chain = sum((tally(run, panel, CHAIN) for panel in panels), Tally())
    published = sum((tally(run, panel, PUBLISHED) for panel in panels), Tally())
    informed = sum((tally_informed(run, panel) for panel in panels), Tally())
    one = len(panels) == 1
    graphs = _of_graphs(chain, published, one)
    if not informed.ahead and not informed.behind:
        return graphs
    text = "Informed drafts need fewer forwards than the best calibrated graph of as many drafts "
    text += _often(informed.ahead, informed.total, one)
    if informed.behind:
        text += f", more {_often(informed.behind, informed.total, one)}"
    return f"{text}. {graphs}" if graphs else text


def _of_graphs(chain: Tally, published: Tally, one: bool) -> str:
    """What the comparisons say of calibrated graphs."""
    if not chain.total:
        return ""
    if not chain.ahead:
        text = "No calibrated graph is shown to need fewer forwards than the confidence chain"
        return text + (f"; the chain needs fewer {_often(chain.behind, chain.total, one)}" if chain.behind else "")
    text = f"Calibrated graphs need fewer forwards than the confidence chain {_often(chain.ahead, chain.total, one)}"
    if chain.behind:
        text += f", more {_often(chain.behind, chain.total, one)}"
    every = published.total == chain.total  # else some cases are not judged
    if published.ahead:
        text += f", and than the published rule {_often(published.ahead, published.total, one, every)}"
    elif published.total and not published.behind:
        text += "; they cannot be told from the published rule"
    if published.behind:
        text += f"; the published rule needs fewer {_often(published.behind, published.total, one)}"
    return text


def panel_verdict(run: Run, panel: Panel) -> str:
    """The same for one panel, short enough for its title; empty where the prompts are too few."""
    chain = tally(run, panel, CHAIN)
    if not chain.total or too_few(row.prompts for row in run.select(policy=panel[0], split="test")) is not None:
        return ""
    return f"ahead of the chain {_often(chain.ahead, chain.total, True)}"


def values_at_end(run: Run, panels: Iterable[Panel], metric: Metric, name: str) -> str:
    """The values of our graph and of the chain at the largest budget of the first panel that has one: no verdict."""
    for panel in panels:
        found = curves(run, panel, metric)
        split = "test" if any(curve.split == "test" for curve in found) else "search"
        budget, method = max(ours(run, panel).items(), default=(0, CHAIN))
        parts: list[str] = []
        for curve in found:
            if curve.split == split and curve.method in (CHAIN, method) and budget in curve.budgets:
                value = shown(curve.values[curve.budgets.index(budget)], metric)
                parts.insert(0, f"{value} with {method_style(curve.method).label}")
        if parts and budget:
            return f"{panel[0]}, D = {budget}: {name} {', '.join(parts)}"
    return f"{name[0].upper()}{name[1:]} against draft budget"


def shown(value: float, metric: Metric) -> str:
    """A value as the figure writes it."""
    return f"{value:.2f}×" if metric == "nfe_reduction" else f"{value:.2f}"


def _often(count: int, total: int, one: bool, every: bool = True) -> str:
    """How often something holds; a budget in each of several panels is a case of its own."""
    if every and count == total:
        return "at every budget"
    return f"at {count} of {total} budgets" if one else f"in {count} of {total} cases"
