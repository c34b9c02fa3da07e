"""The search methods by name, so that studies treat them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drafting.trie import PrefixTrie
from studies.chain import confidence_chain
from studies.construction import Construction
from studies.greedy import greedy
from studies.published import published
from verify.formulas import Formula

#: Readings of the published rule: accumulation and which parents count (see ``studies.published``).
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
        trie: chain prefixes of the search split.
        budget: the largest budget wanted; smaller ones are prefixes of the order.
        block_length: positions per block.
        step_size: pairs per denoising step, None where it varies.
    """

    trie: PrefixTrie
    budget: int
    block_length: int
    step_size: int | None


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
    "greedy": lambda given: greedy(given.trie, given.budget),
    **{f"published:{reading}": _published(reading) for reading in PUBLISHED_READINGS},
}


def check_method(name: str) -> None:
    """Raise :class:`MethodError` unless ``name`` is a method; the message lists those there are."""
    if name not in METHODS:
        raise MethodError(f"unknown method {name!r}, expected one of {', '.join(METHODS)}")


def build_method(name: str, given: SearchInput) -> Construction:
    """Run the method ``name``; raises :class:`MethodError` when there is no such method."""
    check_method(name)
    return METHODS[name](given)


@dataclass(frozen=True)
class FoundGraph:
    """What a method found for one budget.

    Attributes:
        nodes: draft formulas; fewer than the budget when there are no more candidates.
        bound: an upper bound on the path value of any graph of this budget (search split), where one was proved.
        gap: (bound - value) / bound, None without a bound.
        seconds: what the search took; for a nested method, of the one search that gave all its budgets.
    """

    nodes: tuple[Formula, ...]
    seconds: float
    bound: float | None = None
    gap: float | None = None


def find_graphs(name: str, given: SearchInput, budgets: Sequence[int]) -> dict[int, FoundGraph]:
    """The graphs that ``name`` finds for every budget; a method that is not nested searches once per budget."""
    start = time.perf_counter()
    construction = build_method(name, given)
    seconds = time.perf_counter() - start
    return {budget: FoundGraph(construction.order[:budget], seconds) for budget in budgets}
