"""Models of a chain's next state, fitted to a prefix trie: what sparse path counts are shrunk towards.

Both answer one question: a chain is in state s at depth d - 1; how probable is it that its next state is q? They differ
in what they forget. A path count remembers how the chain came to s; the Markov model forgets that; the product model
forgets even s but for which ranks it has left, and treats position ranks and vocabulary ranks as independent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from drafting.trie import PrefixTrie

_EDGES = 1 << 17  # edges per pass of the product model: bounds its temporary arrays to some tens of megabytes


class NextState(Protocol):
    """A model of the next state of a chain."""

    name: str

    def probability(self, before: np.ndarray, after: np.ndarray, depth: int) -> np.ndarray:
        """Probability that a chain in state ``before`` [E] goes on to ``after`` [E], which it reaches at ``depth``.

        State ids of the trie that the model was fitted to; each ``after`` can follow its ``before``. Over all
        states that can follow, the sum is at most 1: the rest is the probability that the chain ends.
        """
        ...


class MarkovModel:
    """The next state given the current one, whatever came before: m(q | s) = count(s -> q) / count(s).

    count(s) leaves out chains that were cut right behind s, of which nobody knows how they go on. States of which
    nothing is known go nowhere. O(T) to fit, O(log T) an edge.
    """

    name = "markov"

    def __init__(self, trie: PrefixTrie) -> None:
        self._states = trie.n_states
        known = np.ones(trie.n_nodes, dtype=bool)
        if trie.depth_limit is not None and trie.max_depth == trie.depth_limit:
            known[trie.level_ptr[trie.max_depth] :] = False
        leaving = np.bincount(trie.state[known], weights=trie.count[known], minlength=trie.n_states)
        edge = self._key(trie.state[trie.parent[1:]], trie.state[1:])
        self._edge, row = np.unique(edge, return_inverse=True)
        taken = np.bincount(row, weights=trie.count[1:], minlength=len(self._edge))
        before = leaving[self._edge // self._states]
        self._share = np.divide(taken, before, out=np.zeros(len(taken)), where=before > 0)

    def _key(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return before.astype(np.int64) * self._states + after

    def probability(self, before: np.ndarray, after: np.ndarray, depth: int) -> np.ndarray:
        """See :class:`NextState`; ``depth`` does not matter."""
        if not len(self._edge):
            return np.zeros(len(before))
        key = self._key(before, after)
        at = np.minimum(np.searchsorted(self._edge, key), len(self._edge) - 1)
        return np.where(self._edge[at] == key, self._share[at], 0.0)


class ProductModel:
    """Independent ranks: how many positions a step commits, which position ranks, which vocabulary ranks.

    At depth d, with s the state before,

        m(q | s) = P_d(the chain goes on) * P_d(k pairs are added)
                   * product over added (i, j) of w_d(i) * r_d(j | i)  /  e_k(w_d over the ranks free in s),

    where w_d(i) is the share of chains that commit rank i at depth d among those that have it free, r_d(j | i) the
    share of vocabulary rank j when they do, and e_k the elementary symmetric polynomial: the sum of the products of w
    over every set of k free ranks. So the sets of one size share their probability in proportion to the product of
    their weights (for one pair a step: in proportion to w). Half a chain is added to every w, and r_d(j | i) is shrunk
    by one chain towards the share of j over all ranks, so that nothing is impossible for want of data.

    With ``L`` position ranks, ``Q`` states: O(Q L) memory, O((T + E) L) time; meant for tries of up to some hundred
    thousand prefixes (prune larger ones).
    """

    name = "product"

    def __init__(self, trie: PrefixTrie) -> None:
        self._rank = _rank_matrix(trie)
        levels = range(1, trie.max_depth + 1)
        self._levels = [_DepthCounts(trie, self._rank, depth) for depth in levels]

    def probability(self, before: np.ndarray, after: np.ndarray, depth: int) -> np.ndarray:
        """See :class:`NextState`."""
        counts = self._levels[depth - 1]
        found = np.empty(len(before))
        for low in range(0, len(before), _EDGES):
            part = slice(low, low + _EDGES)
            found[part] = counts.probability(self._rank, before[part], after[part])
        return found


class _DepthCounts:
    """The product model's shares at one depth. ``rank`` int [Q, L]: vocabulary rank at each position rank, 0 for none.

    Attributes:
        goes_on: share of the chains at the depth before that have a state at this depth.
        size: float64 [L + 1], share of steps that add k pairs.
        weight: float64 [L], w(i).
        vocabulary: float64 [L, J + 1], r(j | i); column 0 is 1, for ranks that are not added.
    """

    def __init__(self, trie: PrefixTrie, rank: np.ndarray, depth: int) -> None:
        nodes = np.arange(trie.level_ptr[depth], trie.level_ptr[depth + 1])
        before = slice(trie.level_ptr[depth - 1], trie.level_ptr[depth])
        reached = trie.count[before].sum()
        width, choices = rank.shape[1], int(rank.max(initial=0)) + 1
        free, chosen, size = np.zeros(width), np.zeros((width, choices)), np.zeros(width + 1)
        for low in range(0, len(nodes), _EDGES):
            part = nodes[low : low + _EDGES]
            weight = trie.count[part].astype(np.float64)
            is_free, added = _added(rank, trie.state[trie.parent[part]], trie.state[part])
            free += weight @ is_free
            row, column = np.nonzero(added)
            np.add.at(chosen, (column, added[row, column]), weight[row])
            size += np.bincount((added > 0).sum(axis=1), weights=weight, minlength=width + 1)
        total = size.sum()
        self.goes_on = float(total / reached) if reached else 0.0
        self.size = size / total if total else size
        taken = chosen.sum(axis=1)
        self.weight = (taken + 0.5) / (free + 1)
        overall = chosen.sum(axis=0) / max(taken.sum(), 1e-300)
        self.vocabulary = (chosen + overall) / (taken + 1)[:, None]
        self.vocabulary[:, 0] = 1.0

    def probability(self, rank: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """m(after | before) for states [E] each."""
        added = _added(rank, before, after)[1]
        is_added = added > 0
        pairs = is_added.sum(axis=1)
        columns = np.arange(rank.shape[1])
        factor = np.where(is_added, self.weight, 1.0).prod(axis=1) * self.vocabulary[columns, added].prod(axis=1)
        rows, row = np.unique(before, return_inverse=True)
        sums = symmetric_sums(np.where(rank[rows] == 0, self.weight, 0.0), int(pairs.max(initial=0)))
        every = sums[row, pairs]
        share = np.divide(factor, every, out=np.zeros(len(before)), where=every > 0)
        return self.goes_on * self.size[pairs] * share


def symmetric_sums(weights: np.ndarray, order: int) -> np.ndarray:
    """Elementary symmetric polynomials e_0 ... e_order of each row: float64 [n, L] -> [n, order + 1].

    One pass over the columns, e_k <- e_k + w e_(k-1); all terms are positive, so nothing cancels. O(n L order).
    """
    sums = np.zeros((len(weights), order + 1))
    sums[:, 0] = 1.0
    for column in weights.T:
        sums[:, 1:] += column[:, None] * sums[:, :-1]
    return sums


def _rank_matrix(trie: PrefixTrie) -> np.ndarray:
    """int16 [Q, L]: the vocabulary rank that each state holds at each position rank (column i - 1), 0 where none."""
    drafted = np.flatnonzero(trie.state_row >= 0)
    starts, ends = trie.anchors.pair_ranges(trie.state_row[drafted])
    length = ends - starts
    row = np.repeat(drafted, length)
    at = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length) + np.repeat(starts, length)
    width = int(trie.anchors.pair_i[at].max(initial=0))
    rank = np.zeros((trie.n_states, width), dtype=np.int16)
    rank[row, trie.anchors.pair_i[at] - 1] = trie.anchors.pair_j[at]
    return rank


def _added(rank: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per edge: which ranks are free before (bool [E, L]) and which vocabulary ranks are added (int16 [E, L])."""
    free = rank[before] == 0
    return free, np.where(free, rank[after], 0)


#: The models by name.
MODELS: dict[str, Callable[[PrefixTrie], NextState]] = {"markov": MarkovModel, "product": ProductModel}
