"""The verdict file of ``draftgraph budget``: every budget priced, the one that pays, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from calibrate.measuring.latency_table import LatencyTable
from figures.records.record import check_interval, check_pair, load_record
from verify.files.strict_json import Words, fail
from verify.files.typed_json import AboveZero, Amount, Count, Name, Positive
from verify.graph.file import Validity

#: Whose drafts: of the calibrated graph of a budget, or informed ones (``verify.drafters``).
GRAPH, INFORMED = "graph", "informed"


@dataclass(frozen=True)
class BudgetRow:
    """One budget of one drafter.

    Attributes:
        budget: drafts ``D``.
        drafter: ``graph`` or ``informed``.
        latency: milliseconds of a forward that carries all ``D`` drafts; None for informed drafts, of which some may
            be bridges, two blocks wide.
        forwards: forward passes on the held-out prompts, refresh forwards included; so are all fields below.
        milliseconds_per_prompt: predicted.
        speedup: predicted, over plain decoding.
        speedup_low, speedup_high: ends of its 95 % interval.
        choice_speedup: predicted speed-up over plain decoding on the prompts that choose.
        milliseconds_per_forward: the mean over these forwards. Refresh forwards carry no drafts and late anchors fill
            few, so it lies below ``latency`` where drafts cost; forwards saved over it is the speed-up.
    """

    budget: Count
    latency: AboveZero | None
    choice_speedup: Amount
    forwards: Positive
    milliseconds_per_forward: AboveZero
    milliseconds_per_prompt: AboveZero
    speedup: Amount
    speedup_low: Amount
    speedup_high: Amount
    drafter: Name = GRAPH

    def name(self) -> str:
        """How a sentence calls it."""
        return f"D = {self.budget}" + (" with informed drafts" if self.drafter == INFORMED else "")

    def check(self, where: str) -> None:
        """Refuse an interval the wrong way round."""
        check_interval(self.speedup_low, self.speedup_high, "speedup", where)

    def prompts(self) -> int:
        """Held-out prompts: the time of all forwards over the time of a prompt."""
        return round(self.forwards * self.milliseconds_per_forward / self.milliseconds_per_prompt)


@dataclass(frozen=True)
class Budget:
    """A verdict.

    Attributes:
        rows: by budget, 0 first; those of informed drafts after those of graphs.
        budget: the one that was chosen; 0 is: do not speculate.
        drafter: whose drafts were chosen, ``graph`` or ``informed``.
        sentence: why, for a person; its numbers are those of the held-out prompts.
        search: the method that made the graphs.
        budget_chosen_on: the split that chose.
        predicted_speedup: over plain decoding on held-out prompts, with its 95 % interval.
        validity: for whom the graphs hold.
        latency: the table that priced them.
        at_edge: the chosen budget is the largest that was looked at.
        trace_hashes: of the recordings: searched, chosen on where that is another, held out.
        graph: file name of the chosen graph, beside this file; None where the verdict is not to speculate, or names
            informed drafts, which need no file.
        measured_prompts: prompts that the run decoded with plain decoding and with the chosen graph, and on these:
        measured_seconds_plain, measured_seconds: wall time of the two. None where the run did not measure this graph.
    """

    FORMAT: ClassVar[str] = "draftgraph-budget"

    rows: tuple[BudgetRow, ...]
    budget: Count
    sentence: Name
    search: Name
    budget_chosen_on: Name
    predicted_speedup: Amount
    predicted_speedup_interval: tuple[float, float]
    validity: Validity
    latency: LatencyTable
    at_edge: bool = False
    trace_hashes: tuple[Name, ...] = ()
    graph: Name | None = None
    measured_prompts: Positive | None = None
    measured_seconds_plain: AboveZero | None = None
    measured_seconds: AboveZero | None = None
    drafter: Name = GRAPH

    def check(self, where: str) -> None:
        """Refuse budgets that do not ascend from 0, a choice without a row, a graph elsewhere."""
        budgets = [row.budget for row in self.of(GRAPH)]
        if not budgets or budgets[0] != 0 or budgets != sorted(set(budgets)) or self.rows[0].drafter != GRAPH:
            fail("rows", "budgets that ascend from 0", budgets)
        for drafter in self.drafters():
            own = [row.budget for row in self.of(drafter)]
            if own != sorted(set(own)):
                fail("rows", f"budgets of drafter {drafter} that ascend", own)
        own = [row.budget for row in self.of(self.drafter)]
        if self.budget not in own:
            fail("budget", f"one of the budgets of the rows, {own}", self.budget)
        check_pair(self.predicted_speedup_interval, "predicted_speedup_interval")
        if self.graph is not None and (Path(self.graph).name != self.graph or "\\" in self.graph):
            fail("graph", "the name of a file beside this one", self.graph)
        measured = (self.measured_prompts, self.measured_seconds_plain, self.measured_seconds)
        if None in measured and any(value is not None for value in measured):
            fail(where, "measured_prompts, measured_seconds_plain and measured_seconds together", Words("some of them"))

    def drafters(self) -> list[str]:
        """Whose rows there are, in their order."""
        return list(dict.fromkeys(row.drafter for row in self.rows))

    def of(self, drafter: str) -> list[BudgetRow]:
        """The rows of one drafter."""
        return [row for row in self.rows if row.drafter == drafter]

    def chosen(self) -> BudgetRow:
        """The row of the chosen budget."""
        return next(row for row in self.of(self.drafter) if row.budget == self.budget)

    def fewer(self, row: BudgetRow) -> float:
        """Forwards of plain decoding over those of ``row``."""
        return self.rows[0].forwards / row.forwards

    def longer(self, row: BudgetRow) -> float:
        """Time of the mean forward of ``row`` over that of plain decoding's."""
        return row.milliseconds_per_forward / self.rows[0].milliseconds_per_forward

    def fits(self, config: dict[str, Any], policy: str) -> bool:
        """Whether this verdict is on ``policy`` in a run of this configuration: same model, cache, block, dtype.

        Where both state a revision it says whether the model is the same; a run names its model by the path that the
        user gave, so otherwise the last part of the path is compared.
        """
        valid, revision = self.validity, config.get("model_revision")
        if revision is not None and valid.model_revision is not None:
            same_model = valid.model_revision == revision
        else:
            same_model = Path(valid.model).name == Path(str(config.get("model"))).name
        stated = (valid.policy, valid.cache, valid.block_length, valid.temperature, self.latency.dtype)
        names = ("cache", "block_length", "temperature", "dtype")
        return same_model and stated == (policy, *(config.get(name) for name in names))


def load_budget(path: str | Path) -> Budget:
    """Read a file of ``draftgraph budget``.

    Raises:
        FigureDataError: no such file, another format, no rows, budgets that do not ascend from 0, a number that is not
            above 0, or a chosen budget without a row.
    """
    return load_record(Budget, path)
