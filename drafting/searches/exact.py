"""The exact graph for one budget: a reduction that is proved, then a mixed-integer program (HiGHS through scipy).

    maximise sum of count(t) * y_t   over x binary, y in [0, 1],
    y_t <= x_state(t),  y_t <= y_parent(t),  sum of x <= D.

Its linear relaxation is the envelope of the price sweep, so the sweep gives the bound W* at the root. With a graph of
weight B in hand (the better one of the sweep's and greedy's), only graphs of weight B + 1 or more are of interest, and
the slack W* - (B + 1) decides what can be left out. For the price p of the segment that D lies on: a state that can
reach less than p by more than the slack is in no better graph, and one that pays more than p at once by more than the
slack is in every better graph.

What is left is often empty, which proves that the graph in hand is optimal; otherwise it is small and goes to HiGHS.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from drafting.searches.closure import closure_network, envelope
from drafting.searches.greedy import greedy_states
from drafting.searches.instance import Instance, Problem, greedy_order, instance_order, provable_budget
from drafting.searches.result import SearchResult, check_budget
from drafting.trie import PrefixTrie
from verify.graph.formulas import Formula

# HiGHS compares with absolute tolerances of about 1e-6. Weights that sum to at most this are handed over as they are;
# larger ones are scaled down to it. One anchor then is worth more than the tolerances as long as all weights together
# are below 2^37 anchors, and weights that are not whole numbers are resolved to 1e-12 of their sum.
_LARGEST_SUM = 2.0**20


def exact(
    trie: PrefixTrie,
    budget: int,
    *,
    time_limit: float = 30.0,
    relative_gap: float = 0.0,
    start: Iterable[Formula] = (),
) -> SearchResult:
    """Find the graph of ``budget`` draft nodes with the largest path_value, or the best in time and its gap.

    Args:
        trie: prefixes with counts or weights. When it was pruned, optimal means: among graphs of the states left.
        budget: draft nodes. The claim is about the graph of all nodes found; beginnings of their order are connected
            graphs, not optimal ones.
        time_limit: seconds for the program. Greedy and the sweep that come before run to their end in any case, so
            there is always a graph and a bound.
        relative_gap: stop when the gap is at most this.
        start: a graph to do better than, of at most ``budget`` nodes.

    Returns:
        a :class:`SearchResult` with value and bound; ``chosen`` says what proved the result or stopped the search.
        Values are exact sums. The bound is exact too, unless the program itself closed or bounded the last gap: then
        it is as good as the tolerances of HiGHS, 1e-12 of the sum of all weights.

    Raises:
        ValueError: a negative budget or time limit, or more start nodes than the budget.
        drafting.values.DepthError: chains were cut at a depth that a graph of this budget can exceed.
    """
    begin = time.perf_counter()
    check_budget(budget)
    if time_limit < 0 or relative_gap < 0:
        raise ValueError(f"time_limit and relative_gap must not be negative, got {time_limit} and {relative_gap}")
    provable_budget(trie, budget)
    problem = Problem.from_trie(trie, budget)
    first = problem.states(start)
    if len(first) > budget:
        raise ValueError(f"{len(first)} nodes to start from are more than the budget of {budget}")
    search = _Search(problem.whole, budget)
    how = search.run(greedy_states(trie, budget)[0], first, time_limit, relative_gap)
    order = instance_order(problem.whole.restrict(search.best))
    return SearchResult(
        method="exact",
        budget=budget,
        nodes=problem.formulas(order),
        gains=problem.gains(order),
        value=float(problem.path_value(search.weight)),
        bound=float(problem.path_value(search.bound)),
        seconds=time.perf_counter() - begin,
        chosen=how,
    )


class _Search:
    """The best graph so far, a bound, and the reduced instance. Weights are whole numbers."""

    def __init__(self, whole: Instance, budget: int) -> None:
        self.whole, self.budget = whole, budget
        self.best = np.zeros(whole.n_states, dtype=bool)
        self.weight = 0
        self.bound = int(whole.weight.sum())
        # The reduced problem: `base` counts already, `room` states may still be chosen from `rest`.
        self.rest, self.base, self.room = whole, 0, budget
        self.taken: list[int] = []
        self.cost, self.scale, self.dual = 0, 1, 0

    def run(self, greedy: Iterable[int], start: Iterable[int], time_limit: float, relative_gap: float) -> str:
        """Search; a phrase on what proved the result or stopped the search."""
        if self.budget == 0 or self.whole.n_states <= self.budget:
            self.offer(self.whole.origin if self.budget else [])
            self.bound = self.weight
            return "nothing to choose" if self.budget else "the budget is zero"
        inside, sizes, weights = envelope(self.whole, self.budget)
        self.lower(sizes, weights)
        for states in (inside[: self.budget], greedy, start):
            self.offer(states)
        if self.done(relative_gap):
            return "the price sweep" if self.budget in sizes else "the price sweep bounds it to the last count"
        self.reduce()
        if self.done(relative_gap):
            return "reductions by price"
        size = f"over {self.rest.n_states} undecided states"
        if not time_limit:
            return f"the time limit of 0 s was reached before the program {size}"
        return f"{self.solve(time_limit, relative_gap)} {size}"

    def offer(self, states: Iterable[int]) -> None:
        """Keep a graph (trie ids) when it is better. States that accept nothing make room for others, by greedy."""
        chosen = self.whole.mask(states)
        used = np.zeros_like(chosen)
        used[self.whole.state[self.whole.alive(chosen)]] = True
        room = self.budget - int(used.sum())
        if room:
            used |= self.whole.mask(greedy_order(self.whole.contract(used)[1], room))
        weight = self.whole.value(used)
        if weight > self.weight:
            self.best, self.weight = used, weight

    def lower(self, sizes: list[int], weights: list[int]) -> None:
        """Read price and bound off the envelope at the budget."""
        k = int(np.searchsorted(sizes, self.budget))
        if sizes[k] == self.budget:
            self.bound = weights[k]
            return
        self.cost, self.scale = weights[k] - weights[k - 1], sizes[k] - sizes[k - 1]
        # scale * (largest weight of `room` states of `rest`) is at most this
        self.dual = weights[k - 1] * self.scale + self.cost * (self.budget - sizes[k - 1])
        self.bound = min(self.bound, self.dual // self.scale)

    def done(self, relative_gap: float) -> bool:
        """Whether the gap is small enough."""
        return self.bound - self.weight <= relative_gap * self.bound

    def reduce(self) -> None:
        """Leave out states that are in no better graph and take those that are in every one, until none is decided."""
        while not self._finished():
            out = self.cost - self.rest.reach * self.scale > self.slack
            if out.any():
                self.rest = self.rest.restrict(~out)
                continue
            chosen = self.rest.direct * self.scale - self.cost > self.slack
            if not chosen.any():
                return
            if int(chosen.sum()) > self.room:  # more than fit would have to be in: there is no better graph
                break
            self.taken.extend(self.rest.origin[chosen].tolist())
            self.room -= int(chosen.sum())
            gained, self.rest = self.rest.contract(chosen)
            self.base += gained
        self.bound = self.weight

    @property
    def slack(self) -> int:
        """``scale`` times what a better graph may lose against the bound; negative when there is none."""
        return self.dual - (self.weight + 1) * self.scale

    def _finished(self) -> bool:
        """No better graph is left: the slack is used up, or all that is left fits and is no better."""
        if self.slack < 0:
            return True
        if self.rest.n_states <= self.room or self.room == 0:
            self.offer([*self.taken, *(self.rest.origin.tolist() if self.room else [])])
            return True
        return False

    def solve(self, seconds: float, relative_gap: float) -> str:
        """Hand the rest to HiGHS; the graph, the bound and a phrase on what happened."""
        rest = self.rest
        size, vertex, tail, head, capacity = closure_network(rest, 0, 1)
        n, m = size - 2, rest.n_states
        unit = min(1.0, _LARGEST_SUM / max(float(rest.weight.sum()), 1.0))
        gain = np.zeros(n)
        np.add.at(gain, vertex, rest.weight.astype(np.float64) * unit)
        forces = capacity < 0
        count = int(forces.sum())
        row = np.arange(count)
        order_rows = sparse.csr_array(
            (np.repeat([1.0, -1.0], count), (np.tile(row, 2), np.concatenate([tail[forces], head[forces]]))),
            shape=(count, n),
        )
        is_state = np.arange(n) < m
        constraints = [
            LinearConstraint(order_rows, ub=0.0),
            LinearConstraint(is_state.astype(np.float64), ub=float(self.room)),
        ]
        target = self.weight + 1 - self.base
        constraints.append(LinearConstraint(gain, lb=(target - 0.5) * unit))
        answer = milp(
            -gain,
            integrality=is_state.astype(np.int64),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"time_limit": seconds, "mip_rel_gap": relative_gap},
        )
        if answer.x is not None:
            self.offer([*self.taken, *rest.origin[answer.x[:m] > 0.5].tolist()])
        if answer.status == 2 or (answer.status == 0 and relative_gap == 0):
            self.bound = self.weight
            return "mixed-integer program"
        if answer.mip_dual_bound is not None and np.isfinite(answer.mip_dual_bound):
            largest = -answer.mip_dual_bound
            proved = self.base + int(np.floor((largest + 1e-6 * abs(largest)) / unit))
            self.bound = max(self.weight, min(self.bound, proved))
        if answer.status == 0:
            return f"the program stopped at the relative gap {relative_gap:g} that was asked for"
        return f"the program was stopped ({answer.message.rstrip('.')})"
