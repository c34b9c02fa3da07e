"""The search problem of the exact methods: weighted prefixes, the states they need, and reductions that lose nothing.

A trie says F(V) = (1 / total) * sum over prefixes of count(prefix) * [all its states are in V]. The instance keeps what
this sum needs, in whole numbers, so that sums and comparisons are exact; searches shrink it again and again:

* :meth:`Instance.restrict` drops states, with every prefix that needs one. Exact for graphs without them.
* :meth:`Instance.contract` takes states as chosen. Prefixes that then need the same states are one prefix (chosen
  states stand in the way of no sharing any more), so a contracted instance is a small trie again.

Along a prefix the required states grow by inclusion, so a set of required states determines its order: two prefixes of
a trie, or of an instance, never need the same set unless they are the same path. That is why merging nodes with equal
(parent, state) after a contraction is all the merging there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from drafting.ragged import join, ptr_of
from drafting.trie import Combine, PrefixTrie, carry_down, levels_of, sum_up
from drafting.values import DepthError
from verify.graph.formulas import ROOT, Formula

_SUM_BITS = 51  # np.bincount sums in float64, which holds whole numbers to 2^53
_PRODUCT_BITS = 61  # prices are compared as weight * |V| in int64
_LARGE = 128  # an instance with more states than this is ordered by depth and weight only


@dataclass(frozen=True, eq=False)
class Instance:
    """Prefixes over states that are not chosen yet. ``n`` prefixes, ``m`` states.

    Attributes:
        parent: int64 [n], the prefix before, -1 when nothing unchosen stands before.
        state: int64 [n], last state of the prefix, 0 <= state < m. Every state has a prefix.
        weight: int64 [n], not negative, in whole units.
        level_ptr: int64 [depth + 1], prefixes that need d + 1 states are ``level_ptr[d]:level_ptr[d + 1]``.
        origin: int64 [m], id of each state in the trie, ascending.
    """

    parent: np.ndarray
    state: np.ndarray
    weight: np.ndarray
    level_ptr: np.ndarray
    origin: np.ndarray

    @property
    def n_prefixes(self) -> int:
        return len(self.parent)

    @property
    def n_states(self) -> int:
        return len(self.origin)

    @property
    def depth(self) -> int:
        return len(self.level_ptr) - 1

    @cached_property
    def levels(self) -> list[slice]:
        """The prefixes of each depth, shallow first."""
        return levels_of(self.level_ptr)

    def carry_down(self, values: np.ndarray, combine: Combine) -> np.ndarray:
        """:func:`drafting.trie.carry_down` over the prefixes, in place. ``values`` [n]. O(n)."""
        return carry_down(values, self.parent, self.levels, combine)

    @cached_property
    def behind(self) -> np.ndarray:
        """int64 [n], weight of each prefix and of all prefixes behind it. O(n)."""
        return sum_up(self.weight.copy(), self.parent, self.levels)

    @cached_property
    def reach(self) -> np.ndarray:
        """int64 [m]: no choice of the other states makes a state worth more than this. O(n)."""
        return _sums(self.state, self.behind, self.n_states)

    @cached_property
    def direct(self) -> np.ndarray:
        """int64 [m]: what a state is worth at once, with nothing else chosen. O(n)."""
        first = slice(0, int(self.level_ptr[1]) if self.depth else 0)
        return _sums(self.state[first], self.weight[first], self.n_states)

    def alive(self, chosen: np.ndarray) -> np.ndarray:
        """bool [n]: prefixes whose states are all chosen. ``chosen`` bool [m]. O(n)."""
        return self.carry_down(chosen[self.state], np.logical_and)

    def value(self, chosen: np.ndarray) -> int:
        """Weight of the prefixes whose states are all chosen. ``chosen`` bool [m]. Exact. O(n)."""
        return int(self.weight[self.alive(chosen)].sum())

    def restrict(self, kept: np.ndarray) -> Instance:
        """Drop states that are not ``kept`` (bool [m]), every prefix through one, and states left without prefix."""
        alive = self.alive(kept)
        number = np.cumsum(alive) - 1
        parent, state = self.parent[alive], self.state[alive]
        widths = np.diff(ptr_of(alive)[self.level_ptr])
        used = np.zeros(self.n_states, dtype=bool)
        used[state] = True
        return Instance(
            parent=np.where(parent < 0, -1, number[parent]),
            state=(np.cumsum(used) - 1)[state],
            weight=self.weight[alive],
            level_ptr=ptr_of(widths[widths > 0]),
            origin=self.origin[used],
        )

    def contract(self, chosen: np.ndarray) -> tuple[int, Instance]:
        """Take the states ``chosen`` (bool [m]) for granted: (weight that counts already, what is left to choose).

        A state without a prefix left is dropped: nothing it could bring is open any more. O(n log n).
        """
        n = self.n_prefixes
        if not n:
            return 0, self
        home = np.empty(n + 1, dtype=np.int64)  # the prefix that each merges into, -1 for the chosen root; [-1] is -1
        home[n] = -1
        need = np.zeros(n + 1, dtype=np.int64)  # unchosen states on the path
        taken = chosen[self.state]
        for level in self.levels:
            above = self.parent[level]
            index = np.arange(level.start, level.stop)
            home[level] = np.where(taken[level], home[above], index)
            need[level] = need[above] + ~taken[level]
        counts = home[:n] < 0
        stays = np.flatnonzero(~taken)
        merged = _sums(home[:n][~counts], self.weight[~counts], n)
        # A fresh trie over what stays, level by level: children of merged prefixes may coincide.
        number = np.full(n + 1, -1, dtype=np.int64)
        parents, states, weights, widths, made = [], [], [], [], 0
        by_need = stays[np.argsort(need[stays], kind="stable")]
        bounds = np.searchsorted(need[by_need], np.arange(1, int(need[stays].max(initial=0)) + 2))
        for low, high in pairwise(bounds):
            nodes = by_need[low:high]
            above = number[home[self.parent[nodes]]]
            key, member = np.unique((above + 1) * self.n_states + self.state[nodes], return_inverse=True)
            parents.append(key // self.n_states - 1)
            states.append(key % self.n_states)
            weights.append(_sums(member, merged[nodes], len(key)))
            number[nodes] = made + member
            widths.append(len(key))
            made += len(key)
        state = join(states, np.int64)
        used = np.zeros(self.n_states, dtype=bool)
        used[state] = True
        rest = Instance(
            parent=join(parents, np.int64),
            state=(np.cumsum(used) - 1)[state],
            weight=join(weights, np.int64),
            level_ptr=ptr_of(widths),
            origin=self.origin[used],
        )
        return int(self.weight[counts].sum()), rest

    def mask(self, origins: Iterable[int] | np.ndarray) -> np.ndarray:
        """bool [m]: which states have these trie ids."""
        return np.isin(self.origin, np.asarray(list(origins), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Problem:
    """An instance with the way back to formulas and to path_value.

    Attributes:
        trie: where it came from.
        whole: all prefixes.
        total: weight of all anchors in the same units.
    """

    trie: PrefixTrie
    whole: Instance
    total: float

    @classmethod
    def from_trie(cls, trie: PrefixTrie, budget: int | None = None) -> Problem:
        """Read a trie for graphs of up to ``budget`` states (None: any number).

        A graph of D states accepts at most D states in a row, so prefixes deeper than that are left out; so are
        prefixes without weight behind them. Counts are kept as they are. Weights that are not whole numbers are rounded
        to multiples of about 2^-40 of their sum, and every claim of exactness is about these rounded weights.

        O(T). Says nothing about chains that were cut: a search that proves something asks :func:`provable_budget`.

        Raises:
            ValueError: weights whose sum needs more than 51 bits.
        """
        depth = trie.max_depth if budget is None else min(trie.max_depth, budget)
        end = int(trie.level_ptr[depth + 1])
        weight, bits = _whole(trie.count[1:end], trie.n_states)
        raw = Instance(
            parent=trie.parent[1:end].astype(np.int64) - 1,
            state=trie.state[1:end].astype(np.int64),
            weight=weight,
            level_ptr=trie.level_ptr[1 : depth + 2] - 1,
            origin=np.arange(trie.n_states),
        )
        return cls(trie, raw.restrict(raw.reach > 0), float(np.ldexp(trie.total, bits)))

    def path_value(self, weight: int | np.ndarray) -> float | np.ndarray:
        """A sum of weights as accepted drafts. 0 without any anchor."""
        return weight / self.total if self.total > 0 else weight * 0.0

    def gains(self, order: Sequence[int]) -> tuple[float, ...]:
        """What each state (trie id) adds to path_value when they are taken in this order."""
        return tuple(np.atleast_1d(self.path_value(node_gains(self.whole, order))).tolist())

    def formulas(self, origins: Iterable[int]) -> tuple[Formula, ...]:
        """Formulas of trie state ids, in the same order."""
        return tuple(self.trie.formulas(np.fromiter(origins, dtype=np.int64)))

    def states(self, nodes: Iterable[Formula]) -> np.ndarray:
        """Trie state ids of formulas, int64; formulas that no chain contains are left out, and so is the root."""
        ids = self.trie.state_ids(set(nodes) - {ROOT})
        return np.unique(ids[ids > 0])


def provable_budget(trie: PrefixTrie, budget: int | None) -> int | None:
    """Up to which budget an optimum of this trie is an optimum of the traces; None: any.

    A graph of D states accepts at most D in a row. Where chains were cut at depth d, larger graphs could accept more
    than the trie counts, so no bound on them would hold.

    Raises:
        drafting.values.DepthError: ``budget`` (None: any number) is past that.
    """
    limit, remedy = None, ""
    if trie.anchors.truncated.any():
        limit, remedy = trie.anchors.max_depth, "AnchorTable.from_traces(traces, max_depth=None)"
    if trie.depth_limit is not None and int(trie.anchors.lengths().max(initial=0)) > trie.depth_limit:
        limit, remedy = trie.depth_limit, "PrefixTrie.from_anchors(anchors)"
    if limit is not None and (budget is None or budget > limit):
        size = "any number of" if budget is None else str(budget)
        raise DepthError(
            f"chains were cut at depth {limit}, but a graph of {size} states can accept more in a row, so no optimum "
            f"could be proved; keep whole chains, {remedy}, or ask for a budget of at most {limit}"
        )
    return limit


def node_gains(instance: Instance, order: Sequence[int] | np.ndarray) -> np.ndarray:
    """Weight that each state of ``order`` (trie ids) adds when they are taken one after the other: int64. O(n)."""
    order = np.asarray(order, dtype=np.int64)
    turn = np.full(instance.n_states, len(order), dtype=np.int64)
    by_id = np.argsort(order)
    at = np.minimum(np.searchsorted(order[by_id], instance.origin), max(len(order) - 1, 0))
    if len(order):
        hit = order[by_id][at] == instance.origin
        turn[hit] = by_id[at[hit]]
    when = instance.carry_down(turn[instance.state], np.maximum)
    return np.bincount(when, weights=instance.weight, minlength=len(order) + 1)[: len(order)].astype(np.int64)


def greedy_order(instance: Instance, number: int) -> list[int]:
    """Up to ``number`` states (trie ids), the one that brings most at once next; ties: the smaller id. O(n) each.

    The weight of a prefix is at least that of a prefix behind it, so as long as anything is left to gain, some state
    brings something at once: fewer states than ``number`` come back only when the rest is worth nothing.
    """
    order: list[int] = []
    rest = instance
    while len(order) < number and rest.n_states:
        best = int(rest.direct.argmax())
        if not rest.direct[best]:
            break
        order.append(int(rest.origin[best]))
        rest = rest.contract(np.arange(rest.n_states) == best)[1]
    return order


def instance_order(instance: Instance) -> list[int]:
    """All states of an instance (trie ids) in an order whose every prefix is connected to what was chosen before.

    Greedy for small instances. Large ones go by the depth at which a state is first reached, then by weight: a state
    before another on some path is reached earlier.
    """
    if instance.n_states <= _LARGE:
        order = greedy_order(instance, instance.n_states)
        if len(order) == instance.n_states:
            return order
    shallowest = np.full(instance.n_states, instance.depth, dtype=np.int64)
    depth = np.repeat(np.arange(instance.depth), np.diff(instance.level_ptr))
    np.minimum.at(shallowest, instance.state, depth)
    return instance.origin[np.lexsort((np.arange(instance.n_states), -instance.reach, shallowest))].tolist()


def _whole(count: np.ndarray, n_states: int) -> tuple[np.ndarray, int]:
    """Weights as whole numbers, and the power of two they were multiplied by."""
    room = min(_SUM_BITS, _PRODUCT_BITS - int(n_states).bit_length())
    size = float(count.sum())
    if np.issubdtype(count.dtype, np.integer) or bool((count == np.rint(count)).all()):
        if size >= 2.0**room:
            raise ValueError(f"counts sum to {size:.3g}, exact sums hold up to 2^{room}; scale the weights down")
        return count.astype(np.int64), 0
    bits = room - 1 - int(np.ceil(np.log2(size)))
    return np.rint(np.ldexp(count, bits)).astype(np.int64), bits


def _sums(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(index, weights=values, minlength=size).astype(np.int64)
