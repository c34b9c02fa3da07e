"""Draft formulas: sets of (position rank, vocabulary rank) pairs.

A formula never holds tokens. Its pairs are 1-based ranks under the newest distribution whose commits are already
made (see docs/glossary.md, "anchor"); tokens are filled in at run time. The canonical form is a tuple of pairs sorted
by position rank, so that equality, hashing and JSON agree on what "the same formula" means.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

Pair = tuple[int, int]
Formula = tuple[Pair, ...]

ROOT: Formula = ()


class FormulaError(ValueError):
    """A set of pairs that names no state of a block."""


def formula(pairs: Iterable[Iterable[int]]) -> Formula:
    """Return the canonical form of ``pairs``.

    Args:
        pairs: ``(position rank, vocabulary rank)`` pairs, both 1-based, in any order.

    Raises:
        FormulaError: a rank is not an integer of at least 1, or a position rank comes twice (a position holds one
            token, so two pairs with one position rank name no state).
    """
    canonical = []
    for pair in pairs:
        i, j = pair
        for rank in (i, j):
            if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
                raise FormulaError(f"a rank must be an integer of at least 1, got {rank!r} in pair ({i!r}, {j!r})")
        canonical.append((i, j))
    canonical.sort()
    for (i, j), (next_i, next_j) in pairwise(canonical):
        if i == next_i:
            raise FormulaError(
                f"position rank {i} comes twice, with vocabulary ranks {j} and {next_j}; a position holds one token"
            )
    return tuple(canonical)


def is_subset(smaller: Formula, larger: Formula) -> bool:
    """Whether every pair of ``smaller`` stands in ``larger``. Linear in the size of ``larger``."""
    return set(smaller) <= set(larger)


def format_formula(value: Formula) -> str:
    """A short text for messages and figures: ``{}`` for the root, ``{1:1, 2:1}`` otherwise."""
    return "{" + ", ".join(f"{i}:{j}" for i, j in value) + "}"
