"""The exact graph for one budget: reductions that are proved, then a mixed-integer program (HiGHS through scipy).

    maximise sum of count(t) * y_t   over x binary, y in [0, 1],
    y_t <= x_state(t),  y_t <= y_parent(t),  sum of x <= D.

Its linear relaxation is the envelope of the price sweep, so the sweep gives the bound W* at the root. With a graph of
weight B in hand, only graphs of weight B + 1 or more are of interest, and the slack W* - (B + 1) decides what can be
left out. For the price p of the segment that D lies on, and the maximiser V of weight(V) - p * |V|:

* a state whose forced choice costs more than the slack is in no better graph; likewise a state whose absence does.
* the cost of forcing is bounded by what the state can reach, by what it pays at once, by the residual capacities of
  the minimum cut, and, for few states left, by one more minimum cut each with the state forced (probing).

What is left is often empty, which proves that the graph in hand is optimal; otherwise it is small and goes to HiGHS.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from drafting.searches.bundles import bundle_order, instance_order, most_reaching
from drafting.searches.closure import Progress, closure_network, envelope, maximum_closure
from drafting.searches.construction import Construction, check_budget
from drafting.searches.instance import Instance, Problem, provable_budget
from drafting.searches.minimum_cut import minimum_cut
from drafting.searches.swap import swap_order
from drafting.trie import PrefixTrie
from verify.graph.formulas import Formula

Status = Literal["optimal", "gap"]

_PROBE = 400  # states left at which each is probed with two minimum cuts


@dataclass(frozen=True)
class ExactResult(Construction):
    """The best graph found for one budget, with a proof of how good it is.

    Attributes:
        budget: draft nodes asked for. The claim is about the whole ``order`` only; its beginnings are connected graphs,
            not optimal ones.
        value: path_value of the graph.
        bound: no graph of ``budget`` nodes has a larger path_value.
        status: "optimal" when value and bound are equal, "gap" when the search stopped before.
        seconds: wall time.
        candidates: states that occur within the depth of the budget.
        undecided: states that the reductions could neither take nor leave; what the program was about.
        how: a sentence on what proved the result or stopped the search.
    """

    budget: int = 0
    value: float = 0.0
    bound: float = 0.0
    status: Status = "optimal"
    seconds: float = 0.0
    candidates: int = 0
    undecided: int = 0
    how: str = ""

    @property
    def gap(self) -> float:
        """(bound - value) / bound: the share of the optimum that may be missing at most. 0 when proved optimal."""
        return max(0.0, (self.bound - self.value) / self.bound) if self.bound > 0 else 0.0

    def summary(self) -> str:
        """One line for a person."""
        head = f"{len(self.order)} nodes, accepted drafts {self.value:.4f}"
        if self.status == "optimal":
            return f"{head}, proved optimal in {self.seconds:.1f} s ({self.how})"
        return f"{head}, NOT proved optimal: bound {self.bound:.4f}, gap {self.gap:.2%} ({self.how})"


def exact(
    trie: PrefixTrie,
    budget: int,
    *,
    step_size: int | None = None,
    time_limit: float = 30.0,
    relative_gap: float = 0.0,
    start: Iterable[Formula] = (),
    progress: Progress | None = None,
) -> ExactResult:
    """Find the graph of ``budget`` draft nodes with the largest path_value, or the best in time and its gap.

    Args:
        trie: prefixes with counts or weights. When it was pruned, optimal means: among graphs of the states left.
        budget: draft nodes.
        step_size: taken for the common signature of searches; recorded chains keep it by themselves.
        time_limit: seconds for probing and the program together. The heuristics and the sweep that come before run to
            their end in any case, so there is always a graph and a bound.
        relative_gap: stop when the gap is at most this.
        start: a graph to do better than, of at most ``budget`` nodes.
        progress: called with a line of text now and then.

    Returns:
        an :class:`ExactResult`. Values are exact sums. The bound is exact too, unless the program itself closed or
        bounded the last gap: then it is as good as the tolerances of HiGHS (1e-6).

    Raises:
        ValueError: a negative budget or time limit, or more start nodes than the budget.
        drafting.values.DepthError: chains were cut at a depth that a graph of this budget can exceed.
    """
    begin = time.perf_counter()
    check_budget(budget)
    if time_limit < 0 or relative_gap < 0:
        raise ValueError(f"time_limit and relative_gap must not be negative, got {time_limit} and {relative_gap}")
    provable_budget(trie, budget)
    say = progress or (lambda line: None)
    problem = Problem.from_trie(trie, budget)
    whole = problem.whole
    given = problem.states(start)
    if len(given) > budget:
        raise ValueError(f"{len(given)} nodes to start from are more than the budget of {budget}")
    search = _Search(whole, budget)

    def result(undecided: int, how: str) -> ExactResult:
        order = search.order
        built = problem.construction("exact", order, complete=len(order) == budget)
        value, bound = (float(problem.path_value(w)) for w in (search.weight, search.bound))
        status: Status = "optimal" if search.weight >= search.bound else "gap"
        seconds = time.perf_counter() - begin
        return ExactResult(
            **vars(built),
            budget=budget,
            value=value,
            bound=bound,
            status=status,
            seconds=seconds,
            candidates=whole.n_states,
            undecided=undecided,
            how=how,
        )

    if budget == 0 or whole.n_states <= budget:
        search.offer(instance_order(whole) if budget else [])
        search.bound = search.weight
        return result(0, "nothing to choose" if budget else "the budget is zero")
    inside, sizes, weights = envelope(whole, budget, say)
    search.lower(sizes, weights)
    search.offer(inside[:budget])
    for states in (inside[:budget], given, bundle_order(most_reaching(whole, 20_000), budget)):
        if not search.done(relative_gap):
            search.offer(swap_order(whole, np.asarray(states), budget))
    say(f"exact: weight {search.weight}, bound {search.bound} before any reduction")
    if search.done(relative_gap):
        return result(0, "the price sweep" if budget in sizes else "the price sweep bounds it to the last count")
    deadline = time.perf_counter() + time_limit
    rest = search.reduce(deadline, say)
    if search.done(relative_gap):
        return result(0, "reductions by price")
    say(f"exact: {rest.n_states} of {whole.n_states} states and {rest.n_prefixes} prefixes left for the program")
    left = deadline - time.perf_counter()
    how = (
        f"the time limit of {time_limit:g} s was reached before the program"
        if left <= 0
        else search.solve(left, relative_gap)
    )
    return result(rest.n_states, how)


class _Search:
    """The best graph so far, a bound, and the reduced instance. Weights are whole numbers."""

    def __init__(self, whole: Instance, budget: int) -> None:
        self.whole, self.budget = whole, budget
        self.order: list[int] = []
        self.weight = 0
        self.bound = int(whole.weight.sum())
        # The reduced problem: `base` counts already, `room` states may still be chosen from `rest`.
        self.rest, self.base, self.room = whole, 0, budget
        self.taken: list[int] = []
        self.cost, self.scale, self.dual = 0, 1, 0

    def offer(self, order: list[int]) -> None:
        """Keep a graph when it is better."""
        weight = self.whole.value(self.whole.mask(order))
        if weight > self.weight or not self.order:
            self.order, self.weight = list(order), weight

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
        return self.bound - self.weight <= relative_gap * self.bound

    def reduce(self, deadline: float, say: Progress) -> Instance:
        """Leave out and take states until neither rule nor probe decides another one."""
        while True:
            before = self.rest.n_states
            self._by_reach()
            if self._finished() or time.perf_counter() > deadline:
                break
            self._by_residual()
            if self._finished() or time.perf_counter() > deadline:
                break
            if self.rest.n_states == before and not (before <= _PROBE and self._by_probe(deadline)):
                break
            say(f"exact: {self.rest.n_states} states undecided, {self.room} nodes open")
        if self._finished():
            self.bound = self.weight
        return self.rest

    @property
    def slack(self) -> int:
        """``scale`` times what a better graph may lose against the bound; negative when there is none."""
        return self.dual - (self.weight + 1) * self.scale

    def _finished(self) -> bool:
        """No better graph is left: the slack is used up, or all that is left fits and is no better."""
        if self.slack < 0:
            return True
        if self.rest.n_states <= self.room or self.room == 0:
            last = self.rest.origin.tolist() if self.room else []
            self.offer(swap_order(self.whole, np.array(self.taken + last, dtype=np.int64), self.budget))
            return True
        return False

    def _leave(self, out: np.ndarray) -> bool:
        if out.any():
            self.rest = self.rest.restrict(~out)
        return bool(out.any())

    def _take(self, chosen: np.ndarray) -> bool:
        if chosen.any():
            if int(chosen.sum()) > self.room:  # more than fit would have to be in: there is no better graph
                self.dual = (self.weight + 1) * self.scale - 1
                return False
            self.taken.extend(self.rest.origin[chosen].tolist())
            self.room -= int(chosen.sum())
            gained, self.rest = self.rest.contract(chosen)
            self.base += gained
        return bool(chosen.any())

    def _by_reach(self) -> None:
        while self.rest.n_states and self.slack >= 0:
            if self._leave(self.cost - self.rest.reach * self.scale > self.slack):
                continue
            if not self._take(self.rest.direct * self.scale - self.cost > self.slack):
                break

    def _by_residual(self) -> None:
        """Both rules from one minimum cut: what stays unused at the sink, and at the source, is lost by forcing."""
        size, vertex, tail, head, capacity = closure_network(self.rest, self.cost, self.scale)
        cut = minimum_cut(size, tail, head, capacity, size - 2, size - 1)
        unused = np.zeros(size, dtype=np.int64)
        bounded = capacity >= 0
        unused[np.where(tail == size - 2, head, tail)[bounded]] = (capacity - cut.flow)[bounded]
        m = self.rest.n_states
        at_sink = np.zeros(size, dtype=np.int64)
        at_sink[tail[head == size - 1]] = unused[tail[head == size - 1]]
        at_source = np.zeros(size, dtype=np.int64)
        at_source[head[tail == size - 2]] = unused[head[tail == size - 2]]
        lost = replace(self.rest, weight=at_source[vertex]).reach
        out, chosen = at_sink[:m] > self.slack, lost > self.slack
        origin = self.rest.origin[chosen]
        self._leave(out)
        self._take(self.rest.mask(origin))

    def _by_probe(self, deadline: float) -> bool:
        """Force each state in, then out, and see whether the bound still allows a better graph."""
        best = self._lagrangian(self.rest)
        changed = False
        for origin in self.rest.origin.tolist():
            if time.perf_counter() > deadline or self._finished():
                break
            state = self.rest.mask([origin])
            if not state.any():
                continue
            gained, rest = self.rest.contract(state)
            forced = gained * self.scale - self.cost + self._lagrangian(rest)
            if best - forced > self.slack:
                changed |= self._leave(state)
            elif best - self._lagrangian(self.rest.restrict(~state)) > self.slack:
                changed |= self._take(state)
            else:
                continue
            best = self._lagrangian(self.rest)
        return changed

    def _lagrangian(self, instance: Instance) -> int:
        """Largest ``scale`` * weight(V) - ``cost`` * |V|."""
        chosen = instance.mask(maximum_closure(instance, self.cost, self.scale).smallest)
        return instance.value(chosen) * self.scale - self.cost * int(chosen.sum())

    def solve(self, seconds: float, relative_gap: float) -> str:
        """Hand the rest to HiGHS; the graph, the bound and a sentence on what happened."""
        rest = self.rest
        size, vertex, tail, head, capacity = closure_network(rest, 0, 1)
        n, m = size - 2, rest.n_states
        gain = np.zeros(n)
        np.add.at(gain, vertex, rest.weight.astype(np.float64))
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
        constraints.append(LinearConstraint(gain, lb=target - 0.5))
        answer = milp(
            -gain,
            integrality=is_state.astype(np.int64),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"time_limit": seconds, "mip_rel_gap": relative_gap},
        )
        if answer.x is not None:
            chosen = rest.origin[answer.x[:m] > 0.5]
            everything = np.concatenate([np.array(self.taken, dtype=np.int64), chosen])
            self.offer(swap_order(self.whole, everything, self.budget))
        if answer.status == 2 or (answer.status == 0 and relative_gap == 0):
            self.bound = self.weight
            return "mixed-integer program"
        if answer.mip_dual_bound is not None and np.isfinite(answer.mip_dual_bound):
            proved = self.base + int(np.floor(-answer.mip_dual_bound + 1e-6 * abs(answer.mip_dual_bound)))
            self.bound = max(self.weight, min(self.bound, proved))
        if answer.status == 0:
            return f"the program stopped at the relative gap {relative_gap:g} that was asked for"
        return f"the program was stopped: {answer.message}"
