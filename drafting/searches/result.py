"""What every search returns: the nodes of a draft graph in the order chosen, and what is known about their value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from verify.graph.formulas import Formula


@dataclass(frozen=True)
class SearchResult:
    """The draft graph that a search found for one budget.

    Attributes:
        method: the name of the method (see ``drafting.searches.methods``).
        budget: draft nodes asked for.
        nodes: draft formulas in the order chosen, at most ``budget`` of them. Every beginning of the order is a
            draft graph too; with a nested method it is the graph of that smaller budget.
        gains: per node, the score by which it was chosen, in the unit of the method; empty for a method without a
            score.
        value: path_value of the graph on the searched traces; None when the search did not compute it.
        bound: no graph of ``budget`` nodes has a larger path_value there; None when nothing was proved.
        seconds: wall time of the search; for a nested method, of the one search that gave all its budgets.
        chosen: what the search chose itself, for example a reading of the published rule, or what proved its bound;
            empty when there is nothing to say.
    """

    method: str
    budget: int
    nodes: tuple[Formula, ...] = ()
    gains: tuple[float, ...] = ()
    value: float | None = None
    bound: float | None = None
    seconds: float = 0.0
    chosen: str = ""

    @property
    def complete(self) -> bool:
        """Whether there are as many nodes as were asked for. False: the search ran out of candidates."""
        return len(self.nodes) == self.budget

    @property
    def gap(self) -> float | None:
        """(bound - value) / bound: the share of the optimum that may be missing at most. None without a bound.

        Value and bound are sums of the same counts, so a gap below 1e-12 is a rounding error and counts as 0.
        """
        if self.bound is None or self.value is None:
            return None
        gap = (self.bound - self.value) / self.bound if self.bound > 0 else 0.0
        return gap if gap > 1e-12 else 0.0

    @property
    def proved(self) -> bool:
        """Whether no graph of this budget is better, on the searched traces."""
        return self.gap == 0

    def first(self, budget: int) -> SearchResult:
        """The graph of ``budget``: the first nodes of the order. Value and bound are those of the whole order only.

        Raises:
            ValueError: a negative budget, or a larger one than was searched for.
        """
        check_budget(budget)
        if budget > self.budget:
            raise ValueError(
                f"{self.method} was searched for {self.budget} draft nodes, got a budget of {budget}; search again "
                "with this budget"
            )
        if budget == self.budget:
            return self
        nodes, gains = self.nodes[:budget], self.gains[:budget]
        return replace(self, budget=budget, nodes=nodes, gains=gains, value=None, bound=None)


def check_budget(budget: int) -> None:
    """Raise :class:`ValueError` unless ``budget`` is a number of draft nodes."""
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise ValueError(f"a budget is a number of draft nodes, at least 0, got {budget!r}")
