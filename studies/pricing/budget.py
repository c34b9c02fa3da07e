"""The budget that pays: forwards from replay, times from the device, every measured D from 0, the true argmax.

With ``B`` blocks, each opened by a refresh forward, and the anchors that the graph of budget D visits,

    time(D) = B * refresh + sum over visited anchors of latency(drafts that the anchor fills)
    speed-up(D) = time(0) / time(D)

Refresh forwards carry no drafts and cost the same for every D; leaving them out would flatter large budgets. A draft is
thus worth its rows while the forwards it saves outweigh what it adds to every forward, and D = 0 is a fair answer.
The runtime leaves out drafts that an anchor cannot fill or that would complete the block, which the last anchors of a
block are full of; a number of drafts that was not measured is priced as the next larger one. In a batch a forward is
as wide as the fullest of its sequences, so there every forward is priced with all D drafts.

The interval of a speed-up holds two kinds of chance: which prompts are held out (the bootstrap of
``studies.statistics.intervals``), and how well the latency was measured. An entry of the table is the median of
``repeats`` forwards, whose standard error follows from their quartiles; it moves the times of plain decoding and of a
budget as far as they consist of such forwards. Both parts are added as squares, on the logarithm of the speed-up. The
table states no quartiles for refreshes; both times hold the same number of them, and they are taken as given.

The best of many budgets looks better on the prompts that chose it than it is. So one split chooses, and another one,
of prompts that neither the search nor the choice has seen, says what the choice is worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from calibrate.measuring.latency_table import LatencyTable
from drafting.anchors import AnchorTable
from drafting.replay import walk
from figures.records.budget import BudgetRow
from studies.statistics.intervals import FEW_PROMPTS, Interval, PromptBootstrap
from verify.graph.formulas import Formula

#: Standard deviations between the quartiles of a normal law.
_QUARTILE_DISTANCE = float(2 * ndtri(0.75))


@dataclass(frozen=True)
class BudgetChoice:
    """Every budget's row and the best of them.

    Attributes:
        rows: D = 0, then every D that was measured and for which there is a graph of D nodes, ascending.
        best: the row with the highest ``choice_speedup``; the smaller budget when equal.
        at_edge: the best budget is the largest that was looked at, so a larger one may be better.
        sentence: why this one, for a person; its numbers are those of the held-out prompts.
    """

    rows: tuple[BudgetRow, ...]
    best: BudgetRow
    at_edge: bool
    sentence: str


def choose_budget(
    graphs: Mapping[int, Sequence[Formula]],
    choice: AnchorTable,
    held_out: AnchorTable,
    latency: LatencyTable,
    *,
    seed: int = 0,
) -> BudgetChoice:
    """Price the graph of every measured budget on the prompts ``choice``, take the best, judge it on ``held_out``.

    Args:
        graphs: draft nodes per budget. A budget whose graph has fewer nodes than that (the traces hold no more
            candidates) is left out: it is a smaller budget at a higher price.
        choice: whole chains of the prompts that choose: those searched, or better validation prompts.
        held_out: whole chains of prompts that played no part so far.
        latency: of the device, for the block length of the traces.
        seed: of the bootstrap over held-out prompts.

    Returns:
        the choice.

    Raises:
        ValueError: no prompt to choose on, or fewer than two held-out prompts, from which no interval follows.
        calibrate.measuring.latency_table.LatencyError: no latency was measured for D = 0.
    """
    chooser, judge = _Pricer(choice, latency), _Pricer(held_out, latency)
    if chooser.prompts == 0:
        raise ValueError("the traces hold no prompt to choose a budget on; record some first")
    if judge.prompts < 2:
        raise ValueError(f"an interval needs at least 2 held-out prompts, got {judge.prompts}; record more")
    bootstrap = PromptBootstrap(judge.prompts, seed=seed)
    rows = []
    for budget in latency.drafts:
        nodes = graphs.get(budget, ())
        if len(nodes) < budget:
            continue
        chosen, found = chooser.price(budget, nodes), judge.price(budget, nodes)
        spent = found.milliseconds
        interval = bootstrap.ratio(judge.plain.milliseconds, spent)
        low, high = with_timing_noise(interval, found.timing_error(judge.plain))
        rows.append(
            BudgetRow(
                budget=budget,
                latency=latency.at(budget),
                choice_speedup=float(chooser.plain.milliseconds.sum() / chosen.milliseconds.sum()),
                forwards=found.forwards,
                milliseconds_per_forward=float(spent.sum() / found.forwards),
                milliseconds_per_prompt=float(spent.mean()),
                speedup=interval.estimate,
                speedup_low=low,
                speedup_high=high,
            )
        )
    best = max(rows, key=lambda row: (row.choice_speedup, -row.budget))
    at_edge = best.budget == rows[-1].budget and best.budget > 0
    return BudgetChoice(tuple(rows), best, at_edge, _sentence(rows, best, at_edge, latency, judge.prompts))


def with_timing_noise(interval: Interval, timing_error: float) -> tuple[float, float]:
    """The ends of ``interval`` (of a ratio above 0), moved outward by a relative standard error of its timing."""
    timing = float(ndtri((1 + interval.level) / 2)) * timing_error
    below = math.hypot(max(0.0, math.log(interval.estimate / interval.low)), timing)
    above = math.hypot(max(0.0, math.log(interval.high / interval.estimate)), timing)
    return interval.estimate * math.exp(-below), interval.estimate * math.exp(above)


@dataclass(frozen=True, eq=False)
class _Price:
    """What a graph costs on the prompts of one split.

    Attributes:
        milliseconds: float64 [prompts].
        forwards: of all prompts together.
        shares: float64 [entries of the latency table], the share of all milliseconds that are forwards of an entry.
        errors: float64 [entries], relative standard errors of their medians.
    """

    milliseconds: np.ndarray
    forwards: int
    shares: np.ndarray
    errors: np.ndarray

    def timing_error(self, plain: _Price) -> float:
        """Relative standard error of the speed-up over ``plain`` from the timing alone: entries vary on their own, and
        one that both times hold cancels as far as its shares are equal."""
        return float(np.linalg.norm((plain.shares - self.shares) * self.errors))


class _Pricer:
    """Milliseconds per prompt of one split."""

    def __init__(self, anchors: AnchorTable, latency: LatencyTable) -> None:
        self.anchors, self.latency = anchors, latency
        prompt_indices, place = np.unique(anchors.block_prompt, return_inverse=True)
        self.prompts = len(prompt_indices)
        self.blocks = np.bincount(place, minlength=self.prompts).astype(float)
        self.place = np.searchsorted(prompt_indices, anchors.prompt_index)
        self.errors = median_errors(latency)
        self.plain = self.price(0, ())

    def price(self, budget: int, nodes: Sequence[Formula]) -> _Price:
        """The price of decoding with the graph ``nodes``."""
        _, visited = walk(nodes, self.anchors)
        drafts = np.full(1 + int(self.anchors.masked.max(initial=0)), budget)
        if self.latency.batch == 1:
            drafts = np.array([filled_drafts(nodes, masked) for masked in range(len(drafts))])
        entry = np.searchsorted(self.latency.drafts, drafts)  # a number that was not measured: the next larger one
        carried = np.zeros((self.prompts, len(self.latency.drafts)))
        np.add.at(carried, (self.place[visited], entry[self.anchors.masked[visited]]), 1)
        paid = carried * np.array(self.latency.latency)
        milliseconds = self.blocks * self.latency.refresh + paid.sum(axis=1)
        shares = paid.sum(axis=0) / max(milliseconds.sum(), np.finfo(float).tiny)
        return _Price(milliseconds, self.anchors.n_blocks + int(visited.sum()), shares, self.errors)


def median_errors(latency: LatencyTable) -> np.ndarray:
    """Relative standard error of each median of a latency table, float64 [entries].

    That of a median of ``n`` normal values is sqrt(pi / 2) standard deviations / sqrt(n); their quartiles lie 1.349
    standard deviations apart.
    """
    spread = (np.array(latency.high) - np.array(latency.low)) / _QUARTILE_DISTANCE
    return math.sqrt(math.pi / 2 / latency.repeats) * spread / np.array(latency.latency)


def filled_drafts(nodes: Iterable[Formula], masked: int) -> int:
    """How many drafts an anchor with ``masked`` masked positions fills (``verify.drafts``): those whose position ranks
    it has and that leave a position masked."""
    return sum(len(node) < masked and max(i for i, _ in node) <= masked for node in nodes if node)


def _longer(row: BudgetRow, plain: BudgetRow) -> float:
    """How many times as long the mean forward is."""
    return row.milliseconds_per_forward / plain.milliseconds_per_forward


def _sentence(rows: Sequence[BudgetRow], best: BudgetRow, at_edge: bool, latency: LatencyTable, prompts: int) -> str:
    plain = rows[0]
    where = f"{latency.device}, {latency.dtype}, batch {latency.batch}, context {latency.context_length}"
    if best.budget == 0:
        nearest = max(rows[1:], key=lambda row: row.choice_speedup, default=None)
        why = " There is no other budget to compare with."
        if nearest is not None:
            why = (
                f" The nearest, D = {nearest.budget}, saves {100 * (1 - nearest.forwards / plain.forwards):.0f} % "
                f"of the forwards, but each of them takes {_longer(nearest, plain):.2f} times as long, in the mean."
            )
            if nearest.speedup_high > 1:
                why += (
                    f" That is not certain: the 95 % interval of its speed-up, over prompts and timing noise, is "
                    f"{nearest.speedup_low:.2f} to {nearest.speedup_high:.2f}."
                )
        return f"Do not speculate on this device ({where}): no budget is faster than plain decoding.{why}"
    sentence = (
        f"D = {best.budget} is predicted to be {best.speedup:.2f} times as fast as plain decoding on held-out prompts "
        f"(95 % interval over prompts and timing noise {best.speedup_low:.2f} to {best.speedup_high:.2f}) on {where}: "
        f"{plain.forwards / best.forwards:.2f} times fewer forwards (refresh forwards included), each "
        f"{_longer(best, plain):.2f} times as long in the mean ({best.latency / plain.latency:.2f} times with every "
        "draft filled)."
    )
    if prompts < FEW_PROMPTS:
        sentence += f" These are too few held-out prompts ({prompts}) to conclude that it is faster."
    elif best.speedup_high < 1:
        sentence += " It is slower there: the gain on the prompts that chose it was chance. Do not speculate."
    elif best.speedup_low <= 1:
        sentence += " The interval contains 1: the gain is not certain."
    if latency.batch > 1:
        sentence += (
            " Sequences of a batch are priced as if their refreshes stayed in step; drafts make them drift apart, "
            "which costs something where a refresh of one is not cheaper than one of all."
        )
    if at_edge:
        sentence += f" D = {best.budget} is the largest budget looked at; measure latency and search beyond it."
    return sentence
