"""1-swap repair: exchange one draft node for another while that raises path_value."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from drafting.searches.bundles import bundle_order, bundled_greedy, instance_order, most_reaching
from drafting.searches.construction import Construction, check_budget
from drafting.searches.instance import Instance, Problem
from drafting.trie import PrefixTrie
from verify.graph.formulas import Formula

_CANDIDATES = 20_000  # states that may come in; those with the least reach are left out


def swap_repair(
    trie: PrefixTrie,
    budget: int,
    *,
    step_size: int | None = None,
    start: Iterable[Formula] | None = None,
    max_swaps: int = 1000,
) -> Construction:
    """Improve a graph of ``budget`` nodes by 1-swaps until no swap helps.

    Nodes through which no recorded chain is accepted are exchanged like any other, so none is left in the end, and
    the result is connected. It is never worse than the start.

    Args:
        trie: prefixes with counts or weights.
        budget: draft nodes wanted.
        step_size: taken for the common signature of searches; recorded chains keep it by themselves.
        start: the graph to repair; missing nodes are filled in and nodes that no chain contains are dropped first.
            None starts from greedy with bundles.
        max_swaps: give up after this many; each one strictly improves, so there is no cycle.

    Returns:
        a :class:`Construction` for this budget: the nodes are ordered by greedy inside the graph, so smaller budgets
        of it are connected graphs, but not repaired ones.

    Complexity: per swap O(n * depth) for n prefixes over the candidates.

    Raises:
        ValueError: a negative budget, or more start nodes than the budget.
    """
    check_budget(budget)
    problem = Problem.from_trie(trie, budget)
    nodes = list(bundled_greedy(trie, budget).order if start is None else start)
    states = problem.states(nodes)
    if len(states) > budget:
        raise ValueError(f"{len(states)} nodes to start from are more than the budget of {budget}")
    order = swap_order(problem.whole, states, budget, max_swaps)
    return problem.construction("swap", order, complete=len(order) == budget)


def swap_order(instance: Instance, states: np.ndarray, budget: int, max_swaps: int = 1000) -> list[int]:
    """Trie state ids of the repaired graph, connected in every prefix. ``states``: trie ids to start from."""
    known = instance.mask(states)
    reach = instance.reach
    rivals = most_reaching(instance, max(_CANDIDATES, budget))
    kept = known.copy()
    kept[np.searchsorted(instance.origin, rivals.origin)] = True
    work = instance.restrict(kept & (reach > 0))
    chosen = _refill(work, work.mask(states), budget)
    for _ in range(max_swaps):
        swap = _best_swap(work, chosen)
        if swap is None:
            break
        out, new = swap
        chosen[out], chosen[new] = False, True
        chosen = _refill(work, chosen, budget)
    inside = work.restrict(chosen)
    return instance_order(inside)


def _refill(work: Instance, chosen: np.ndarray, budget: int) -> np.ndarray:
    """Drop the states that accept nothing, then fill the room by greedy with bundles."""
    used = np.zeros_like(chosen)
    used[work.state[work.alive(chosen)]] = True
    room = budget - int(used.sum())
    if room:
        _, rest = work.contract(used)
        used |= work.mask(bundle_order(rest, room))
    return used


def _best_swap(work: Instance, chosen: np.ndarray) -> tuple[int, int] | None:
    """The swap (out, in) with the largest gain in weight, None when no swap gains.

    Only prefixes that lack at most one state matter. With G(q) the weight that q would add, L(o) the weight lost
    without o and H(q, o) the part of G(q) that also needs o, a swap gains G(q) - H(q, o) - L(o).
    """
    lacks = (~chosen[work.state]).astype(np.int64)
    missing = np.where(lacks > 0, work.state, -1)
    for level in work.levels()[1:]:
        above = work.parent[level]
        lacks[level] += lacks[above]
        missing[level] = np.maximum(missing[level], missing[above])
    members = np.flatnonzero(chosen)
    column = np.cumsum(chosen) - 1
    near = np.flatnonzero(lacks <= 1)
    gain = np.zeros(work.n_states, dtype=np.int64)
    one = near[lacks[near] == 1]
    np.add.at(gain, missing[one], work.weight[one])
    rivals = np.flatnonzero(gain > 0)
    if not len(rivals) or not len(members):
        return None
    row = np.full(work.n_states + 1, -1, dtype=np.int64)  # [-1]: prefixes that lack nothing
    row[rivals] = np.arange(len(rivals))
    row[-1] = len(rivals)
    needs = np.zeros((len(rivals) + 1, len(members)), dtype=np.int64)
    at, who = near.copy(), near
    while len(at):
        inside = chosen[work.state[at]]
        np.add.at(needs, (row[missing[who[inside]]], column[work.state[at[inside]]]), work.weight[who[inside]])
        at = work.parent[at]
        who, at = who[at >= 0], at[at >= 0]
    change = gain[rivals][:, None] - needs[:-1] - needs[-1]
    best = int(change.argmax())
    new, out = divmod(best, len(members))
    return (int(members[out]), int(rivals[new])) if change[new, out] > 0 else None
