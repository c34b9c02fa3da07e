"""The budget that pays: forwards from replay, times from the device, every measured D from 0, the true argmax.

With ``B`` blocks, each opened by a refresh forward, and the anchors that the graph of budget D visits,

    time(D) = B * refresh + sum over visited anchors of latency(drafts that the anchor fills)
    speed-up(D) = time(0) / time(D)

Refresh forwards carry no drafts and cost the same for every D; leaving them out would flatter large budgets. A draft is
thus worth its rows while the forwards it saves outweigh what it adds to every forward, and D = 0 is a fair answer.
The runtime leaves out drafts that an anchor cannot fill or that would complete the block, which the last anchors of a
block are full of; a number of drafts that was not measured is priced as the next larger one. In a batch a forward is
as wide as the fullest of its sequences, so there every forward is priced with all D drafts.

The best of many budgets looks better on the prompts that chose it than it is. So one split chooses, and another one,
of prompts that neither the search nor the choice has seen, says what the choice is worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibrate.measuring.latency_table import LatencyTable
from drafting.anchors import AnchorTable
from drafting.replay import walk
from verify.graph.formulas import Formula


@dataclass(frozen=True)
class BudgetRow:
    """One budget.

    Attributes:
        budget: drafts ``D``.
        latency: milliseconds of a forward that carries all ``D`` drafts.
        choice_speedup: predicted speed-up over plain decoding on the prompts that choose.
        forwards: forward passes on the held-out prompts, refresh forwards included; so are all fields below.
        milliseconds_per_forward: the mean over these forwards. Refresh forwards carry no drafts and late anchors fill
            few, so it lies below ``latency`` where drafts cost; forwards saved over it is the speed-up.
        milliseconds_per_prompt: predicted.
        speedup: predicted, over plain decoding.
        speedup_low, speedup_high: its 95 % interval over prompts; the latency is taken as given.
    """

    budget: int
    latency: float
    choice_speedup: float
    forwards: int
    milliseconds_per_forward: float
    milliseconds_per_prompt: float
    speedup: float
    speedup_low: float
    speedup_high: float


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
    resamples: int = 2000,
) -> BudgetChoice:
    """Price the graph of every measured budget on the prompts ``choice``, take the best, judge it on ``held_out``.

    Args:
        graphs: draft nodes per budget. A budget whose graph has fewer nodes than that (the traces hold no more
            candidates) is left out: it is a smaller budget at a higher price.
        choice: whole chains of the prompts that choose: those searched, or better validation prompts.
        held_out: whole chains of prompts that played no part so far.
        latency: of the device, for the block length of the traces.
        seed: of the bootstrap over held-out prompts.
        resamples: its draws.

    Returns:
        the choice. Intervals are percentile bootstraps over prompts.

    Raises:
        ValueError: no prompt to choose on, or fewer than two held-out prompts, from which no interval follows.
        calibrate.measuring.latency_table.LatencyError: no latency was measured for D = 0.
    """
    chooser, judge = _Pricer(choice, latency), _Pricer(held_out, latency)
    if chooser.prompts == 0:
        raise ValueError("the traces hold no prompt to choose a budget on; record some first")
    if judge.prompts < 2:
        raise ValueError(f"an interval needs at least 2 held-out prompts, got {judge.prompts}; record more")
    weights = np.random.default_rng(seed).multinomial(
        judge.prompts, np.full(judge.prompts, 1 / judge.prompts), size=resamples
    )
    rows = []
    for budget in latency.drafts:
        nodes = graphs.get(budget, ())
        if len(nodes) < budget:
            continue
        chosen, _ = chooser.spent(budget, nodes)
        spent, forwards = judge.spent(budget, nodes)
        low, high = np.quantile((weights @ judge.plain) / (weights @ spent), [0.025, 0.975])
        rows.append(
            BudgetRow(
                budget=budget,
                latency=latency.at(budget),
                choice_speedup=float(chooser.plain.sum() / chosen.sum()),
                forwards=forwards,
                milliseconds_per_forward=float(spent.sum() / forwards),
                milliseconds_per_prompt=float(spent.mean()),
                speedup=float(judge.plain.sum() / spent.sum()),
                speedup_low=float(low),
                speedup_high=float(high),
            )
        )
    best = max(rows, key=lambda row: (row.choice_speedup, -row.budget))
    at_edge = best.budget == rows[-1].budget and best.budget > 0
    return BudgetChoice(tuple(rows), best, at_edge, _sentence(rows, best, at_edge, latency))


class _Pricer:
    """Milliseconds per prompt of one split."""

    def __init__(self, anchors: AnchorTable, latency: LatencyTable) -> None:
        self.anchors, self.latency = anchors, latency
        prompt_indices, place = np.unique(anchors.block_prompt, return_inverse=True)
        self.prompts = len(prompt_indices)
        self.blocks = np.bincount(place, minlength=self.prompts).astype(float)
        self.place = np.searchsorted(prompt_indices, anchors.prompt_index)
        self.plain, _ = self.spent(0, ())

    def spent(self, budget: int, nodes: Sequence[Formula]) -> tuple[np.ndarray, int]:
        """Float [prompts] with the graph ``nodes``, and the forwards of all prompts together."""
        _, visited = walk(nodes, self.anchors)
        price = np.full(1 + int(self.anchors.masked.max(initial=0)), self.latency.at(budget))
        if self.latency.batch == 1:
            price = np.array([self._at_least(filled_drafts(nodes, masked)) for masked in range(len(price))])
        steps = price[self.anchors.masked[visited]]
        spent = np.bincount(self.place[visited], weights=steps, minlength=self.prompts)
        return self.blocks * self.latency.refresh + spent, self.anchors.n_blocks + int(visited.sum())

    def _at_least(self, drafts: int) -> float:
        """Milliseconds of a forward with ``drafts`` drafts, or with the next larger number that was measured."""
        return self.latency.at(min(measured for measured in self.latency.drafts if measured >= drafts))


def filled_drafts(nodes: Iterable[Formula], masked: int) -> int:
    """How many drafts an anchor with ``masked`` masked positions fills (``verify.drafts``): those whose position ranks
    it has and that leave a position masked."""
    return sum(len(node) < masked and max(i for i, _ in node) <= masked for node in nodes if node)


def _longer(row: BudgetRow, plain: BudgetRow) -> float:
    """How many times as long the mean forward is."""
    return row.milliseconds_per_forward / plain.milliseconds_per_forward


def _sentence(rows: Sequence[BudgetRow], best: BudgetRow, at_edge: bool, latency: LatencyTable) -> str:
    plain = rows[0]
    where = f"{latency.device}, {latency.dtype}, batch {latency.batch}, context {latency.context_length}"
    if best.budget == 0:
        nearest = max(rows[1:], key=lambda row: row.choice_speedup, default=None)
        why = " There is no other budget to compare with."
        if nearest is not None:
            why = (
                f" The nearest, D = {nearest.budget}, saves {1 - nearest.forwards / plain.forwards:.0%} of the "
                f"forwards, but each of them takes {_longer(nearest, plain):.2f} times as long, in the mean."
            )
        return f"Do not speculate on this device ({where}): no budget is faster than plain decoding.{why}"
    said = (
        f"D = {best.budget} is predicted to be {best.speedup:.2f} times as fast as plain decoding on held-out prompts "
        f"(95 % interval {best.speedup_low:.2f} to {best.speedup_high:.2f}) on {where}: "
        f"{plain.forwards / best.forwards:.2f} times fewer forwards (refresh forwards included), each "
        f"{_longer(best, plain):.2f} times as long in the mean ({best.latency / plain.latency:.2f} times with every "
        "draft filled)."
    )
    if best.speedup_high < 1:
        said += " It is slower there: the gain on the prompts that chose it was chance. Do not speculate."
    elif best.speedup_low <= 1:
        said += " The interval contains 1: the gain is not certain."
    if latency.batch > 1:
        said += (
            " Sequences of a batch are priced as if their refreshes stayed in step; drafts make them drift apart, "
            "which costs something where a refresh of one is not cheaper than one of all."
        )
    if at_edge:
        said += f" D = {best.budget} is the largest budget looked at; measure latency and search beyond it."
    return said
