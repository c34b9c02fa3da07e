"""The search methods by name, so that studies treat them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from drafting.anchors import AnchorTable
from drafting.searches.bundles import bundled_greedy
from drafting.searches.chain import confidence_chain
from drafting.searches.closure import PriceSweep, price_sweep
from drafting.searches.construction import Construction
from drafting.searches.exact import ExactResult, exact
from drafting.searches.greedy import greedy
from drafting.searches.published import published
from drafting.searches.swap import swap_repair
from drafting.searches.trees import sequoia_tree, tree_greedy
from drafting.trie import PrefixTrie
from drafting.values import path_value
from verify.graph.formulas import Formula

#: Readings of the published rule: accumulation and which parents count (see ``drafting.searches.published``).
PUBLISHED_READINGS = (
    "degree0",
    "degree1/all",
    "degree1/chosen",
    "total/all",
    "total/chosen",
)


class MethodError(ValueError):
    """A method name that is not known."""


@dataclass(frozen=True)
class SearchInput:
    """What every method is given.

    Attributes:
        trie: chain prefixes of the search split, whole chains.
        budget: the largest budget wanted; smaller ones are prefixes of the order.
        block_length: positions per block.
        step_size: pairs per denoising step, None where it varies.
        time_limit: seconds that the exact method may spend on each budget after its heuristics.
    """

    trie: PrefixTrie
    budget: int
    block_length: int
    step_size: int | None
    time_limit: float = 30.0
    _sweeps: dict[int, PriceSweep] = field(default_factory=dict, repr=False)

    def sweep(self) -> PriceSweep:
        """The price sweep to the largest budget, made once: it bounds what every other method finds."""
        if self.budget not in self._sweeps:
            self._sweeps[self.budget] = price_sweep(self.trie, self.budget, step_size=self.step_size)
        return self._sweeps[self.budget]


Method = Callable[[SearchInput], Construction]


def _published(reading: str) -> Method:
    accumulation, _, parents = reading.partition("/")

    def build(given: SearchInput) -> Construction:
        return published(
            given.trie,
            given.budget,
            step_size=given.step_size,
            accumulation=accumulation,  # type: ignore[arg-type]
            parents=parents or "all",  # type: ignore[arg-type]
        )

    return build


METHODS: dict[str, Method] = {
    "chain": lambda given: confidence_chain(given.budget, given.block_length, given.step_size),
    "tree_greedy": lambda given: tree_greedy(given.trie, given.budget, step_size=given.step_size),
    "sequoia": lambda given: sequoia_tree(given.trie, given.budget, step_size=given.step_size),
    **{f"published:{reading}": _published(reading) for reading in PUBLISHED_READINGS},
    "greedy": lambda given: greedy(given.trie, given.budget),
    "bundled_greedy": lambda given: bundled_greedy(given.trie, given.budget, step_size=given.step_size),
    "swap": lambda given: swap_repair(given.trie, given.budget, step_size=given.step_size),
    "cut": lambda given: given.sweep(),
    "exact": lambda given: exact(given.trie, given.budget, step_size=given.step_size, time_limit=given.time_limit),
}

#: Methods whose graphs of different budgets are not prefixes of one order: they search once per budget.
PER_BUDGET = frozenset({"sequoia", "bundled_greedy", "swap", "exact"})


def check_method(name: str) -> None:
    """Raise :class:`MethodError` unless ``name`` is a method; the message lists those there are."""
    if name not in METHODS:
        hint = "; 'published', its best reading, is for `calibrate` only" if name == "published" else ""
        raise MethodError(f"unknown method {name!r}, expected one of {', '.join(METHODS)}{hint}")


def build_method(name: str, given: SearchInput) -> Construction:
    """Run the method ``name``; raises :class:`MethodError` when there is no such method."""
    check_method(name)
    return METHODS[name](given)


@dataclass(frozen=True)
class FoundGraph:
    """What a method found for one budget.

    Attributes:
        nodes: draft formulas; fewer than the budget when there are no more candidates.
        seconds: what the search took; for a nested method, of the one search that gave all its budgets.
        bound: an upper bound on the path value of any graph of this budget (search split), where one was proved.
        gap: (bound - value) / bound, None without a bound.
    """

    nodes: tuple[Formula, ...]
    seconds: float
    bound: float | None = None
    gap: float | None = None


def find_graphs(name: str, given: SearchInput, budgets: Sequence[int]) -> dict[int, FoundGraph]:
    """The graphs that ``name`` finds for every budget; a method that is not nested searches once per budget.

    Raises:
        MethodError: no such method.
    """
    check_method(name)
    if name in PER_BUDGET:
        return {budget: _search_one(name, given, budget) for budget in budgets}
    start = time.perf_counter()
    construction = build_method(name, given)
    seconds = time.perf_counter() - start
    found = {budget: FoundGraph(construction.order[:budget], seconds) for budget in budgets}
    if isinstance(construction, PriceSweep):
        return {budget: _with_bound(graph, construction, budget) for budget, graph in found.items()}
    return found


def _search_one(name: str, given: SearchInput, budget: int) -> FoundGraph:
    start = time.perf_counter()
    construction = build_method(
        name, SearchInput(given.trie, budget, given.block_length, given.step_size, given.time_limit)
    )
    seconds = time.perf_counter() - start
    if isinstance(construction, ExactResult):
        return FoundGraph(construction.order, seconds, construction.bound, construction.gap)
    return FoundGraph(construction.order[:budget], seconds)


def _with_bound(graph: FoundGraph, sweep: PriceSweep, budget: int) -> FoundGraph:
    bound = sweep.bound(budget)
    return FoundGraph(graph.nodes, sweep.seconds, bound, relative_gap(sum(sweep.gains[:budget]), bound))


def relative_gap(value: float, bound: float) -> float:
    """(bound - value) / bound, 0 when they differ by rounding only: both are sums of the same counts."""
    gap = (bound - value) / bound if bound > 0 else 0.0
    return gap if gap > 1e-12 else 0.0


def certify(found: FoundGraph, bound: float, search: AnchorTable) -> FoundGraph:
    """The graph with the tighter of its own bound and ``bound``, and the share of it that the graph can be missing.

    Args:
        found: a graph from the traces of ``search``.
        bound: no graph of its budget has a larger path value there, for example by the price sweep.
        search: the table that the graph was found on.
    """
    tight = bound if found.bound is None else min(found.bound, bound)
    return replace(found, bound=tight, gap=relative_gap(path_value(found.nodes, search), tight))
