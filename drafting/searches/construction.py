"""What every construction of a draft graph returns: an order of nodes whose prefixes are the graphs of each
budget."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from drafting.graph import DraftGraph
from verify.graph.formulas import Formula


class BudgetWarning(UserWarning):
    """Fewer draft nodes exist than were asked for."""


@dataclass(frozen=True)
class Construction:
    """A nested sequence of draft graphs.

    Attributes: name: of the rule, as tables and figures show it. order: draft formulas in the order chosen;
        the graph of budget D is the first D of them. gains: per node, the score by which it was chosen, in
        the unit of the rule (see there); empty for a rule
            without a score.
        complete: whether there are as many nodes as were asked for. False: the rule ran out of candidates.
    """

    name: str
    order: tuple[Formula, ...]
    gains: tuple[float, ...] = ()
    complete: bool = True

    def take(self, budget: int) -> tuple[Formula, ...]:
        """The draft nodes of the graph of ``budget``; with a :class:`BudgetWarning` when there are fewer.

        Raises:
            ValueError: a negative budget.
        """
        check_budget(budget)
        if budget > len(self.order):
            why = "it was built for no more" if self.complete else "there are no further candidates"
            warnings.warn(
                f"{self.name}: {budget} draft nodes asked for, {len(self.order)} given: {why}",
                BudgetWarning,
                stacklevel=2,
            )
        return self.order[:budget]

    def graph(self, budget: int, step_size: int | None) -> DraftGraph:
        """The graph of ``budget`` as a networkx DAG; ``step_size`` of the policy, see ``drafting.graph``."""
        return DraftGraph.from_formulas(self.take(budget), step_size)


def check_budget(budget: int) -> None:
    """Raise :class:`ValueError` unless ``budget`` is a number of draft nodes."""
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise ValueError(f"a budget is a number of draft nodes, at least 0, got {budget!r}")
