"""The search methods by name, so that studies treat them alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drafting.trie import PrefixTrie
from studies.chain import confidence_chain
from studies.construction import Construction
from studies.greedy import greedy
from studies.published import published

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
