"""The budget that pays: forwards from replay, times from the device, every D from 0, the true argmax.

    speed-up(drafter, D) = time(plain) / time(drafter, D)

where the times are those of ``studies.pricing.price``: of the graph of budget D, and of informed drafts where state
logs of them were recorded. Refresh forwards carry no drafts; leaving them out would flatter large budgets. A draft is
thus worth its rows while the forwards it saves outweigh what it adds to every forward, and D = 0 is a fair answer.
The runtime leaves out drafts of a graph that an anchor cannot fill or that would complete the block, which the last
anchors of a block are full of.

The interval of a speed-up holds two kinds of chance: which prompts are held out (the bootstrap of
``studies.statistics.intervals``), and how well the latency was measured. An entry of the table is the median of
``repeats`` forwards, whose standard error follows from their quartiles; it moves the times of plain decoding and of a
budget as far as they consist of such forwards. Both parts are added as squares, on the logarithm of the speed-up. The
table states no quartiles for refreshes, so their time is taken as given: with graphs both times hold the same number
of them, with bridges the drafted one holds fewer.

The best of many budgets looks better on the prompts that chose it than it is. So one split chooses, and another one,
of prompts that neither the search nor the choice has seen, says what the choice is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import ndtri

from calibrate.measuring.latency_table import LatencyError, LatencyTable
from drafting.anchors import AnchorTable
from drafting.counts import DecodeCounts
from drafting.replay import replay
from drafting.state_replay import StateReplay
from figures.records.budget import GRAPH, INFORMED, BudgetRow
from studies.pricing.price import Price, price
from studies.statistics.intervals import FEW_PROMPTS, Interval, PromptBootstrap
from verify.graph.formulas import Formula


@dataclass(frozen=True)
class BudgetChoice:
    """Every budget's row and the best of them.

    Attributes:
        rows: D = 0, then every D that was measured and for which there is a graph of D nodes, ascending; then informed
            drafts, ascending.
        best: the row with the highest ``choice_speedup``; the smaller budget when equal, then the graph.
        at_edge: the best budget is the largest of its drafter that was looked at, so a larger one may be better.
        sentence: why this one, for a person; its numbers are those of the held-out prompts.
    """

    rows: tuple[BudgetRow, ...]
    best: BudgetRow
    at_edge: bool
    sentence: str


#: The counts of one drafter at one budget on the prompts that choose, and on the held-out ones.
BothCounts = tuple[DecodeCounts, DecodeCounts]
BothReplays = tuple[StateReplay, StateReplay]


def choose_budget(
    graphs: Mapping[int, Sequence[Formula]],
    choice: AnchorTable,
    held_out: AnchorTable,
    latency: LatencyTable,
    *,
    informed: Mapping[int, BothReplays] | None = None,
    seed: int = 0,
) -> BudgetChoice:
    """Price the graph of every measured budget on the prompts ``choice``, take the best, judge it on ``held_out``.

    Args:
        graphs: draft nodes per budget. A budget whose graph has fewer nodes than that (the traces hold no more
            candidates) is left out: it is a smaller budget at a higher price.
        choice: whole chains of the prompts that choose: those searched, or better validation prompts.
        held_out: whole chains of prompts that played no part so far.
        latency: of the device, for the block length of the traces.
        informed: counts of informed drafts per budget, of the same prompts.
        seed: of the bootstrap over held-out prompts.

    Returns:
        the choice.

    Raises:
        ValueError: no prompt to choose on, or fewer than two held-out prompts, from which no interval follows.
        calibrate.measuring.latency_table.LatencyError: no latency was measured for D = 0, or not for forwards as wide
            as those of informed drafts.
    """
    candidates: list[tuple[str, int, BothCounts, int]] = [
        (GRAPH, budget, (replay(graphs.get(budget, ()), choice), replay(graphs.get(budget, ()), held_out)), budget)
        for budget in latency.drafts
        if len(graphs.get(budget, ())) >= budget
    ]
    if not candidates or candidates[0][1] != 0:
        raise LatencyError("no latency was measured for 0 drafts; measure with --drafts from 0")
    plain = candidates[0][2]
    if plain[0].prompts == 0:
        raise ValueError("the traces hold no prompt to choose a budget on; record some first")
    if plain[1].prompts < 2:
        raise ValueError(f"an interval needs at least 2 held-out prompts, got {plain[1].prompts}; record more")
    candidates += [
        (INFORMED, budget, both, max(counts.widest for counts in both))
        for budget, both in sorted((informed or {}).items())
    ]
    bootstrap = PromptBootstrap(plain[1].prompts, seed=seed)
    before = (price(plain[0], latency, 0), price(plain[1], latency, 0))
    rows = [_row(*candidate, before, latency, bootstrap) for candidate in candidates]
    best = max(rows, key=lambda row: (row.choice_speedup, -row.budget, row.drafter == GRAPH))
    at_edge = best.budget == max(row.budget for row in rows if row.drafter == best.drafter) and best.budget > 0
    return BudgetChoice(tuple(rows), best, at_edge, _sentence(rows, best, at_edge, latency, plain[1].prompts))


def _row(
    drafter: str,
    budget: int,
    both: BothCounts,
    full: int,
    plain: tuple[Price, Price],
    latency: LatencyTable,
    bootstrap: PromptBootstrap,
) -> BudgetRow:
    chosen, found = (price(counts, latency, full) for counts in both)
    spent = found.milliseconds
    interval = bootstrap.ratio(plain[1].milliseconds, spent)
    low, high = with_timing_noise(interval, found.timing_error(plain[1]))
    return BudgetRow(
        budget=budget,
        drafter=drafter,
        latency=latency.at(budget) if drafter == GRAPH else None,
        choice_speedup=float(plain[0].milliseconds.sum() / chosen.milliseconds.sum()),
        forwards=found.forwards,
        milliseconds_per_forward=float(spent.sum() / found.forwards),
        milliseconds_per_prompt=float(spent.mean()),
        speedup=interval.estimate,
        speedup_low=low,
        speedup_high=high,
    )


def with_timing_noise(interval: Interval, timing_error: float) -> tuple[float, float]:
    """The ends of ``interval`` (of a ratio above 0), moved outward by a relative standard error of its timing."""
    timing = float(ndtri((1 + interval.level) / 2)) * timing_error
    below = math.hypot(max(0.0, math.log(interval.estimate / interval.low)), timing)
    above = math.hypot(max(0.0, math.log(interval.high / interval.estimate)), timing)
    return interval.estimate * math.exp(-below), interval.estimate * math.exp(above)


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
                f" The nearest, {nearest.name()}, saves {100 * (1 - nearest.forwards / plain.forwards):.0f} % "
                f"of the forwards, but each of them takes {_longer(nearest, plain):.2f} times as long, in the mean."
            )
            if nearest.speedup_high > 1:
                why += (
                    f" That is not certain: the 95 % interval of its speed-up, over prompts and timing noise, is "
                    f"{nearest.speedup_low:.2f} to {nearest.speedup_high:.2f}."
                )
        return f"Do not speculate on this device ({where}): no budget is faster than plain decoding.{why}"
    filled = ""
    if best.latency is not None and plain.latency is not None:
        filled = f" ({best.latency / plain.latency:.2f} times with every draft filled)"
    sentence = (
        f"{best.name()} is predicted to be {best.speedup:.2f} times as fast as plain decoding on held-out prompts "
        f"(95 % interval over prompts and timing noise {best.speedup_low:.2f} to {best.speedup_high:.2f}) on {where}: "
        f"{plain.forwards / best.forwards:.2f} times fewer forwards (refresh forwards included), each "
        f"{_longer(best, plain):.2f} times as long in the mean{filled}."
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
