"""Smoothing of sparse counts: prefix counts shrunk towards a model of the next state.

A deep prefix is seen by few anchors, and its count says little about other prompts. A smoothed trie holds, for a prefix
t of count n(t) and a next state q,

    P(q | t) = (n(t q) + strength * m(q | t)) / (n(t) + strength),

with m the model of ``drafting.parametric.smoothing_models``: as if ``strength`` more anchors had come through t and
gone on as the model says (a Dirichlet prior). Counts of t q are total * the product of these shares along the path.
Strength 0 keeps the counts; much data behind a prefix outvotes the model; where there is little, the model decides.

The smoothed trie is a :class:`~drafting.trie.PrefixTrie` like any other, so every search takes it. It holds the
prefixes that were seen and, up to a bound, likely ones that were not: a state reached on a path that no anchor took.
Its states are the same, as nothing is known of others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from drafting.parametric.smoothing_models import NextState
from drafting.parents import ParentGraph, parent_graph
from drafting.trie import PrefixTrie

UNSEEN_MASS = 1.0
UNSEEN_LIMIT = 50_000


class SmoothingError(ValueError):
    """A strength or a bound that smooths nothing."""


def smoothed_trie(
    trie: PrefixTrie,
    model: NextState,
    strength: float,
    *,
    graph: ParentGraph | None = None,
    step_size: int | None = None,
    unseen_mass: float | None = UNSEEN_MASS,
    unseen_limit: int = UNSEEN_LIMIT,
) -> PrefixTrie:
    """Shrink the counts of ``trie`` towards ``model``.

    Args:
        trie: prefixes with counts.
        model: fitted to this trie.
        strength: in anchors, at least 0; 0 gives ``trie`` itself.
        graph: which state can follow which, when the caller has it (it depends on the trie alone).
        step_size: pairs per denoising step, None where it varies; used without ``graph``.
        unseen_mass: unseen prefixes expected at this many anchors or more are added; None adds none.
        unseen_limit: of these, at most so many, the heaviest of each depth first.

    Returns:
        A trie with float64 counts over the same anchors. ``total`` is unchanged, a prefix never counts less than
        the prefixes behind it together, and ``leaf`` points to the same prefixes. ``reweighted`` and
        ``count_from_leaves`` would give unsmoothed counts: smooth last.

    Complexity: O((T + E) log T), E edges tried: per prefix, the states that can follow its state.

    Raises:
        SmoothingError: a strength that is negative or not finite, a bound of zero mass.
    """
    if not (np.isfinite(strength) and strength >= 0):
        raise SmoothingError(f"strength is a number of anchors, at least 0 and finite, got {strength}")
    if unseen_mass is not None and not unseen_mass > 0:
        raise SmoothingError(f"unseen_mass must be above 0, or None to add no unseen prefix, got {unseen_mass}")
    if strength == 0 or trie.max_depth == 0 or trie.total <= 0:
        return trie
    if graph is None and unseen_mass is not None:
        graph = parent_graph(trie, step_size)
    observed = np.zeros(1, dtype=np.int64)  # the prefix of ``trie`` that each node of the level is, -1 when unseen
    state = np.zeros(1, dtype=np.int64)
    mass = np.array([trie.total])
    new_index = np.zeros(trie.n_nodes, dtype=np.int32)
    parents, states, masses, level_ptr = [np.array([-1])], [state], [mass], [0, 1]
    left = unseen_limit
    for depth in range(1, trie.max_depth + 1):
        count = np.where(observed >= 0, trie.count[observed], 0).astype(np.float64)
        parent, child_state, child = _seen_edges(trie, observed)
        if unseen_mass is not None and graph is not None:
            # No unseen child weighs more than what the prior takes of its parent.
            open_nodes = np.flatnonzero(mass * strength / (count + strength) >= unseen_mass)
            others = _other_edges(trie, graph, state, open_nodes, parent, child_state)
            parent, child_state = np.concatenate([parent, others[0]]), np.concatenate([child_state, others[1]])
            child = np.concatenate([child, np.full(len(others[0]), -1)])
        prior = model.probability(state[parent], child_state, depth)
        seen = np.where(child >= 0, trie.count[child], 0)
        new_mass = mass[parent] * (seen + strength * prior) / (count[parent] + strength)
        unseen = np.flatnonzero(child < 0)
        heavy = unseen[new_mass[unseen] >= (unseen_mass or 0)]
        heavy = heavy[np.argsort(-new_mass[heavy], kind="stable")[:left]]
        left -= len(heavy)
        kept = np.concatenate([np.flatnonzero(child >= 0), heavy])
        if not len(kept):
            break
        kept = kept[np.lexsort((child_state[kept], parent[kept]))]
        parents.append(level_ptr[-2] + parent[kept])
        observed, state, mass = child[kept], child_state[kept], new_mass[kept]
        states.append(state)
        masses.append(mass)
        known = np.flatnonzero(observed >= 0)
        new_index[observed[known]] = level_ptr[-1] + known
        level_ptr.append(level_ptr[-1] + len(kept))
    return replace(
        trie,
        parent=np.concatenate(parents).astype(np.int32),
        state=np.concatenate(states).astype(np.int32),
        count=np.concatenate(masses),
        level_ptr=np.array(level_ptr, dtype=np.int64),
        leaf=new_index[trie.leaf],
    )


def _seen_edges(trie: PrefixTrie, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Children that were seen, of the level's nodes: (node of the level, state of the child, prefix of the child)."""
    nodes = np.flatnonzero(observed >= 0)
    first, last = trie.child_ptr[observed[nodes]], trie.child_ptr[observed[nodes] + 1]
    parent, child = _spread(nodes, first, last)
    return parent, trie.state[child].astype(np.int64), child


def _other_edges(
    trie: PrefixTrie,
    graph: ParentGraph,
    state: np.ndarray,
    open_nodes: np.ndarray,
    parent: np.ndarray,
    child_state: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """States that can follow the open nodes of a level, those left out that were seen behind them."""
    first, last = graph.child_ptr[state[open_nodes]], graph.child_ptr[state[open_nodes] + 1]
    node, at = _spread(open_nodes, first, last)
    follower = graph.child[at]
    seen = np.isin(node * trie.n_states + follower, parent * trie.n_states + child_state)
    return node[~seen], follower[~seen]


def _spread(owner: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``first[n], ..., last[n] - 1`` for every n, each beside its ``owner[n]``; int64 both."""
    length = last - first
    start = np.repeat(first - (np.cumsum(length) - length), length)
    return np.repeat(owner, length), start + np.arange(int(length.sum()))
