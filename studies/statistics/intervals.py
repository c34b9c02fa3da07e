"""Intervals from resampling prompts: how far a number would move had other prompts been drawn.

The unit that is resampled is the prompt. Anchors and blocks of one prompt resemble each other, so resampling those
would give intervals that are far too narrow. What is reported are ratios of sums over prompts (plain forwards over
forwards, accepted drafts over anchors), and so a resample adds up numerators and denominators apart.

All graphs are resampled with the *same* draws of prompts. A difference between two graphs is therefore paired: what
makes a prompt easy for both cancels, and the interval of the difference is much narrower than the intervals of the two
graphs suggest.

Fewer than :data:`FEW_PROMPTS` prompts conclude nothing: their intervals cover the truth much less often than they say
(``benchmarks/interval_coverage.py``), so every verdict is withheld and every interval comes with a warning.

What an interval here does not hold: the graph is taken as given. On the prompts that chose the graph the estimate is
too good, and no resampling of the same prompts mends that; report held-out prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from drafting.counts import DecodeCounts, check_paired
from drafting.replay import ReplayResult
from figures.canvas.words import FEWEST_PROMPTS

Method = Literal["bca", "percentile"]

RESAMPLES = 10_000
LEVEL = 0.95
#: Below this many prompts no verdict is given, here and in figures.
FEW_PROMPTS = FEWEST_PROMPTS
_CACHED_CELLS = 1 << 22  # weights kept in memory at most (32 MiB); more are drawn anew, in parts, at every use

Statistic = Callable[[np.ndarray], np.ndarray]  # sums over prompts [R, columns] -> [R]


class IntervalError(ValueError):
    """Prompts that no interval can be computed from."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        estimate: the statistic on the prompts themselves.
        low, high: ends of the interval.
        level: nominal coverage, 0.95 by default.
        prompts: prompts that were resampled.
        resamples: draws.
        method: "bca" or "percentile".
        seed: of the draws.
    """

    estimate: float
    low: float
    high: float
    level: float
    prompts: int
    resamples: int
    method: str
    seed: int

    def contains(self, value: float) -> bool:
        """Whether ``value`` lies in the interval, its ends included."""
        return self.low <= value <= self.high

    @property
    def conclusive(self) -> bool:
        """Whether there are enough prompts to conclude anything from the interval."""
        return self.prompts >= FEW_PROMPTS

    def pair(self) -> list[float]:
        """``[low, high]``, as graph files hold it."""
        return [self.low, self.high]

    def __str__(self) -> str:
        few = "" if self.conclusive else f" ({self.prompts} prompts, too few to conclude)"
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]{few}"


def few_prompts_note(prompts: int) -> str:
    """One sentence to stand beside intervals from too few prompts; empty where there are enough."""
    if prompts >= FEW_PROMPTS:
        return ""
    return (
        f"Intervals from {prompts} prompts are too narrow: below {FEW_PROMPTS} they hold the truth less often than "
        "they say, so nothing is concluded from them."
    )


@dataclass(frozen=True)
class Comparison:
    """Two graphs or drafters on the same prompts: each alone, paired difference and ratio (first against second)."""

    nfe_reduction: tuple[Interval, Interval]
    nfe_reduction_difference: Interval
    nfe_reduction_ratio: Interval

    @property
    def distinguishable(self) -> bool:
        """Whether the interval of the difference in nfe reduction leaves zero out, from enough prompts to say so."""
        difference = self.nfe_reduction_difference
        return difference.conclusive and not difference.contains(0.0)

    def sentence(self, first: str = "the first graph", second: str = "the second") -> str:
        """One sentence: which graph needs fewer forwards, that these prompts cannot tell, or that they are too few."""
        found = self.nfe_reduction_difference
        gap = (
            f"nfe reduction {found.estimate:+.3f}, {100 * found.level:.0f} % interval "
            f"[{found.low:+.3f}, {found.high:+.3f}] over {found.prompts} prompts"
        )
        if not found.conclusive:
            return f"{first} and {second}: too few prompts ({found.prompts}) to conclude ({gap})."
        if not self.distinguishable:
            return f"{first} and {second} cannot be told apart: the interval contains zero ({gap})."
        better = "fewer" if found.estimate > 0 else "more"
        return f"{first} needs {better} forwards than {second}: the interval leaves zero out ({gap})."


@dataclass(frozen=True)
class GraphComparison(Comparison):
    """Two graphs; of these the accepted drafts over all anchors are known too."""

    accepted_drafts: tuple[Interval, Interval]
    accepted_drafts_difference: Interval


@dataclass(frozen=True)
class PromptBootstrap:
    """Draws of prompts with replacement, the same for every statistic that is asked of this object.

    Rows of a multinomial say how often each prompt was drawn; a sum over the resample is then one matrix product.
    ``scipy.stats.bootstrap`` gives the same intervals (a test compares them) but draws anew for every statistic, and a
    table asks for a hundred.

    "bca" (bias-corrected and accelerated) corrects the percentiles for bias and skewness. Both methods expand them for
    few prompts (see ``_expanded_tails``).

    Args:
        prompts: ``M``, prompts to draw from.
        resamples: draws, 10,000 by default.
        level: nominal coverage, between 0 and 1.
        method: "bca" or "percentile".
        seed: of the draws; one seed always gives the same interval.

    Complexity: O(resamples * M) once, then as much per statistic as one matrix product: 10,000 resamples of 200 prompts
    take about 0.1 s, every further statistic a few milliseconds.

    Source: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987); B. Efron and R. Tibshirani, "An
    Introduction to the Bootstrap" (1993), chapter 14. Expansion: T. Hesterberg, "What Teachers Should Know About the
    Bootstrap", The American Statistician 69 (2015).

    Raises:
        IntervalError: fewer than two prompts, or an option out of range.
    """

    prompts: int
    resamples: int = RESAMPLES
    level: float = LEVEL
    method: Method = "bca"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prompts < 2:
            raise IntervalError(
                f"an interval over prompts needs at least two prompts, got {self.prompts}; record more prompts"
            )
        if self.resamples < 100:
            raise IntervalError(f"resamples must be at least 100, got {self.resamples}")
        if not 0 < self.level < 1:
            raise IntervalError(f"level must lie between 0 and 1, for example 0.95, got {self.level}")
        if self.method not in get_args(Method):
            raise IntervalError(f"method must be one of {', '.join(get_args(Method))}, got {self.method!r}")

    def ratio(self, numerator: np.ndarray, denominator: np.ndarray) -> Interval:
        """Interval of sum(numerator) / sum(denominator); both [M]. A ratio without denominator is 0."""
        return self._interval(np.column_stack([numerator, denominator]), _ratio)

    def ratio_difference(self, first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> Interval:
        """Paired interval of the first ratio of sums minus the second; four arrays [M]."""
        return self._interval(np.column_stack([*first, *second]), _difference)

    def ratio_quotient(self, first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> Interval:
        """Paired interval of the first ratio of sums over the second; four arrays [M]."""
        return self._interval(np.column_stack([*first, *second]), _quotient)

    def nfe_reduction(self, found: DecodeCounts) -> Interval:
        """Interval of plain forwards / forwards."""
        return self.ratio(found.plain_per_prompt, found.forwards_per_prompt)

    def accepted_drafts(self, found: ReplayResult) -> Interval:
        """Interval of the mean accepted drafts over all anchors."""
        return self.ratio(found.accepted_per_prompt, found.anchors_per_prompt)

    def compare(self, first: DecodeCounts, second: DecodeCounts) -> Comparison:
        """Everything about two graphs or drafters on the same prompts.

        Raises:
            drafting.replay.ReplayError: other prompts, or other decodes of them.
        """
        check_paired(first, second)
        a, b = ((found.plain_per_prompt, found.forwards_per_prompt) for found in (first, second))
        return Comparison(
            nfe_reduction=(self.nfe_reduction(first), self.nfe_reduction(second)),
            nfe_reduction_difference=self.ratio_difference(a, b),
            nfe_reduction_ratio=self.ratio_quotient(a, b),
        )

    def compare_graphs(self, first: ReplayResult, second: ReplayResult) -> GraphComparison:
        """:meth:`compare`, and the accepted drafts of both graphs."""
        drafts = ((found.accepted_per_prompt, found.anchors_per_prompt) for found in (first, second))
        own = (self.accepted_drafts(first), self.accepted_drafts(second))
        return GraphComparison(**vars(self.compare(first, second)), accepted_drafts=own,
                               accepted_drafts_difference=self.ratio_difference(*drafts))  # fmt: skip

    def resampled(self, columns: np.ndarray, statistic: Statistic) -> np.ndarray:
        """A statistic of sums over prompts in every resample: columns [M, c] -> float64 [resamples].

        ``statistic`` maps sums [R, c] to [R]; large bootstraps call it in parts, always in the same order.

        Raises:
            IntervalError: not one row per prompt, or numbers that are not finite.
        """
        columns = np.asarray(columns, dtype=np.float64)
        if columns.shape[0] != self.prompts:
            raise IntervalError(f"expected one number per prompt ({self.prompts}), got {columns.shape[0]}")
        if not np.isfinite(columns).all():
            raise IntervalError("counts per prompt must be finite numbers")
        if self.resamples * self.prompts <= _CACHED_CELLS:
            parts: Iterable[np.ndarray] = (_kept_weights(self.prompts, self.resamples, self.seed),)
        else:
            parts = _weights(self.prompts, self.resamples, self.seed)
        return np.concatenate([statistic(weights @ columns) for weights in parts])

    def tails(self) -> np.ndarray:
        """Probabilities of the two ends of the interval, expanded for few prompts: float64 [2]."""
        return _expanded_tails(self.level, self.prompts)

    def _interval(self, columns: np.ndarray, statistic: Statistic) -> Interval:
        columns = np.asarray(columns, dtype=np.float64)
        drawn = np.sort(self.resampled(columns, statistic))
        total = columns.sum(axis=0)
        estimate = float(statistic(total[None, :])[0])
        tails = self.tails()
        if self.method == "bca":
            tails = _bca_tails(tails, drawn, estimate, statistic(total[None, :] - columns))
        low, high = np.quantile(drawn, tails)
        return Interval(
            estimate=estimate,
            low=float(low),
            high=float(high),
            level=self.level,
            prompts=self.prompts,
            resamples=self.resamples,
            method=self.method,
            seed=self.seed,
        )


def interval_columns(found: DecodeCounts, *, seed: int = 0, level: float = LEVEL) -> dict[str, float | None]:
    """``nfe_reduction_low``, ``..._high``, ``accepted_drafts_low``, ``..._high`` for a row of results.

    All None with fewer than two prompts: a table then shows the number without an interval.
    """
    fields = interval_fields(found, seed=seed, level=level)
    columns: dict[str, float | None] = {}
    for name in ("nfe_reduction", "accepted_drafts"):
        low, high = fields.get(f"{name}_interval", (None, None))
        columns |= {f"{name}_low": low, f"{name}_high": high}
    return columns


def interval_fields(found: DecodeCounts, *, seed: int = 0, level: float = LEVEL) -> dict[str, list[float]]:
    """``nfe_reduction_interval`` and ``accepted_drafts_interval`` as ``[low, high]``, for the values of a graph file.

    Empty with fewer than two prompts.
    """
    if found.prompts < 2:
        return {}
    bootstrap = PromptBootstrap(found.prompts, level=level, seed=seed)
    fields = {"nfe_reduction_interval": bootstrap.nfe_reduction(found).pair()}
    if isinstance(found, ReplayResult):
        fields["accepted_drafts_interval"] = bootstrap.accepted_drafts(found).pair()
    return fields


@lru_cache(maxsize=2)  # a table goes to and fro between a search and a held-out split
def _kept_weights(prompts: int, resamples: int, seed: int) -> np.ndarray:
    return np.concatenate(list(_weights(prompts, resamples, seed)))


def _weights(prompts: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each prompt stands in each resample: float64 [rows, M] in parts, each row sums to M."""
    rng = np.random.default_rng(seed)
    share = np.full(prompts, 1 / prompts)
    rows = max(1, _CACHED_CELLS // prompts)
    for low in range(0, resamples, rows):
        yield rng.multinomial(prompts, share, min(rows, resamples - low)).astype(np.float64)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] != 0)


def _difference(sums: np.ndarray) -> np.ndarray:
    return _ratio(sums[:, :2]) - _ratio(sums[:, 2:])


def _quotient(sums: np.ndarray) -> np.ndarray:
    return _ratio(np.column_stack([_ratio(sums[:, :2]), _ratio(sums[:, 2:])]))


def _expanded_tails(level: float, prompts: int) -> np.ndarray:
    """Tail probabilities, moved outward as Student's t is wider than the normal law: float64 [2].

    The draws vary too little by (M - 1) / M, and percentiles take their spread for known. Without this a 95 % interval
    from a dozen prompts covers 88 %.
    """
    upper = stdtrit(prompts - 1, (1 + level) / 2) * np.sqrt(prompts / (prompts - 1))
    return ndtr(np.array([-upper, upper]))


def _bca_tails(tails: np.ndarray, drawn: np.ndarray, estimate: float, left_out: np.ndarray) -> np.ndarray:
    """Move the tail probabilities by the bias of the draws and by how the spread changes with the value.

    ``drawn``: the resampled statistic, sorted. ``left_out`` [M]: the statistic without each prompt (jackknife).
    When no prompt changes the statistic there is nothing to correct.
    """
    influence = left_out.mean() - left_out
    spread = np.sum(influence**2)
    if spread <= (1e-12 * max(1.0, abs(estimate))) ** 2:
        return tails
    # Sums in another order differ in the last bits: what is that close to the estimate counts as equal to it.
    slack = 1e-12 * max(1.0, abs(estimate))
    below, up_to = np.searchsorted(drawn, [estimate - slack, estimate + slack])
    share = np.clip((below + up_to) / (2 * len(drawn)), 0.5 / len(drawn), 1 - 0.5 / len(drawn))
    bias = ndtri(share)
    acceleration = np.sum(influence**3) / (6 * spread**1.5)
    # From two prompts the tails round to 0 and 1, whose normal quantiles are infinite. No number of draws
    # tells a tail of a billionth from none.
    shifted = bias + ndtri(np.clip(tails, 1e-9, 1 - 1e-9))
    return ndtr(bias + shifted / (1 - acceleration * shifted))
