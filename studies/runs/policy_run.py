"""One policy's part of a run: its recordings, what was found in them, and how the findings compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from calibrate.traces.table import Traces
from drafting.anchors import AnchorTable
from drafting.counts import DecodeCounts
from drafting.replay import ReplayResult, replay
from drafting.searches.result import SearchResult
from drafting.state_replay import StateReplay
from drafting.trie import PrefixTrie
from figures.records.run import Comparison, Histogram, ReadingRow, ResultRow
from studies.runs.configuration import INFORMED
from studies.runs.run_directory import slug
from studies.statistics.intervals import PromptBootstrap
from verify.decoding import DecodeConfig
from verify.drafters.contract import Drafter
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import InformedDrafter
from verify.graph.formulas import Formula
from verify.policies.contract import Policy

#: What counts as equal rows: drafted blocks of the graph over those of informed drafts, at least and at most. Wider to
#: the graph's side, as only the budgets of the run are there to choose from.
AS_MANY_ROWS = (0.98, 1.25)


@dataclass(frozen=True)
class Candidate:
    """A graph, or informed drafts, to be verified and reported: what found it, for which budget, and what was found."""

    method: str
    reading: str | None
    budget: int
    found: SearchResult

    def stem(self, policy: Policy) -> str:
        """The name of its files."""
        return f"{slug(policy.spec)}-{slug(self.method)}-D{self.budget}"

    def drafter(self) -> Drafter:
        """What a decode with it is given."""
        return InformedDrafter(self.budget) if self.method == INFORMED else GraphDrafter(self.found.nodes)


@dataclass(eq=False)
class PolicyRun:
    """One policy's part of a run: its recordings and what became of them.

    Attributes:
        informed: what informed drafts cost, by budget and split.
    """

    policy: Policy
    decode: DecodeConfig
    search: AnchorTable
    test: AnchorTable
    trie: PrefixTrie
    search_traces: Traces
    plain: list[list[int]]
    informed: dict[tuple[int, str], StateReplay] = field(default_factory=dict)
    rows: list[ResultRow] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    readings: list[ReadingRow] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)
    _replays: dict[tuple[str, frozenset[Formula]], ReplayResult] = field(default_factory=dict)

    def replay(self, nodes: Sequence[Formula], split: str) -> ReplayResult:
        """The replay of a graph on "search" or "test"; each graph is walked once per split, whoever asks."""
        key = (split, frozenset(nodes))
        if key not in self._replays:
            self._replays[key] = replay(nodes, self.search if split == "search" else self.test)
        return self._replays[key]

    def counts(self, candidate: Candidate, split: str) -> DecodeCounts:
        """What a candidate costs on "search" or "test"."""
        if candidate.method == INFORMED:
            return self.informed[candidate.budget, split]
        return self.replay(candidate.found.nodes, split)


def compare_on_test(run: PolicyRun, candidates: Sequence[Candidate], seed: int) -> list[Comparison]:
    """Paired differences on the test prompts: every method against every earlier one of the same budget, and informed
    drafts against graphs of as many rows.

    Empty when the split holds fewer than two prompts, from which no interval follows.
    """
    if len(run.test.prompt_indices()) < 2:
        return []
    drafting = [candidate for candidate in candidates if candidate.budget > 0]
    pairs = [(first, second, None) for second, first in combinations(drafting, 2) if first.budget == second.budget]
    return [
        _compare(run, first, second, seed, other_budget)
        for first, second, other_budget in [*pairs, *_of_equal_rows(run, drafting)]
    ]


def _of_equal_rows(run: PolicyRun, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Candidate, int]]:
    """Informed drafts beside the smallest graph of every method whose forwards carry about as many rows in the mean."""
    methods = dict.fromkeys(candidate.method for candidate in candidates if candidate.method != INFORMED)
    for first in (candidate for candidate in candidates if candidate.method == INFORMED):
        rows = run.counts(first, "test").drafted_blocks
        for method in methods:
            enough = [
                other for other in candidates
                if other.method == method
                and AS_MANY_ROWS[0] * rows <= run.counts(other, "test").drafted_blocks <= AS_MANY_ROWS[1] * rows
            ]  # fmt: skip
            if enough:
                second = min(enough, key=lambda other: other.budget)
                yield first, second, second.budget


def _compare(run: PolicyRun, first: Candidate, second: Candidate, seed: int, second_budget: int | None) -> Comparison:
    counted, baseline = run.counts(first, "test"), run.counts(second, "test")
    found = PromptBootstrap(baseline.prompts, seed=seed).compare(counted, baseline)
    difference = found.nfe_reduction_difference
    other = second.method if second_budget is None else f"{second.method} with D = {second_budget}, of as many rows,"
    return Comparison(
        policy=run.policy.spec,
        budget=first.budget,
        first=first.method,
        second=second.method,
        split="test",
        prompts=difference.prompts,
        difference=difference.estimate,
        low=difference.low,
        high=difference.high,
        distinguishable=found.distinguishable,
        sentence=found.sentence(first.method, other),
        second_budget=second_budget,
    )
