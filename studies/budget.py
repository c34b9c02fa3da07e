"""The budget that pays: held-out forwards from replay, times from the device, every D from 0, the true argmax.

With ``B`` blocks, each opened by a refresh forward, and ``F(D)`` forwards in all,

    time(D) = B * refresh + (F(D) - B) * latency(D)
    speed-up(D) = time(0) / time(D)

Refresh forwards carry no drafts and cost the same for every D; leaving them out would flatter large budgets. A draft is
thus worth its rows while the forwards it saves outweigh what it adds to every forward, and D = 0 is a fair answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drafting.anchors import AnchorTable
from drafting.replay import replay
from studies.latency import LatencyTable
from verify.formulas import Formula


@dataclass(frozen=True)
class BudgetRow:
    """One budget: forwards on the split, predicted milliseconds per prompt, speed-up over plain decoding."""

    budget: int
    forwards: int
    latency: float
    milliseconds_per_prompt: float
    speedup: float
    speedup_low: float
    speedup_high: float


@dataclass(frozen=True)
class BudgetChoice:
    """Every budget's row and the best of them.

    Attributes:
        rows: D = 0, 1, ... as far as latency was measured and nodes exist.
        best: the row with the highest predicted speed-up; the smaller budget when equal.
        at_edge: the best budget is the largest that was looked at, so a larger one may be better.
        sentence: why this one, for a person.
    """

    rows: tuple[BudgetRow, ...]
    best: BudgetRow
    at_edge: bool
    sentence: str


def choose_budget(
    order: Sequence[Formula], anchors: AnchorTable, latency: LatencyTable, *, seed: int = 0, resamples: int = 2000
) -> BudgetChoice:
    """Price every prefix of a nested construction and take the best.

    Args:
        order: draft nodes in the order chosen; the graph of D is the first D.
        anchors: held-out traces, whole chains.
        latency: of the device, for the block length of the traces.
        seed: of the bootstrap over prompts.
        resamples: its draws.

    Returns:
        the choice. Intervals (95 %, percentile bootstrap over prompts) take the latency as given.

    Raises:
        ValueError: the traces hold no prompt, or no latency was measured for D = 0.
    """
    plain = replay((), anchors)
    prompts = len(plain.samples)
    if prompts == 0:
        raise ValueError("the traces hold no prompt, so no budget can be judged; record held-out prompts first")
    blocks = np.bincount(np.searchsorted(plain.samples, anchors.block_sample), minlength=prompts).astype(float)
    weights = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    plain_time = blocks * latency.refresh + (plain.plain_per_sample - blocks) * latency.at(0)
    rows = []
    for budget in (d for d in latency.drafts if d <= len(order)):
        found = replay(order[:budget], anchors)
        spent = blocks * latency.refresh + (found.forwards_per_sample - blocks) * latency.at(budget)
        resampled = (weights @ plain_time) / (weights @ spent)
        low, high = np.quantile(resampled, [0.025, 0.975])
        rows.append(
            BudgetRow(
                budget,
                found.forwards,
                latency.at(budget),
                float(spent.mean()),
                float(plain_time.sum() / spent.sum()),
                float(low),
                float(high),
            )
        )
    best = max(rows, key=lambda row: (row.speedup, -row.budget))
    at_edge = best.budget == rows[-1].budget and best.budget > 0
    return BudgetChoice(tuple(rows), best, at_edge, _sentence(rows, best, at_edge, latency))


def _sentence(rows: Sequence[BudgetRow], best: BudgetRow, at_edge: bool, latency: LatencyTable) -> str:
    plain = rows[0]
    where = f"{latency.device}, {latency.dtype}, batch {latency.batch}, context {latency.context_length}"
    if best.budget == 0:
        nearest = max(rows[1:], key=lambda row: row.speedup, default=None)
        why = ""
        if nearest is not None:
            why = (
                f" The nearest, D = {nearest.budget}, saves {1 - nearest.forwards / plain.forwards:.0%} of the "
                f"forwards, but each of them takes {nearest.latency / plain.latency:.2f} times as long."
            )
        return f"Do not speculate on this device ({where}): no budget is faster than plain decoding.{why}"
    said = (
        f"D = {best.budget} is predicted to be {best.speedup:.2f} times as fast as plain decoding "
        f"(95 % interval over prompts {best.speedup_low:.2f} to {best.speedup_high:.2f}) on {where}: "
        f"{plain.forwards / best.forwards:.2f} times fewer forwards, each {best.latency / plain.latency:.2f} times as "
        "long."
    )
    if best.speedup_low <= 1:
        said += " The interval contains 1: the gain is not certain."
    if at_edge:
        said += f" D = {best.budget} is the largest budget looked at; measure latency and search beyond it."
    return said
