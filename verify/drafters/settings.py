"""What of an informed drafter can be tuned: plain data, so that a search can write and read it."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Rules for the rows that the chain leaves, in the order in which their parts are asked.
FILLS = ("none", "alternatives", "graph", "alternatives+graph", "graph+alternatives")


@dataclass(frozen=True)
class InformedSettings:
    """Settings of :class:`verify.drafters.informed.InformedDrafter`; every value leaves the decoded tokens as they are.

    Attributes:
        coefficient: what an influence's change of log-odds is multiplied by, at least 0.
        horizon: states that the chain proposes at most, at least 1; states known already do not count. None: as many
            as there are rows.
        bridges: whether a chain may lead on into the next block, in cache modes where this is possible.
        fill: who gets the rows that the chain leaves: ``none``, ``alternatives`` (the nearest other choices of the
            chain's steps), ``graph`` (the formulas of a calibrated graph), or both in the order of their names.
        hedges: rows kept back for graph nodes that the chain does not hold; what the graph cannot use goes back to the
            chain.
        width: alternatives at every step of the chain, at least 1.
        follow: states that are proposed beyond an alternative at most, along its own predicted chain. 0: none, and an
            alternative that is known already is passed over.
        beyond: whether steps in the next block, beyond a bridge, have alternatives too.
        copies: whether there are bridges in dual cache mode, too, where the first is a copy of the whole sequence.

    Raises:
        ValueError: a value of the wrong type or out of range.
    """

    coefficient: float = 1.0
    horizon: int | None = None
    bridges: bool = True
    fill: str = "alternatives"
    hedges: int = 0
    width: int = 1
    follow: int = 0
    beyond: bool = False
    copies: bool = False

    def __post_init__(self) -> None:
        coefficient = self.coefficient
        if isinstance(coefficient, bool) or not isinstance(coefficient, int | float) or not 0 <= coefficient < math.inf:
            raise ValueError(f"coefficient is {coefficient!r}, expected a finite number of at least 0")
        if self.horizon is not None:
            _whole("horizon", self.horizon, 1, " or None")
        for name in ("bridges", "copies", "beyond"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected True or False")
        if self.fill not in FILLS:
            raise ValueError(f"fill is {self.fill!r}, expected one of {', '.join(FILLS)}")
        _whole("hedges", self.hedges, 0)
        _whole("width", self.width, 1)
        _whole("follow", self.follow, 0)

    @property
    def uses_graph(self) -> bool:
        """Whether any row may go to a graph's formulas."""
        return self.hedges > 0 or "graph" in self.fill


def _whole(name: str, value: object, least: int, otherwise: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}{otherwise}")
