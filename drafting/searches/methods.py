"""The search methods by name, so that studies treat them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from drafting.searches.chain import confidence_chain
from drafting.searches.closure import PriceSweep, price_sweep
from drafting.searches.exact import exact
from drafting.searches.greedy import greedy
from drafting.searches.readings import READINGS, Reading, best_readings
from drafting.searches.result import SearchResult, check_budget
from drafting.searches.trees import sequoia_tree, tree_greedy
from drafting.trie import PrefixTrie
from drafting.values import path_value


class MethodError(ValueError):
    """A method name that is not known."""


@dataclass(frozen=True)
class SearchInput:
    """What every method searches.

    Attributes:
        trie: chain prefixes of the search split, whole chains.
        block_length: positions per block.
        step_size: pairs per denoising step, None where it varies.
        time_limit: seconds that the exact method may spend on each budget after greedy and the price sweep.
    """

    trie: PrefixTrie
    block_length: int
    step_size: int | None
    time_limit: float = 30.0
    _sweeps: list[PriceSweep] = field(default_factory=list, repr=False)

    def sweep(self, budget: int) -> PriceSweep:
        """A price sweep to ``budget`` or further, made once: it bounds what every other method finds."""
        if not self._sweeps or not self._sweeps[0].covers(budget):
            self._sweeps[:] = [price_sweep(self.trie, budget)]
        return self._sweeps[0]


Search = Callable[[SearchInput, int], SearchResult]
Method = Callable[[SearchInput, Sequence[int]], dict[int, SearchResult]]


def _nested(search: Search) -> Method:
    """A method whose graph of a smaller budget is the beginning of that of a larger one: one search for all."""

    def run(problem: SearchInput, budgets: Sequence[int]) -> dict[int, SearchResult]:
        start = time.perf_counter()
        found = search(problem, max(budgets))
        found = replace(found, seconds=time.perf_counter() - start)
        return {budget: found.first(budget) for budget in budgets}

    return run


def _per_budget(search: Search) -> Method:
    """A method that searches once per budget."""

    def run(problem: SearchInput, budgets: Sequence[int]) -> dict[int, SearchResult]:
        return {budget: _nested(search)(problem, [budget])[budget] for budget in budgets}

    return run


def _cut(problem: SearchInput, budgets: Sequence[int]) -> dict[int, SearchResult]:
    sweep = problem.sweep(max(budgets))
    return {budget: sweep.result(budget) for budget in budgets}


def _reading(reading: Reading) -> Method:
    return _nested(lambda problem, budget: reading.search(reading.candidates(problem.trie), budget, problem.step_size))


METHODS: dict[str, Method] = {
    "chain": _nested(lambda problem, budget: confidence_chain(budget, problem.block_length, problem.step_size)),
    "tree_greedy": _nested(lambda problem, budget: tree_greedy(problem.trie, budget)),
    "sequoia": _per_budget(lambda problem, budget: sequoia_tree(problem.trie, budget)),
    "published": lambda problem, budgets: best_readings(problem.trie, budgets, problem.step_size),
    **{f"published:{reading.rule}": _reading(reading) for reading in READINGS},
    "greedy": _nested(lambda problem, budget: greedy(problem.trie, budget)),
    "cut": _cut,
    "exact": _per_budget(lambda problem, budget: exact(problem.trie, budget, time_limit=problem.time_limit)),
}


def find_method(name: str) -> Method:
    """The method of a name: one of :data:`METHODS`, or ``published:READING:MINIMUM_COUNT``.

    Raises:
        MethodError: no such method; the message lists those there are.
    """
    if name in METHODS:
        return METHODS[name]
    rule, _, count = name.removeprefix("published:").rpartition(":")
    for reading in READINGS:
        if name.startswith("published:") and rule == reading.rule and count.isascii() and count.isdecimal():
            if int(count) < 1:
                raise MethodError(f"the minimum count of {name!r} must be at least 1, got {count}")
            return _reading(replace(reading, minimum_count=int(count)))
    raise MethodError(
        f"unknown method {name!r}, expected one of {', '.join(METHODS)}; a reading of the published rule may name a "
        "minimum count, for example published:degree0:20"
    )


def find_graphs(
    name: str, problem: SearchInput, budgets: Sequence[int], *, certify: bool = False
) -> dict[int, SearchResult]:
    """The graphs that ``name`` finds for every budget, with their path_value on the searched chains.

    Args:
        name: see :func:`find_method`.
        problem: what is searched.
        budgets: draft nodes.
        certify: bound every graph by the price sweep, which is made once per ``problem``.

    Raises:
        MethodError: no such method.
        ValueError: a negative budget.
    """
    method = find_method(name)
    for budget in budgets:
        check_budget(budget)
    if not budgets:
        return {}
    sweep = problem.sweep(max(budgets)) if certify else None
    found = {}
    for budget, graph in method(problem, budgets).items():
        value = path_value(graph.nodes, problem.trie) if graph.value is None else graph.value
        bounds = [graph.bound] if graph.bound is not None else []
        if sweep is not None:
            bounds.append(sweep.bound(budget))
        found[budget] = replace(graph, method=name, value=value, bound=min(bounds, default=None))
    return found
