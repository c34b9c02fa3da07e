"""The price sweep: provably optimal graphs by minimum cuts, nested, and the bound for every budget between them.

For a price per draft node, F(V) - price * |V| is a maximum closure problem (Picard, "Maximal closure of a graph",
Management Science 1976): choosing a prefix forces its state and the prefix before it. One minimum cut solves it. A
graph V that is optimal for some price is optimal among all graphs of |V| nodes: a better one would have the better
difference too. As the price falls these graphs grow, each around the one before, because F is supermodular.

All of them are found without guessing prices (Eisner and Severance, JACM 1976; Fujishige's principal partition). Let W
be the weight of all prefixes of an instance and m its number of states, so that at the price W / m taking all and
taking nothing tie. If nothing does better than this tie, the instance is one segment of the envelope. Otherwise the
best choice V splits it in two, V itself and the instance contracted by V, and each half is treated alike. Halves
share no prefix, so the work per depth of the recursion stays linear.

Before each cut the instance shrinks: a state whose every prefix with all that stands behind it does not reach the price
is in no optimum, and a state that pays the price at once is in every one. Often nothing is left for the cut.

Where several graphs tie for one price, the residual network of the cut gives a longest nested series of them (Picard
and Queyranne, Math. Programming Study 1980), so budgets inside a segment are certified too where they can be.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from drafting.ragged import ptr_of
from drafting.searches.instance import Instance, Problem, instance_order, node_gains, provable_budget
from drafting.searches.minimum_cut import Cut, minimum_cut
from drafting.searches.result import SearchResult, check_budget
from drafting.trie import PrefixTrie
from verify.graph.formulas import Formula

_REFINED = 1024  # budgets up to which uncertified graphs are worth a better order


@dataclass(frozen=True)
class PriceSweep:
    """Nested graphs, optimal at the certified budgets, and a bound for every budget. Greedy fills in between.

    Attributes:
        order: draft formulas in the order chosen. The first ``budgets[k]`` of them have the largest path_value of all
            graphs of that size.
        gains: what each of them adds to path_value.
        budgets: certified budgets, ascending, 0 first.
        values: path_value at each of ``budgets``. Their polyline is concave, and it is the linear-programming bound.
        candidates: states that occur; a graph of that many nodes holds everything.
        seconds: wall time of the search.
        limit: nothing is claimed for larger budgets, because chains were cut at this depth; None: no such limit.
    """

    order: tuple[Formula, ...]
    gains: tuple[float, ...]
    budgets: tuple[int, ...]
    values: tuple[float, ...]
    candidates: int
    seconds: float
    limit: int | None

    @property
    def prices(self) -> tuple[float, ...]:
        """Price of a node in accepted drafts at which ``budgets[k]`` and ``budgets[k + 1]`` tie, falling."""
        return tuple(np.diff(self.values) / np.diff(self.budgets))

    def bound(self, budget: int) -> float:
        """No graph of ``budget`` draft nodes has a larger path_value; equality at the certified budgets.

        Raises:
            ValueError: a negative budget, or one past the end of a sweep that did not take in all candidates, or
                past :attr:`limit`.
        """
        check_budget(budget)
        if not self.covers(budget):
            raise ValueError(f"the sweep stopped at budget {self.budgets[-1]}, got {budget}; sweep with a larger one")
        if self.limit is not None and budget > self.limit:
            raise ValueError(f"chains were cut at depth {self.limit}: no bound for budget {budget}; keep whole chains")
        return float(np.interp(budget, self.budgets, self.values))

    def covers(self, budget: int) -> bool:
        """Whether the sweep went as far as ``budget``."""
        return budget <= self.budgets[-1] or len(self.order) == self.candidates

    def certified(self, budget: int) -> bool:
        """Whether the graph of ``budget`` nodes is proved optimal."""
        if self.limit is not None and budget > self.limit:
            return False
        return budget in self.budgets or budget > self.candidates == len(self.order)

    def result(self, budget: int) -> SearchResult:
        """The graph of ``budget`` nodes with its bound; raises as :meth:`bound`."""
        return SearchResult(
            method="cut",
            budget=budget,
            nodes=self.order[:budget],
            gains=self.gains[:budget],
            value=self.values[self.budgets.index(budget)] if budget in self.budgets else sum(self.gains[:budget]),
            bound=self.bound(budget),
            seconds=self.seconds,
            chosen="a breakpoint of the price" if budget in self.budgets else "",
        )


@dataclass(frozen=True, eq=False)
class Closure:
    """All maximisers of weight(V) - price * |V|: trie state ids.

    ``smallest`` is inside every maximiser, every maximiser is inside ``largest``, and adding the ``groups`` to
    ``smallest`` one after the other gives a maximiser each time and ``largest`` in the end.
    """

    smallest: np.ndarray
    largest: np.ndarray
    groups: list[np.ndarray]


def price_sweep(trie: PrefixTrie, budget: int | None = None) -> PriceSweep:
    """Find every breakpoint of the price up to the first certified budget that is at least ``budget``.

    Args:
        trie: prefixes with counts or weights. When it was pruned, optimal means: among graphs of the states left.
        budget: how far to sweep; None takes in all states, which costs more as counts get small.

    Complexity: a minimum cut per vertex of the envelope, each on the states between its two neighbours.

    Raises:
        ValueError: a negative budget.
        drafting.values.DepthError: chains were cut at a depth that such a graph can exceed.
    """
    start = time.perf_counter()
    if budget is not None:
        check_budget(budget)
    limit = provable_budget(trie, budget)
    # Not Problem.from_trie(trie, budget): the sweep may end at a larger graph, which may reach deeper.
    problem = Problem.from_trie(trie)
    order, sizes, weights = envelope(problem.whole, budget)
    return PriceSweep(
        order=problem.formulas(order),
        gains=problem.gains(order),
        budgets=tuple(sizes),
        values=tuple(np.atleast_1d(problem.path_value(np.array(weights))).tolist()),
        candidates=problem.whole.n_states,
        seconds=time.perf_counter() - start,
        limit=limit,
    )


def envelope(whole: Instance, budget: int | None) -> tuple[list[int], list[int], list[int]]:
    """The sweep on whole numbers: (states in order as trie ids, certified budgets, their weights)."""
    inside = whole if budget is None else _down_to(whole, budget)
    order: list[int] = []
    sizes = [0]
    for states, ends in _segments(inside):
        sizes.extend(len(order) + end for end in ends)
        order.extend(states)
    sums = ptr_of(node_gains(inside, order))
    return order, sizes, sums[sizes].tolist()


def _down_to(whole: Instance, budget: int) -> Instance:
    """The instance inside the largest maximiser of a price low enough that this has ``budget`` states."""
    price = int(whole.direct.max(initial=0))
    while budget and whole.n_states > budget and price >= 1:
        best = maximum_closure(whole, price, 1)
        if len(best.largest) >= budget:
            return whole.restrict(whole.mask(best.largest))
        price //= 2
    return whole if budget else whole.restrict(np.zeros(whole.n_states, dtype=bool))


def _segments(inside: Instance) -> Iterator[tuple[list[int], list[int]]]:
    """Segments of the envelope, steepest first: states in order, and how many of them are certified."""
    stack: list[tuple[Instance, bool]] = [(inside, False)]
    done = 0
    while stack:
        part, tied = stack.pop()
        if part.n_states == 1:
            yield part.origin.tolist(), [1]
            done += 1
        elif part.n_states > 1:
            total = int(part.weight.sum())
            best = maximum_closure(part, total, part.n_states)
            if tied or not len(best.smallest):
                yield _unroll(part, best.groups, refine=done < _REFINED)
                done += part.n_states
                continue
            large = part.mask(best.largest)
            small = part.mask(best.smallest)
            stack.append((part.contract(large)[1], False))
            if len(best.groups):
                within = part.restrict(large)
                stack.append((within.contract(within.mask(best.smallest))[1], True))
            stack.append((part.restrict(small), False))


def _unroll(part: Instance, groups: Sequence[np.ndarray], refine: bool) -> tuple[list[int], list[int]]:
    """States of the tied groups one after the other, each group in an order that keeps every graph connected.

    ``refine`` orders inside a group by greedy; without it by depth alone, in one pass for all groups.
    """
    sizes = np.array([len(group) for group in groups])
    ends = np.cumsum(sizes).tolist()
    if len(groups) == part.n_states:
        return np.concatenate(groups).tolist(), ends
    if not refine:
        return _by_depth(part, groups, sizes), ends
    order: list[int] = []
    rest, taken = part, 0
    for group in groups:
        if len(group) == 1:
            order.extend(group.tolist())
            continue
        rest = rest.contract(rest.mask(order[taken:]))[1]
        taken = len(order)
        order.extend(instance_order(rest.restrict(rest.mask(group))))
    return order, ends


def _by_depth(part: Instance, groups: Sequence[np.ndarray], sizes: np.ndarray) -> list[int]:
    """States by group, inside a group by how many states of it the shortest prefix to a state needs.

    Only prefixes count that need no later group. What stands before a state on such a prefix comes earlier.
    """
    flat = np.concatenate(groups)
    group = np.repeat(np.arange(len(groups)), sizes)[np.argsort(flat)]  # of each state: origins ascend
    own = group[part.state]
    latest = part.carry_down(own.copy(), np.maximum)
    count = np.ones(part.n_prefixes, dtype=np.int64)
    for level in part.levels[1:]:
        above = part.parent[level]
        count[level] += np.where(latest[above] == own[level], count[above], 0)
    usable = latest == own
    shortest = np.full(part.n_states, part.depth + 1)
    np.minimum.at(shortest, part.state[usable], count[usable])
    return part.origin[np.lexsort((np.arange(part.n_states), -part.reach, shortest, group))].tolist()


def maximum_closure(instance: Instance, cost: int, scale: int) -> Closure:
    """All maximisers of ``scale`` * weight(V) - ``cost`` * |V|: the price is the rational ``cost`` / ``scale`` > 0.

    Exact for any weights and prices below 2^61 together. One minimum cut on what the reductions leave.
    """
    chosen: list[np.ndarray] = []
    rest = instance
    while rest.n_states:
        reach = rest.reach * scale >= cost
        if not reach.all():
            rest = rest.restrict(reach)
            continue
        pays = rest.direct * scale > cost
        if not pays.any():
            break
        chosen.append(rest.origin[pays])
        rest = rest.contract(pays)[1]
    smallest = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    if not rest.n_states:
        return Closure(smallest, smallest, [])
    size, _, tail, head, capacity = closure_network(rest, cost, scale)
    cut = minimum_cut(size, tail, head, capacity, source=size - 2, sink=size - 1)
    small, large = cut.smallest[: rest.n_states], cut.largest[: rest.n_states]
    groups = _nested_groups(rest, cut) if (small != large).any() else []
    return Closure(np.union1d(smallest, rest.origin[small]), np.union1d(smallest, rest.origin[large]), groups)


def closure_network(
    rest: Instance, cost: int, scale: int
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The network whose minimum cut is the maximum closure.

    Vertices are the states, then the prefixes that need one of their own, then source and sink. A prefix that needs one
    state only, or whose state has no other prefix, shares the vertex of its state: then neither is chosen without the
    other. (A lone state is worth nothing without its prefix; so its vertex may ask for what the prefix asks for.)

    Returns:
        (number of vertices, vertex of each prefix int64 [n], tail, head and capacity of each edge; -1: unbounded).
    """
    n_states = rest.n_states
    lone = np.bincount(rest.state, minlength=n_states)[rest.state] == 1
    shares = lone | (rest.parent < 0)
    vertex = np.where(shares, rest.state, n_states + np.cumsum(~shares) - 1)
    size = n_states + int((~shares).sum()) + 2
    source, sink = size - 2, size - 1
    profit = np.zeros(size - 2, dtype=np.int64)
    np.add.at(profit, vertex, rest.weight * scale)
    profit[:n_states] -= cost
    behind = rest.parent >= 0
    earns, costs = np.flatnonzero(profit > 0), np.flatnonzero(profit < 0)
    tail = [np.full(len(earns), source), costs, vertex[behind], vertex[~shares]]
    head = [earns, np.full(len(costs), sink), vertex[rest.parent[behind]], rest.state[~shares]]
    unbounded = np.full(int(behind.sum()) + int((~shares).sum()), -1, dtype=np.int64)
    capacity = np.concatenate([profit[earns], -profit[costs], unbounded])
    return size, vertex, np.concatenate(tail), np.concatenate(head), capacity


def _nested_groups(rest: Instance, cut: Cut) -> list[np.ndarray]:
    """Strong components of the residual network between the extreme cuts, each after all that it leads to.

    Among those that may come next the one with the least state id goes first, so equal counts give equal orders.
    """
    between = np.flatnonzero(cut.largest & ~cut.smallest)
    inner = cut.residual[between][:, between]
    number, label = connected_components(inner, directed=True, connection="strong")
    row, column = label[np.repeat(np.arange(len(between)), np.diff(inner.indptr))], label[inner.indices]
    edges = np.unique(row[row != column].astype(np.int64) * number + column[row != column])
    waits = np.bincount(edges // number, minlength=number)
    by_head = edges[np.argsort(edges % number, kind="stable")]
    ptr = np.searchsorted(by_head % number, np.arange(number + 1))
    is_state = between < rest.n_states
    states: dict[int, list[int]] = {}
    for component, vertex in zip(label[is_state].tolist(), between[is_state].tolist(), strict=True):
        states.setdefault(component, []).append(vertex)
    ready = [(states.get(c, [-1])[0], c) for c in np.flatnonzero(waits == 0).tolist()]
    heapq.heapify(ready)
    groups = []
    while ready:
        _, component = heapq.heappop(ready)
        if component in states:
            groups.append(rest.origin[states[component]])
        for edge in by_head[ptr[component] : ptr[component + 1]].tolist():
            before = edge // number
            waits[before] -= 1
            if not waits[before]:
                heapq.heappush(ready, (states.get(before, [-1])[0], before))
    return groups
