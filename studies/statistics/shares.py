"""Shares of prompts: how many of them something is true of, and what that says of all such prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from studies.statistics.intervals import LEVEL


@dataclass(frozen=True)
class Share:
    """``count`` of ``prompts``, with the exact 95 % interval of the share."""

    count: int
    prompts: int
    low: float
    high: float

    @classmethod
    def of(cls, happened: Sequence[bool]) -> Share:
        """Of one flag per prompt, at least one."""
        count = sum(happened)
        interval = binomtest(count, len(happened)).proportion_ci(LEVEL, method="exact")
        return cls(count, len(happened), float(interval.low), float(interval.high))

    def __str__(self) -> str:
        return f"{self.count} of {self.prompts}"
