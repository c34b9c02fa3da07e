"""Cheap upper bounds on path_value that need no search. Exact searches have better ones; these cost one
sort."""

from __future__ import annotations

import numpy as np

from drafting.trie import PrefixTrie


def count_bound(trie: PrefixTrie, budget: int) -> float:
    """No graph of ``budget`` drafts is worth more than the ``budget`` commonest states count per anchor.

    An anchor that accepts a prefix contains the prefix's last state, and that state is in the graph; so F(V)
    <= (1 / total) * sum over q in V of count(q). Reached when these states form one chain that nothing
    leaves. O(Q). Loose for deep graphs: it forgets that all states before must be in the graph too.
    """
    counts = trie.state_count[1:]
    if budget <= 0 or not len(counts) or trie.total <= 0:
        return 0.0
    best = np.partition(counts, len(counts) - min(budget, len(counts)))[-budget:]
    return float(best.sum() / trie.total)


def depth_bound(trie: PrefixTrie, budget: int) -> float:
    """No graph of ``budget`` drafts accepts more than ``budget`` states, nor more than the chain is long.
    O(T)."""
    if budget <= 0 or trie.total <= 0:
        return 0.0
    shallow = trie.depth[1:] <= budget
    return float(trie.count[1:][shallow].sum() / trie.total)


def value_bound(trie: PrefixTrie, budget: int) -> float:
    """The smaller of :func:`count_bound` and :func:`depth_bound`."""
    return min(count_bound(trie, budget), depth_bound(trie, budget))
