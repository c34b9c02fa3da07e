"""Which observed state can come one denoising step before which: the parent relation of the published rule.

Two relations, both over the states of a trie (and the root, state 0):

* ``subset``: p is a parent of q when p is a proper subset of q and the step size allows it. This is the
  definition of arXiv 2509.18085: unmasked(A) within unmasked(B), |unmasked(A)| + S = |unmasked(B)|.
* ``transition``: p is a parent of q when some recorded chain went from p to q in one step. Every transition
  is a subset pair; the converse fails.

With a fixed step size the default is ``subset``. Under a threshold rule S is not known beforehand; if every
proper subset counted as a parent, a large and rare state would collect the counts of everything inside it
and win. So with ``step_size=None`` the default is ``transition``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal, get_args

import numpy as np
from scipy import sparse

from drafting.codes import pair_codes
from drafting.trie import PrefixTrie

Accumulation = Literal["degree0", "degree1", "total"]
Relation = Literal["subset", "transition"]

_MAX_ANY_SIZE = 20_000  # states for "subset" with any step size: the number of pairs grows with the square
_CELLS = 1 << 22  # cells of one block of subset tests


@dataclass(frozen=True, eq=False)
class ParentGraph:
    """The parent relation as adjacency in both directions, over state ids; state 0 is the root.

    Attributes:
        parent_ptr, parent: int64; parents of q are ``parent[parent_ptr[q]:parent_ptr[q + 1]]``, ascending.
        child_ptr, child: int64; children of p likewise.
    """

    parent_ptr: np.ndarray
    parent: np.ndarray
    child_ptr: np.ndarray
    child: np.ndarray

    def parents_of(self, state: int) -> np.ndarray:
        return self.parent[self.parent_ptr[state] : self.parent_ptr[state + 1]]

    def children_of(self, state: int) -> np.ndarray:
        return self.child[self.child_ptr[state] : self.child_ptr[state + 1]]

    def ancestors(self, state: int, inside: set[int] | None = None) -> set[int]:
        """States that can come before ``state`` in one step or more, the root left out.

        ``inside`` restricts the walk: only these states are counted, and only these are walked through.
        """
        return _reached(self.parents_of, state, inside)

    def descendants(self, state: int, inside: set[int] | None = None) -> set[int]:
        """States that can come after ``state`` in one step or more, restricted as :meth:`ancestors`."""
        return _reached(self.children_of, state, inside)


def _reached(neighbours: Callable[[int], np.ndarray], state: int, inside: set[int] | None) -> set[int]:
    found: set[int] = set()
    open_states = [state]
    while open_states:
        for other in neighbours(open_states.pop()).tolist():
            if other and other not in found and (inside is None or other in inside):
                found.add(other)
                open_states.append(other)
    return found


def parent_graph(trie: PrefixTrie, step_size: int | None, relation: str | None = None) -> ParentGraph:
    """Both directions of :func:`parent_edges`."""
    child, parent = parent_edges(trie, step_size, relation)
    states = np.arange(trie.n_states + 1)
    backwards = np.lexsort((child, parent))
    return ParentGraph(
        parent_ptr=np.searchsorted(child, states),
        parent=parent,
        child_ptr=np.searchsorted(parent[backwards], states),
        child=child[backwards],
    )


def parent_edges(trie: PrefixTrie, step_size: int | None, relation: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (child, parent) of state ids, sorted by child, then parent. The root is a parent too.

    Args:
        trie: its states are the candidates; prune it first when rare states should not count.
        step_size: pairs added per denoising step (``static:k``), or None for any number.
        relation: "subset", "transition", or None for the default of this module.

    Complexity: "transition" O(T log T). "subset" with step size k and states of s pairs: O(C(s, k) log Q) per
    state, and never more than comparing all states of the two sizes.

    Raises:
        ValueError: an unknown relation, a step size below 1, or "subset" with any step size over more than
            20,000 states.
    """
    if relation is None:
        relation = "transition" if step_size is None else "subset"
    if relation not in get_args(Relation):
        raise ValueError(f"relation must be one of {', '.join(get_args(Relation))}, got {relation!r}")
    if step_size is not None and step_size < 1:
        raise ValueError(f"step_size must be at least 1 or None, got {step_size}")
    if relation == "transition":
        return _sorted_edges(trie.state[1:].astype(np.int64), trie.state[trie.parent[1:]].astype(np.int64))
    if step_size is not None:
        parts = list(_fixed_size(trie, step_size))
    elif trie.n_states > _MAX_ANY_SIZE:
        raise ValueError(
            f"'subset' with any step size compares all pairs of states: at most {_MAX_ANY_SIZE} states, got "
            f"{trie.n_states}; prune the trie, or use relation='transition'"
        )
    else:
        parts = list(_any_size(trie))
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return _sorted_edges(np.concatenate([child for child, _ in parts]), np.concatenate([p for _, p in parts]))


def ancestor_weight(
    graph: ParentGraph,
    trie: PrefixTrie,
    state: int,
    accumulation: Accumulation,
    inside: set[int] | None = None,
) -> float:
    """Weight of one state: its count, plus the counts of its parents ("degree1") or ancestors ("total").

    ``inside`` counts only parents (ancestors, walked through such states only) in this set.
    The root counts 0.
    """
    if accumulation not in get_args(Accumulation):
        raise ValueError(f"accumulation must be one of {', '.join(get_args(Accumulation))}, got {accumulation!r}")
    before: set[int] = set()
    if accumulation == "degree1":
        before = {p for p in graph.parents_of(state).tolist() if p and (inside is None or p in inside)}
    elif accumulation == "total":
        before = graph.ancestors(state, inside)
    return float(trie.state_count[[state, *before]].sum())


def _sorted_edges(child: np.ndarray, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    key = np.unique((child << 32) | parent)
    return key >> 32, key & 0xFFFF_FFFF


def _states_of_size(trie: PrefixTrie) -> dict[int, np.ndarray]:
    sizes = trie.state_size
    return {int(size): np.flatnonzero(sizes == size) for size in np.unique(sizes)}


def _fixed_size(trie: PrefixTrie, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Remove every set of ``step`` pairs from every state and look the rest up by code."""
    by_size = _states_of_size(trie)
    for size, states in by_size.items():
        smaller = by_size.get(size - step)
        if size == 0 or smaller is None:
            continue
        if comb(size, step) > 8 * len(smaller):
            yield from _subset_pairs(trie, states, smaller)
            continue
        codes = _pair_matrix(trie, states, size)[2]
        for columns in combinations(range(size), step):
            rest = trie.state_code[states] - codes[:, list(columns)].sum(axis=1, dtype=np.uint64)
            at = np.minimum(np.searchsorted(trie.state_code, rest), trie.n_states - 1)
            hit = trie.state_code[at] == rest
            yield states[hit], at[hit]


def _any_size(trie: PrefixTrie) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    by_size = _states_of_size(trie)
    for size, states in by_size.items():
        for small_size, smaller in by_size.items():
            if small_size < size:
                yield from _subset_pairs(trie, states, smaller)


def _subset_pairs(trie: PrefixTrie, large: np.ndarray, small: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (q, p), q of ``large`` (all of one size), p of ``small`` (one smaller size), with p within q."""
    small_size = int(trie.state_size[small[0]])
    if small_size == 0:
        yield large, np.zeros(len(large), dtype=np.int64)
        return
    i_large, j_large, _ = _pair_matrix(trie, large, int(trie.state_size[large[0]]))
    i_small, j_small, _ = _pair_matrix(trie, small, small_size)
    key_large, key_small = (i_large << 16) | j_large, (i_small << 16) | j_small
    names, column = np.unique(np.concatenate([key_large.ravel(), key_small.ravel()]), return_inverse=True)
    has_large = _incidence(column[: key_large.size].reshape(key_large.shape), len(names))
    has_small = _incidence(column[key_large.size :].reshape(key_small.shape), len(names)).T.tocsr()
    rows = max(1, _CELLS // len(small))
    for low in range(0, len(large), rows):
        common = (has_large[low : low + rows] @ has_small).tocoo()
        hit = common.data == small_size
        yield large[low + common.row[hit]], small[common.col[hit]]


def _pair_matrix(trie: PrefixTrie, states: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of states that all have ``size`` pairs: i, j int64 and codes uint64, each [len(states), size]."""
    starts, _ = trie.anchors.pair_ranges(trie.state_row[states])
    at = starts[:, None] + np.arange(size)
    i, j = trie.anchors.pair_i[at].astype(np.int64), trie.anchors.pair_j[at].astype(np.int64)
    return i, j, pair_codes(i, j)


def _incidence(columns: np.ndarray, width: int) -> sparse.csr_array:
    n, size = columns.shape
    ptr = np.arange(n + 1) * size
    return sparse.csr_array((np.ones(n * size, dtype=np.int32), columns.ravel(), ptr), shape=(n, width))
