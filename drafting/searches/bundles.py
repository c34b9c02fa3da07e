"""Greedy with path bundles: the best gain per new node, over single states and over whole pieces of chains.

Plain greedy asks what one state is worth now, so it does not see that two states pay together. Here a candidate is
everything that a prefix still lacks: all its unchosen states at once. Its score is the gain in path_value divided by
the number of new nodes. With one new node this is greedy's own gain, so greedy's choices are among the candidates.
"""

from __future__ import annotations

import numpy as np

from drafting.searches.construction import Construction, check_budget
from drafting.searches.instance import Instance, Problem
from drafting.trie import PrefixTrie

_EXACTLY = 16  # bundles per round whose gain is worked out exactly
_CANDIDATES = 20_000  # states that take part; those with the least reach are left out
_LARGE = 128  # a part with more states than this is ordered by depth and weight only


def bundled_greedy(
    trie: PrefixTrie, budget: int, *, step_size: int | None = None, candidates: int = _CANDIDATES
) -> Construction:
    """Choose up to ``budget`` draft nodes, one state or one bundle at a time, by gain per new node.

    The gain of a bundle is first bounded from below by its own path plus what each of its states is worth alone; the 16
    best are then evaluated exactly, so a state that pays through several paths at once is seen. A bundle that does not
    fit into the budget left is not considered, so the order is nested up to the last bundle only: a smaller budget may
    deserve another graph.

    Ties go to the smaller bundle, then to the smaller formula codes.

    Args:
        trie: prefixes with counts or weights.
        budget: draft nodes wanted.
        step_size: taken for the common signature of searches; recorded chains keep it by themselves.
        candidates: how many states take part, those that most could be behind first.

    Returns:
        a :class:`Construction` with marginal gains in accepted drafts.

    Complexity: per round O(n log n) for n prefixes over the candidates.

    Raises:
        ValueError: a negative budget.
    """
    check_budget(budget)
    problem = Problem.from_trie(trie, budget)
    inside = most_reaching(problem.whole, max(candidates, budget))
    order = bundle_order(inside, budget)
    return problem.construction("bundles", order, complete=len(order) == budget)


def bundle_order(instance: Instance, budget: int) -> list[int]:
    """Trie state ids, at most ``budget``, in the order in which greedy with bundles takes them."""
    order: list[int] = []
    rest = instance
    while len(order) < budget and rest.n_states:
        bundle = _best_bundle(rest, budget - len(order))
        if not len(bundle):
            break
        order.extend(rest.origin[bundle].tolist())
        taken = np.zeros(rest.n_states, dtype=bool)
        taken[bundle] = True
        rest = rest.contract(taken)[1]
    return order


def _best_bundle(rest: Instance, room: int) -> np.ndarray:
    """States of the best bundle of at most ``room``, shallow first; empty when nothing brings anything."""
    levels = rest.levels()[:room]
    end = levels[-1].stop
    alone = rest.direct
    # Lower bound on what the states of each prefix bring together. On the path itself, the first state is counted by
    # ``alone``; for the later ones that is what they bring apart from this path.
    gain = alone[rest.state[:end]].copy()
    for level in levels[1:]:
        gain[level] += gain[rest.parent[level]] + rest.weight[level]
    need = np.repeat(np.arange(1, len(levels) + 1), [level.stop - level.start for level in levels])
    score = gain / need
    first = np.flatnonzero(score > 0)
    if not len(first):
        return first
    if len(first) > _EXACTLY:
        first = first[np.argpartition(-score[first], _EXACTLY - 1)[:_EXACTLY]]
    single = int(np.argmax(alone))
    best = (alone[single] / 1, -1, -single)
    chosen = np.array([single])
    for node in first.tolist():
        path = []
        at = node
        while at >= 0:
            path.append(int(rest.state[at]))
            at = int(rest.parent[at])
        path.reverse()
        if len(path) == 1:
            continue
        key = (_gain(rest, path) / len(path), -len(path), -min(path))
        if key > best:
            best, chosen = key, np.array(path)
    return chosen if best[0] > 0 else chosen[:0]


def _gain(rest: Instance, states: list[int]) -> int:
    """Weight that counts when ``states`` are chosen; prefixes that need more states than these are not looked at."""
    chosen = np.zeros(rest.n_states, dtype=bool)
    chosen[states] = True
    levels = rest.levels()[: len(states)]
    end = levels[-1].stop
    alive = chosen[rest.state[:end]]
    for level in levels[1:]:
        alive[level] &= alive[rest.parent[level]]
    return int(rest.weight[:end][alive].sum())


def instance_order(instance: Instance) -> list[int]:
    """All states of an instance (trie ids) in an order whose every prefix is connected to what was chosen before.

    Greedy with bundles for small instances. Large ones go by the depth at which a state is first reached, then by
    weight: a state before another on some path is reached earlier.
    """
    if instance.n_states <= _LARGE:
        order = bundle_order(instance, instance.n_states)
        if len(order) == instance.n_states:
            return order
    shallowest = np.full(instance.n_states, instance.depth, dtype=np.int64)
    depth = np.repeat(np.arange(instance.depth), np.diff(instance.level_ptr))
    np.minimum.at(shallowest, instance.state, depth)
    return instance.origin[np.lexsort((np.arange(instance.n_states), -instance.reach, shallowest))].tolist()


def most_reaching(instance: Instance, number: int) -> Instance:
    """The instance over the ``number`` states with the largest reach (more, when several tie for the last place)."""
    if instance.n_states <= number:
        return instance
    least = np.partition(instance.reach, instance.n_states - number)[instance.n_states - number]
    return instance.restrict(instance.reach >= least)
