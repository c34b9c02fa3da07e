"""The trie of chain prefixes with counts: what path_value, the searches and their bounds need of the traces.

Two anchors whose chains begin with the same states share these trie nodes. A trie node is a *path* (S1, ...,
Sd); its state is Sd. Several trie nodes may have one state (the state is reached in several orders), which
is what makes the search for a draft graph harder than the search for a draft tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from drafting.anchors import AnchorTable
from drafting.codes import distinct_codes, formula_codes
from drafting.ragged import ptr_of
from verify.graph.formulas import ROOT, Formula

_INT32_MAX = np.iinfo(np.int32).max

Combine = Callable[[np.ndarray, np.ndarray], np.ndarray]


def levels_of(level_ptr: np.ndarray) -> list[slice]:
    """The ranges ``level_ptr[d]:level_ptr[d + 1]``, shallow first."""
    return [slice(int(low), int(high)) for low, high in pairwise(level_ptr)]


def carry_down(values: np.ndarray, parent: np.ndarray, levels: Sequence[slice], combine: Combine) -> np.ndarray:
    """Combine the value of every prefix with that of the prefix before it, level by level, in place.

    Args:
        values: [..., n], one value per prefix (or several, along the leading dimensions).
        parent: [n], the prefix before; all prefixes of the first level are without one.
        levels: the ranges of all levels, see :func:`levels_of`.
        combine: (own values, carried values of the prefixes before) -> carried values.

    Returns:
        ``values``. O(n).
    """
    for level in levels[1:]:
        values[..., level] = combine(values[..., level], values[..., parent[level]])
    return values


def sum_up(values: np.ndarray, parent: np.ndarray, levels: Sequence[slice]) -> np.ndarray:
    """Add to the value of every prefix those of all prefixes behind it, in place; arguments as :func:`carry_down`."""
    for above, level in zip(reversed(levels[:-1]), reversed(levels[1:]), strict=True):
        sums = np.bincount(parent[level] - above.start, weights=values[level], minlength=above.stop - above.start)
        values[above] += sums.astype(values.dtype)
    return values


@dataclass(frozen=True, eq=False)
class PrefixTrie:
    """Distinct chain prefixes with counts, and the distinct states they end in.

    With ``T`` trie nodes (node 0 is the empty prefix), ``Q`` states (state 0 is the root formula), ``A``
    anchors. Trie nodes are ordered by depth, then by parent, then by state: a parent comes before its
    children, the nodes of a depth are one range, the children of a node are one range.

    Attributes:
        anchors: the chains it was built from; formulas are read from there.
        parent: int32 [T], -1 for node 0.
        state: int32 [T].
        count: int64 [T] (float64 when weighted), anchors whose chain begins with this prefix; ``count[0]`` is
            all of them.
        level_ptr: int64 [depth + 2], trie nodes of depth d are ``level_ptr[d]:level_ptr[d + 1]``.
        leaf: int32 [A], deepest trie node of each anchor's chain (0: none).
        state_code: uint64 [Q], ascending.
        state_row: int64 [Q], a chain state in ``anchors`` that is this state (-1 for the root).
        depth_limit: chains were read to this depth only; None for all that ``anchors`` holds.

    Limits: at most 2^31 - 2 chain states in the table. benchmarks/trie_scaling.py measures time and memory.
    """

    anchors: AnchorTable
    parent: np.ndarray
    state: np.ndarray
    count: np.ndarray
    level_ptr: np.ndarray
    leaf: np.ndarray
    state_code: np.ndarray
    state_row: np.ndarray
    depth_limit: int | None = None

    @classmethod
    def from_anchors(
        cls, anchors: AnchorTable, weights: np.ndarray | None = None, max_depth: int | None = None
    ) -> PrefixTrie:
        """Build the trie level by level; each level is one sort of the anchors that reach it.

        Args:
            anchors: ``A`` anchors with ``N`` chain states.
            weights: [A] non-negative anchor weights; None counts every anchor once.
            max_depth: use this many states of each chain at most; None uses all that the table holds.

        Complexity: O(N log N) time, O(N) memory.

        Raises:
            ValueError: weights of another length or negative, ``max_depth`` below 1, too many chain states.
        """
        if max_depth is not None and max_depth < 1:
            raise ValueError(f"max_depth must be at least 1 or None, got {max_depth}")
        if len(anchors.code) > _INT32_MAX - 1:
            raise ValueError(f"a trie holds at most {_INT32_MAX - 1} chain states, got {len(anchors.code)}")
        weights = _checked_weights(weights, anchors.n_anchors)
        lengths = anchors.lengths()
        if max_depth is not None:
            lengths = np.minimum(lengths, max_depth)

        state_code, state_of, state_row = _distinct_states(anchors, lengths)
        n_states = len(state_code)
        leaf = np.zeros(anchors.n_anchors, dtype=np.int32)
        parents, states = [np.array([-1], dtype=np.int32)], [np.zeros(1, dtype=np.int32)]
        counts = [_tally(leaf, weights, 1)]
        level_ptr = [0, 1]
        active = np.arange(anchors.n_anchors)
        for depth in range(1, int(lengths.max(initial=0)) + 1):
            active = active[lengths[active] >= depth]
            step = state_of[anchors.chain_ptr[active] + (depth - 1)]
            key, member = np.unique(leaf[active].astype(np.int64) * n_states + step, return_inverse=True)
            parents.append((key // n_states).astype(np.int32))
            states.append((key % n_states).astype(np.int32))
            counts.append(_tally(member, None if weights is None else weights[active], len(key)))
            leaf[active] = level_ptr[-1] + member
            level_ptr.append(level_ptr[-1] + len(key))
        return cls(
            anchors=anchors,
            parent=np.concatenate(parents),
            state=np.concatenate(states),
            count=np.concatenate(counts),
            level_ptr=np.array(level_ptr, dtype=np.int64),
            leaf=leaf,
            state_code=state_code,
            state_row=state_row,
            depth_limit=max_depth,
        )

    @classmethod
    def from_chains(cls, chains: Iterable[Sequence[Formula]], weights: Sequence[float] | None = None) -> PrefixTrie:
        """A trie from literal chains, one per anchor; ``weights`` counts each chain as often as it says."""
        anchors = AnchorTable.from_chains(chains)
        return cls.from_anchors(anchors, None if weights is None else np.asarray(weights, dtype=np.float64))

    @property
    def n_nodes(self) -> int:
        return len(self.parent)

    @property
    def n_states(self) -> int:
        """Distinct states, the root included."""
        return len(self.state_code)

    @property
    def max_depth(self) -> int:
        return len(self.level_ptr) - 2

    @property
    def total(self) -> float:
        """Weight of all anchors: the denominator of every mean."""
        return float(self.count[0])

    @cached_property
    def levels(self) -> list[slice]:
        """The trie nodes of each depth, the root's level first."""
        return levels_of(self.level_ptr)

    def carry_down(self, values: np.ndarray, combine: Combine) -> np.ndarray:
        """:func:`carry_down` over this trie, from the root. ``values`` [..., T]. O(T)."""
        return carry_down(values, self.parent, self.levels, combine)

    @cached_property
    def depth(self) -> np.ndarray:
        """int32 [T]."""
        return np.repeat(np.arange(self.max_depth + 1, dtype=np.int32), np.diff(self.level_ptr))

    @cached_property
    def child_ptr(self) -> np.ndarray:
        """int64 [T + 1]; the children of trie node t are the trie nodes ``child_ptr[t]:child_ptr[t + 1]``."""
        return 1 + np.searchsorted(self.parent[1:], np.arange(self.n_nodes + 1), side="left")

    @cached_property
    def nodes_by_state(self) -> tuple[np.ndarray, np.ndarray]:
        """(ptr int64 [Q + 1], trie nodes int64 [T]): state q stands at ``nodes[ptr[q]:ptr[q + 1]]``."""
        order = np.argsort(self.state, kind="stable")
        return np.searchsorted(self.state[order], np.arange(self.n_states + 1)), order

    @cached_property
    def state_count(self) -> np.ndarray:
        """[Q], weight of the anchors whose chain contains the state (a chain grows, so it contains it
        once)."""
        sums = np.bincount(self.state, weights=self.count, minlength=self.n_states)
        return sums.astype(self.count.dtype)

    @cached_property
    def state_size(self) -> np.ndarray:
        """int64 [Q], pairs in each state's formula."""
        size = np.zeros(self.n_states, dtype=np.int64)
        drafted = self.state_row >= 0
        starts, ends = self.anchors.pair_ranges(self.state_row[drafted])
        size[drafted] = ends - starts
        return size

    def formulas(self, states: np.ndarray | Sequence[int]) -> list[Formula]:
        """Formulas of states (ids), in the same order."""
        rows = self.state_row[np.asarray(states, dtype=np.int64)]
        drafted = iter(self.anchors.formulas(rows[rows >= 0]))
        return [next(drafted) if row >= 0 else ROOT for row in rows]

    def state_ids(self, formulas: Iterable[Formula]) -> np.ndarray:
        """int64, the state id of each formula, -1 when no chain contains it. O(log Q) each."""
        codes = formula_codes(formulas)
        at = np.minimum(np.searchsorted(self.state_code, codes), self.n_states - 1)
        return np.where(self.state_code[at] == codes, at, -1)

    def canonical_first(self, states: np.ndarray) -> int:
        """The state with the fewest pairs; among these the lexicographically least formula. Breaks ties of
        scores."""
        states = np.asarray(states)
        if len(states) == 1:
            return int(states[0])
        size = self.state_size[states]
        states = states[size == size.min()]
        starts, _ = self.anchors.pair_ranges(self.state_row[states])
        pairs = starts[:, None] + np.arange(size.min())
        keys = (self.anchors.pair_i[pairs].astype(np.int32) << 16) + self.anchors.pair_j[pairs]
        keys.sort(axis=1)
        return int(states[np.lexsort(keys.T[::-1])[0]])

    def count_from_leaves(self, leaf_count: np.ndarray) -> np.ndarray:
        """Prefix counts [T] from the weight of chains that end at each trie node [T]. O(T)."""
        return sum_up(np.array(leaf_count), self.parent, self.levels)

    def prune(self, min_count: float) -> PrefixTrie:
        """Drop states that fewer than ``min_count`` anchors can reach, and all prefixes through them.

        Repeated until nothing falls below: a prefix behind a dropped state no longer counts for its own
        state. Values stay exact for graphs made of the states that are left, because a prefix with a dropped
        state is never inside such a graph. Anchors stay (``total`` is unchanged); ``leaf`` becomes the
        deepest prefix that is left.
        """
        kept = np.ones(self.n_nodes, dtype=bool)
        while True:
            reach = np.bincount(self.state[kept], weights=self.count[kept], minlength=self.n_states)
            low = reach < min_count
            low[0] = False
            drop = kept & low[self.state]
            if not drop.any():
                break
            kept &= ~drop
            self.carry_down(kept, np.logical_and)
        new_node = np.cumsum(kept) - 1
        # Nodes are numbered by depth, so of a path the deepest that is left has the largest number.
        nearest = self.carry_down(np.where(kept, new_node, -1), np.maximum)
        has_node = np.zeros(self.n_states, dtype=bool)
        has_node[self.state[kept]] = True
        new_state = np.cumsum(has_node) - 1
        parent = np.where(self.parent[kept] < 0, -1, new_node[self.parent[kept]])
        width = np.array([int(kept[level].sum()) for level in self.levels])
        return PrefixTrie(
            anchors=self.anchors,
            parent=parent.astype(np.int32),
            state=new_state[self.state[kept]].astype(np.int32),
            count=self.count[kept],
            level_ptr=ptr_of(width[width > 0]),
            leaf=nearest[self.leaf].astype(np.int32),
            state_code=self.state_code[has_node],
            state_row=self.state_row[has_node],
            depth_limit=self.depth_limit,
        )


def _checked_weights(weights: np.ndarray | None, n_anchors: int) -> np.ndarray | None:
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (n_anchors,):
        raise ValueError(f"weights must have shape ({n_anchors},), one per anchor, got {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("weights must be finite and not negative")
    return weights


def _tally(index: np.ndarray, weights: np.ndarray | None, size: int) -> np.ndarray:
    return np.bincount(index, weights=weights, minlength=size)


def _distinct_states(anchors: AnchorTable, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct state codes (the root's first), the id of each chain state, and one chain state per id.

    Chain states beyond ``lengths`` get id 0 and are never read.
    """
    n_rows = len(anchors.code)
    used = np.ones(n_rows, dtype=bool)
    if not np.array_equal(lengths, anchors.lengths()):
        offset = np.arange(n_rows) - np.repeat(anchors.chain_ptr[:-1], anchors.lengths())
        used = offset < np.repeat(lengths, anchors.lengths())
    rows = np.flatnonzero(used)
    # The root's code, 0, is put in front so that the root gets id 0 (0 is the least unsigned number).
    codes = np.concatenate([np.zeros(1, dtype=np.uint64), anchors.code[rows]])
    state_code, inverse = distinct_codes(codes)
    state_of = np.zeros(n_rows, dtype=np.int32)
    state_of[rows] = inverse[1:]
    state_row = np.full(len(state_code), -1, dtype=np.int64)
    state_row[state_of[rows]] = rows
    state_row[0] = -1
    return state_code, state_of, state_row
