"""Would more prompts help? The worth of a graph on fixed held-out prompts against the prompts it was found on.

For n = 5, 10, 20, ... prompts, drawn several times at random, a graph is found on n prompts and valued on held-out
prompts that stay the same. The last point takes all prompts, of which there is one draw.

The rule by which the curve answers. Compare the graph of all prompts with the graphs of half of them, on the held-out
prompts, in pairs: the gain in nfe reduction over the mean of the draws of half. If its interval lies above zero, the
last doubling paid, and more prompts are likely to help. If it contains zero, there is no sign of a gain from the last
doubling; the upper end of the interval says how large a gain may have gone unseen.

Two things make the gain uncertain: which prompts are held out, and which were searched. The first is resampled. For the
second, all prompts give one graph only; how much another set of as many would have moved it is taken from how the
graphs of random halves differ among themselves (the delete-half jackknife: halves drawn without replacement vary about
as whole samples do). Every resample of held-out prompts adds the deviation of one half, drawn at random. Without
this a lucky or unlucky graph passes for a trend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drafting.anchors import AnchorTable
from drafting.replay import ReplayResult, check_paired, replay
from figures.records.calibration_size import Answer, SizeRow
from studies.statistics.crossval import SplitError, search_graphs
from studies.statistics.intervals import Interval, PromptBootstrap

SMALLEST = 5


@dataclass(frozen=True, eq=False)
class SizePoint:
    """One size and budget.

    Attributes:
        prompts: n, search prompts per draw.
        budget: draft nodes asked for.
        in_sample: nfe reduction on the search prompts, per draw.
        held_out: counts on the held-out prompts, per draw.
    """

    prompts: int
    budget: int
    in_sample: tuple[float, ...]
    held_out: tuple[ReplayResult, ...]

    def mean(self) -> ReplayResult:
        """Held-out counts of a graph from a random draw: the mean over draws, prompt by prompt."""
        return ReplayResult.mean(self.held_out)


@dataclass(frozen=True, eq=False)
class SizeCurve:
    """The curve of one method; ``points`` by budget, then by size."""

    method: str
    points: tuple[SizePoint, ...]

    def rows(self, seed: int = 0) -> list[SizeRow]:
        """One row per size and budget: the mean over draws with its interval, and the spread of the draws."""
        bootstrap = PromptBootstrap(self.points[0].held_out[0].prompts, seed=seed)
        rows = []
        for point in self.points:
            mean = point.mean()
            found = bootstrap.nfe_reduction(mean)
            each = [draw.nfe_reduction for draw in point.held_out]
            rows.append(
                SizeRow(
                    method=self.method,
                    budget=point.budget,
                    search_prompts=point.prompts,
                    draws=len(each),
                    in_sample_nfe_reduction=float(np.mean(point.in_sample)),
                    prompts=mean.prompts,
                    nfe_reduction=found.estimate,
                    nfe_reduction_low=found.low,
                    nfe_reduction_high=found.high,
                    draws_low=min(each),
                    draws_high=max(each),
                    accepted_drafts=mean.accepted_drafts,
                    forwards_plain=mean.plain_forwards,
                    forwards_mean=float(mean.forwards),
                )
            )
        return rows

    def answer(self, budget: int, seed: int = 0) -> SizeAnswer:
        """Apply the rule of this module at one budget.

        Raises:
            SplitError: a budget that is not in the curve, or fewer than two draws of half.
        """
        here = [point for point in self.points if point.budget == budget]
        if not here:
            raise SplitError(f"the curve holds budgets {sorted({p.budget for p in self.points})}, not {budget}")
        whole = here[-1]
        half = next(point for point in here if point.prompts == half_of(whole.prompts))
        return SizeAnswer(budget, half.prompts, whole.prompts, _gain(whole.held_out[0], half.held_out, seed))


@dataclass(frozen=True)
class SizeAnswer:
    """The gain in held-out nfe reduction from ``half`` to ``whole`` search prompts, in pairs."""

    budget: int
    half: int
    whole: int
    gain: Interval

    @property
    def more_would_help(self) -> bool:
        """Whether the last doubling paid: the interval of the gain lies above zero, from enough prompts to say so."""
        return self.gain.conclusive and self.gain.low > 0

    def record(self) -> Answer:
        """The answer as its file holds it."""
        gain, helps = self.gain, self.more_would_help
        return Answer(self.budget, self.half, self.whole, gain.estimate, (gain.low, gain.high), helps, self.sentence())

    def sentence(self) -> str:
        """The answer in words, with the numbers it rests on."""
        gain = self.gain
        numbers = (
            f"from {self.half} to {self.whole} search prompts the held-out nfe reduction at D = {self.budget} changed "
            f"by {gain.estimate:+.3f}, {100 * gain.level:.0f} % interval [{gain.low:+.3f}, {gain.high:+.3f}] "
            f"over {gain.prompts} held-out prompts"
        )
        if not gain.conclusive:
            return f"Too few held-out prompts ({gain.prompts}) to conclude whether more prompts would help: {numbers}."
        if self.more_would_help:
            return f"More prompts are likely to help: {numbers}."
        if gain.high < 0:
            return f"No sign that more prompts would help; on these held-out prompts they hurt: {numbers}."
        return (
            f"No sign that more prompts would help, the interval contains zero: {numbers}. "
            f"A gain of up to {gain.high:.3f} may have gone unseen."
        )


def _gain(whole: ReplayResult, halves: Sequence[ReplayResult], seed: int) -> Interval:
    """Nfe reduction of the whole graph minus that of the mean half, with the interval of this module's rule."""
    if len(halves) < 2:
        raise SplitError(f"the rule needs at least two draws of half of the prompts, got {len(halves)}; raise draws")
    check_paired(whole, ReplayResult.mean(halves))
    rng = np.random.default_rng(seed)
    spread = np.sqrt(len(halves) / (len(halves) - 1))  # as deviations from their own mean are too small

    def gain(sums: np.ndarray) -> np.ndarray:
        plain, all_prompts, each = sums[:, 0], sums[:, 1], sums[:, 2:]
        # Rounded, as a difference in the last bits of equal graphs is no gain; + 0.0 turns -0.0 into 0.0.
        return np.round(plain / all_prompts - plain / each.mean(axis=1), 12) + 0.0

    def gain_of_another_search(sums: np.ndarray) -> np.ndarray:
        each = sums[:, :1] / sums[:, 2:]
        one = each[np.arange(len(each)), rng.integers(len(halves), size=len(each))]
        return gain(sums) + np.round(spread * (one - each.mean(axis=1)), 12)

    columns = np.column_stack([whole.plain_per_prompt, *(part.forwards_per_prompt for part in (whole, *halves))])
    bootstrap = PromptBootstrap(whole.prompts, method="percentile", seed=seed)
    low, high = np.quantile(bootstrap.resampled(columns, gain_of_another_search), bootstrap.tails())
    estimate = float(gain(columns.sum(axis=0)[None, :])[0])
    settings = (bootstrap.level, bootstrap.prompts, bootstrap.resamples, bootstrap.method, seed)
    return Interval(estimate, float(low), float(high), *settings)


def half_of(prompts: int) -> int:
    """Half of the prompts, rounded up."""
    return (prompts + 1) // 2


def default_sizes(prompts: int) -> tuple[int, ...]:
    """5, 10, 20, ... below ``prompts``, then half of them and all of them."""
    sizes = {half_of(prompts), prompts}
    size = SMALLEST
    while size < prompts:
        sizes.add(size)
        size *= 2
    return tuple(sorted(sizes))


def calibration_size_curve(
    method: str,
    search: AnchorTable,
    held_out: AnchorTable,
    budgets: Sequence[int],
    *,
    block_length: int,
    step_size: int | None,
    sizes: Sequence[int] | None = None,
    draws: int = 10,
    seed: int = 0,
) -> SizeCurve:
    """Find graphs on n prompts and value them on fixed held-out prompts, for growing n.

    Args:
        method: a name of ``drafting.searches.methods``.
        search: anchors of the search prompts, whole chains.
        held_out: anchors of other prompts, whole chains.
        budgets: draft nodes.
        block_length: positions per block.
        step_size: pairs per denoising step, None where it varies.
        sizes: numbers of search prompts; half and all are always added, because the rule needs them. By default 5, 10,
            20, ... and these two.
        draws: draws per size, at least two for an answer; all prompts are drawn once.
        seed: of the draws. Draws of different sizes are independent.

    Complexity: one search and two replays per draw.

    Raises:
        SplitError: fewer than two search prompts or held-out prompts, a size out of range, draws below 1, no budget.
    """
    prompt_indices = search.prompt_indices()
    if len(prompt_indices) < 2:
        raise SplitError(f"a calibration-size curve needs at least two search prompts, got {len(prompt_indices)}")
    if len(held_out.prompt_indices()) < 2:
        raise SplitError(
            f"a calibration-size curve needs at least two held-out prompts, got "
            f"{len(held_out.prompt_indices())}; record more"
        )
    if draws < 1:
        raise SplitError(f"draws must be at least 1, got {draws}")
    wanted = (
        default_sizes(len(prompt_indices))
        if sizes is None
        else (*sizes, half_of(len(prompt_indices)), len(prompt_indices))
    )
    for size in wanted:
        if not 1 <= size <= len(prompt_indices):
            raise SplitError(f"a size must lie between 1 and the {len(prompt_indices)} search prompts, got {size}")
    points = []
    for size in sorted(set(wanted)):
        rng = np.random.default_rng([seed, size])
        times = 1 if size == len(prompt_indices) else draws
        inside: dict[int, list[float]] = {budget: [] for budget in budgets}
        outside: dict[int, list[ReplayResult]] = {budget: [] for budget in budgets}
        for _ in range(times):
            part = search.select(rng.choice(prompt_indices, size, replace=False))
            for budget, found in search_graphs(method, part, budgets, block_length, step_size).items():
                inside[budget].append(replay(found.nodes, part).nfe_reduction)
                outside[budget].append(replay(found.nodes, held_out))
        points += [SizePoint(size, budget, tuple(inside[budget]), tuple(outside[budget])) for budget in inside]
    return SizeCurve(method, tuple(sorted(points, key=lambda point: (point.budget, point.prompts))))
