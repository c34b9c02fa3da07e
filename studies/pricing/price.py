"""What decodes cost in time: their forwards, each at the time that a device was measured to take for its width.

With the refresh forwards ``B`` and the step forwards of a decode,

    time = B * refresh + sum over step forwards of latency(blocks of rows beside the real one)

A draft is one block beside the real one and a bridge two; a finished block that is cached on the way is one more. A
width that was not measured is priced as the next larger one that was. In a batch a forward is as wide as the fullest of
its sequences, so there every forward is priced at the full width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from calibrate.measuring.latency_table import LatencyError, LatencyTable
from drafting.counts import DecodeCounts

#: Standard deviations between the quartiles of a normal law.
_QUARTILE_DISTANCE = float(2 * ndtri(0.75))


@dataclass(frozen=True, eq=False)
class Price:
    """What drafts cost on the prompts of one split.

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

    def timing_error(self, plain: Price) -> float:
        """Relative standard error of the speed-up over ``plain`` from the timing alone: entries vary on their own, and
        one that both times hold cancels as far as its shares are equal."""
        return float(np.linalg.norm((plain.shares - self.shares) * self.errors))


def price(counts: DecodeCounts, latency: LatencyTable, full: int) -> Price:
    """The price of counted decodes.

    Args:
        counts: of a replay.
        latency: of the device, for the block length of the decodes.
        full: the width that a forward of a batch has, in blocks beside the real one.

    Raises:
        LatencyError: a forward is wider than any that was measured.
    """
    widths = np.arange(counts.widths_per_prompt.shape[1])
    if latency.batch > 1:
        widths = np.full_like(widths, max(full, 0))
    widest = int(widths[counts.widths_per_prompt.any(axis=0)].max(initial=0))
    if widest > latency.drafts[-1]:
        raise LatencyError(
            f"a forward carries up to {widest} blocks beside the real one, but latency was measured for at most "
            f"{latency.drafts[-1]}; measure with --drafts up to {widest}"
        )
    # A width that was not measured is the next larger one; columns beyond the widest are empty.
    entry = np.minimum(np.searchsorted(latency.drafts, widths), len(latency.drafts) - 1)
    carried = np.zeros((counts.prompts, len(latency.drafts)))
    for column, forwards in zip(entry.tolist(), counts.widths_per_prompt.T, strict=True):
        carried[:, column] += forwards
    paid = carried * np.array(latency.latency)
    milliseconds = counts.refreshes_per_prompt * latency.refresh + paid.sum(axis=1)
    shares = paid.sum(axis=0) / max(milliseconds.sum(), np.finfo(float).tiny)
    return Price(milliseconds, int(counts.forwards), shares, median_errors(latency))


def median_errors(latency: LatencyTable) -> np.ndarray:
    """Relative standard error of each median of a latency table, float64 [entries].

    That of a median of ``n`` normal values is sqrt(pi / 2) standard deviations / sqrt(n); their quartiles lie 1.349
    standard deviations apart.
    """
    spread = (np.array(latency.high) - np.array(latency.low)) / _QUARTILE_DISTANCE
    return math.sqrt(math.pi / 2 / latency.repeats) * spread / np.array(latency.latency)
