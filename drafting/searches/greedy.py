"""Greedy search on path_value: the node with the largest marginal gain next, again and again.

path_value is supermodular, so greedy carries no 1 - 1/e guarantee. On trees (every state is reached in one
order only) it is optimal for every budget, as a child never counts more than its parent. On DAGs it can
fail, because it does not see that two nodes pay together (the counter-example of the tests: 23 against 25);
in practice it comes close.
"""

from __future__ import annotations

import numpy as np

from drafting.ragged import ranges
from drafting.searches.result import SearchResult, check_budget
from drafting.trie import PrefixTrie


def greedy(trie: PrefixTrie, budget: int) -> SearchResult:
    """Choose up to ``budget`` draft nodes by marginal gain in path_value.

    Ties go to the node with fewer pairs, then to the lexicographically least formula, so equal counts give
    equal graphs whatever the order of the anchors. Every chosen node has a chosen (or root) node before it
    on a recorded chain, so the result is always a draft graph.

    Args:
        trie: prefixes with counts or weights; prune it for speed on a million anchors.
        budget: draft nodes asked for.

    Returns:
        A :class:`SearchResult` with marginal gains in accepted drafts (their sum is the path_value).
        Incomplete when every state that occurs is chosen.

    Complexity: O(T) to set up, then per node O(Q) plus the trie nodes it touches.

    Raises:
        ValueError: a negative budget.
    """
    check_budget(budget)
    order, gains = greedy_states(trie, budget)
    return SearchResult("greedy", budget, tuple(trie.formulas(order)), tuple(gain / trie.total for gain in gains))


def greedy_states(trie: PrefixTrie, budget: int) -> tuple[list[int], list[float]]:
    """The same as state ids, with gains in anchors."""
    marginals = Marginals(trie, trie.count)
    order: list[int] = []
    gains: list[float] = []
    while len(order) < budget:
        best = marginals.gain.max()
        if best <= 0:
            break
        chosen = trie.canonical_first(np.flatnonzero(marginals.gain == best))
        order.append(chosen)
        gains.append(float(best))
        marginals.add(chosen)
    return order, gains


class Marginals:
    """Marginal gains of all states, kept up to date while states are chosen. ``weight`` [T] of every prefix.

    ``worth[t]`` is the weight that prefix ``t`` would bring if its parent counted and its state were chosen:
    its own count, plus that of the prefixes behind it which chosen states make count at once. The gain of a
    state is the sum of ``worth`` over its prefixes whose parent counts ("alive") already.
    """

    def __init__(self, trie: PrefixTrie, weight: np.ndarray) -> None:
        self.trie = trie
        self.worth = weight.copy()
        self.chosen = np.zeros(trie.n_states, dtype=bool)
        self.chosen[0] = True
        self.alive = np.zeros(trie.n_nodes, dtype=bool)
        self.gain = np.zeros(trie.n_states, dtype=weight.dtype)
        self._enliven(np.zeros(1, dtype=np.int64))

    def add(self, state: int) -> None:
        """Choose ``state``."""
        trie = self.trie
        ptr, nodes = trie.nodes_by_state
        here = nodes[ptr[state] : ptr[state + 1]]
        parent_alive = self.alive[trie.parent[here]]
        self.chosen[state] = True
        self.gain[state] = 0
        self._pass_up(here[~parent_alive])
        self._enliven(here[parent_alive])

    def _pass_up(self, nodes: np.ndarray) -> None:
        """Prefixes of a chosen state that do not count yet: their worth goes to every prefix that would free
        them."""
        trie, worth = self.trie, self.worth[nodes]
        above = trie.parent[nodes]
        while len(above):
            # Several nodes may share a parent: add.at adds for each of them.
            np.add.at(self.worth, above, worth)
            frees = self.chosen[trie.state[above]]
            waits = ~frees & self.alive[trie.parent[above]]
            np.add.at(self.gain, trie.state[above[waits]], worth[waits])
            above, worth = trie.parent[above[frees]], worth[frees]

    def _enliven(self, nodes: np.ndarray) -> None:
        """Let prefixes count, and all behind them that chosen states reach; what stands behind those gains
        worth."""
        trie = self.trie
        while len(nodes):
            self.alive[nodes] = True
            starts = trie.child_ptr[nodes]
            _, children = ranges(starts, trie.child_ptr[nodes + 1] - starts)
            reached = self.chosen[trie.state[children]]
            self._offer(children[~reached])
            nodes = children[reached]

    def _offer(self, waiting: np.ndarray) -> None:
        """Prefixes that count as soon as their own state is chosen."""
        np.add.at(self.gain, self.trie.state[waiting], self.worth[waiting])
