"""Constructions of token-tree systems, transferred to draft graphs: what one gets without looking at states as sets.

Tree drafting (Medusa, EAGLE-2, OPT-Tree, Sequoia) chooses nodes of a tree whose children are ranked guesses for the
next token. Here one denoising step takes the place of one token: a child adds the pairs that the step commits. Two
paths that commit the same pairs in another order end in two tree nodes but in one state, and a draft graph holds it
once; so both constructions go on until they have as many distinct states as were asked for.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from drafting.searches.result import SearchResult, check_budget
from drafting.trie import PrefixTrie
from verify.graph.formulas import ROOT, Formula, formula

_LARGEST_TREE = 8  # the programme looks at trees of up to this many times the budget


def tree_greedy(trie: PrefixTrie, budget: int) -> SearchResult:
    """Best-first on a product of rank probabilities: the rule behind Medusa, EAGLE-2 and OPT-Tree.

    Medusa measures how often the r-th guess of its d-th head is right, and grows the tree by the node with the
    largest product of these accuracies along its path (arXiv 2401.10774, "sparse tree"); EAGLE-2 (arXiv 2406.16858) and
    OPT-Tree (arXiv 2406.17276) do the same with the draft model's probabilities at run time, which maximises the
    expected accepted drafts when they are right.

    Transferred: head d is the d-th denoising step after the anchor, a guess is a set of pairs that this step committed
    somewhere in the traces, and its accuracy is the weight of the chains that commit it there over the weight of the
    chains that are still running. A path is a sequence of guesses that do not name a position twice; its score is the
    product. Steps are taken as independent, so the tree may hold states that never occurred. Of several paths to one
    state the best counts. There is no draft model here whose probabilities could change from anchor to anchor, so the
    tree is Medusa's, static.

    Args:
        trie: where the accuracies come from.
        budget: draft nodes asked for; the order is nested.

    Returns:
        a :class:`SearchResult` whose gains are the products (reach probability under independence).

    Complexity: O(T log T) for the accuracies, then O(budget * G) for G guesses per depth.

    Raises:
        ValueError: a negative budget.
    """
    check_budget(budget)
    guesses = [_Guesses(trie, depth) for depth in range(1, trie.max_depth + 1)]
    heap: list[tuple[float, int, Formula, int, Formula, float, int]] = []

    def push(before: Formula, score: float, depth: int, rank: int) -> None:
        """Offer the best guess from ``rank`` on that fits behind the path ``before``."""
        if depth >= len(guesses):
            return
        used = {i for i, _ in before}
        while rank < len(guesses[depth].accuracy):
            added = guesses[depth].pairs(rank)
            if not used & {i for i, _ in added}:
                state = formula(before + added)
                product = score * guesses[depth].accuracy[rank]
                heapq.heappush(heap, (-product, len(state), state, depth, before, score, rank))
                return
            rank += 1

    push(ROOT, 1.0, 0, 0)
    found: dict[Formula, float] = {}
    while heap and len(found) < budget:
        negative, _, state, depth, before, score, rank = heapq.heappop(heap)
        push(before, score, depth, rank + 1)
        if state not in found:
            found[state] = -negative
            push(state, -negative, depth + 1, 0)
    return SearchResult("tree_greedy", budget, tuple(found), tuple(found.values()))


class _Guesses:
    """What the step at one depth committed, commonest first, with accuracies."""

    def __init__(self, trie: PrefixTrie, depth: int) -> None:
        before, level = trie.levels[depth - 1], trie.levels[depth]
        above = trie.parent[level]
        # Codes add up, so what a step adds is a difference (drafting.codes).
        added = trie.state_code[trie.state[level]] - trie.state_code[trie.state[above]]
        codes, where, member = np.unique(added, return_index=True, return_inverse=True)
        weight = np.bincount(member, weights=trie.count[level], minlength=len(codes))
        running = float(trie.count[before].sum())
        by_weight = np.lexsort((codes, -weight))
        by_weight = by_weight[weight[by_weight] > 0]
        self.trie = trie
        self.accuracy: list[float] = (weight[by_weight] / running).tolist() if running > 0 else []
        self.node = (level.start + where[by_weight]).tolist()
        self.known: dict[int, Formula] = {}

    def pairs(self, rank: int) -> Formula:
        """The pairs of a guess."""
        if rank not in self.known:
            node = self.node[rank]
            whole, before = self.trie.formulas([self.trie.state[node], self.trie.state[self.trie.parent[node]]])
            self.known[rank] = formula(set(whole) - set(before))
        return self.known[rank]


@dataclass(frozen=True)
class _Node:
    """A node of the tree on its way to a state: trie node, size of its subtree, product of acceptances."""

    trie_node: int
    below: int
    score: float


def sequoia_tree(trie: PrefixTrie, budget: int) -> SearchResult:
    """Sequoia's dynamic programme over trees (arXiv 2402.12374), for one budget.

    Sequoia assumes that the k-th child of a node is accepted with a probability a_k that depends on its rank k alone
    ("positional acceptance"), and finds the tree of n nodes with the largest expected accepted drafts by

        f(0) = 0,  f(n) = max over sizes n_1 + n_2 + ... = n of  sum over k with n_k > 0 of  a_k * (1 + f(n_k - 1)).

    Transferred: the children of a prefix are the states that followed it in the traces, commonest first. a_k is the
    weight of k-th children over the weight of their parents, pooled over the root and the ``budget`` commonest
    prefixes (in rarer ones the commonest child is often the only one, and would look certain). Chains that end count
    as not accepted, so no depth limit is needed. The shape found is laid over the prefixes from the root; what falls on
    a child that never occurred is left out, states met twice count once, and a larger tree is tried until the
    budget of distinct states is reached.

    Args:
        trie: prefixes with counts or weights.
        budget: draft nodes asked for. The order puts likely states first; smaller budgets of it are connected graphs,
            but not what the programme would choose for them.

    Returns:
        a :class:`SearchResult` whose gains are products of a_k (reach probability under the assumption). Incomplete
        when no tree of eight times the budget has enough distinct states.

    Complexity: O(N^2 K) for trees of N nodes with up to K children; O(T log T) to rank children.

    Raises:
        ValueError: a negative budget.
    """
    check_budget(budget)
    ranked = _ranked_children(trie)
    acceptance = _acceptance(trie, ranked, budget)
    found: dict[int, float] = {}
    if budget and len(acceptance):
        programme = _TreeProgramme(acceptance)
        for size in range(budget, _LARGEST_TREE * budget + 1):
            found = _lay(trie, ranked, programme, size)
            if len(found) >= budget:
                break
    size_of = trie.state_size
    order = sorted(found, key=lambda state: (-found[state], size_of[state], state))[:budget]
    gains = tuple(found[state] for state in order)
    return SearchResult("sequoia", budget, tuple(trie.formulas(order)), gains)


def _ranked_children(trie: PrefixTrie) -> np.ndarray:
    """int64 [T]: trie nodes with every range of children in the order of falling count (ties: smaller state id)."""
    return np.lexsort((trie.state, -trie.count, trie.parent)).astype(np.int64)


def _acceptance(trie: PrefixTrie, ranked: np.ndarray, budget: int) -> np.ndarray:
    """float64 [K]: a_k, falling to the last positive one."""
    commonest = 1 + np.argsort(-trie.count[1:], kind="stable")[:budget]
    inner = np.concatenate([[0], commonest])
    width = trie.child_ptr[inner + 1] - trie.child_ptr[inner]
    number = min(int(width.max(initial=0)), budget)
    weight = np.array([trie.count[ranked[trie.child_ptr[inner[width > k]] + k]].sum() for k in range(number)])
    weight = weight / max(float(trie.count[inner].sum()), 1e-300)
    return np.minimum.accumulate(weight[weight > 0])


class _TreeProgramme:
    """The recursion of :func:`sequoia_tree`, filled up as larger trees are asked for."""

    def __init__(self, acceptance: np.ndarray) -> None:
        self.acceptance = acceptance
        self.best = [0.0]  # f(n)
        self.rest: list[list[float]] = [[0.0] for _ in range(len(acceptance) + 1)]  # from the k-th child on, n nodes
        self.size: list[list[int]] = [[0] for _ in range(len(acceptance))]  # n_k of the best split

    def grow(self, size: int) -> None:
        while len(self.best) <= size:
            n = len(self.best)
            self.rest[-1].append(0.0)
            below = 1.0 + np.array(self.best)  # 1 + f(m - 1) for m = 1 .. n
            for k in range(len(self.acceptance) - 1, -1, -1):
                later = np.array(self.rest[k + 1][:n])[::-1]  # n - m nodes for the children after this one
                total = self.acceptance[k] * below + later
                m = int(total.argmax())
                self.rest[k].append(float(total[m]))
                self.size[k].append(m + 1)
            self.best.append(self.rest[0][n])

    def split(self, n: int) -> list[int]:
        """Sizes of the subtrees of the children, each with its child, of the best tree of ``n`` nodes."""
        sizes = []
        for k in range(len(self.acceptance)):
            if not n:
                break
            sizes.append(self.size[k][n])
            n -= sizes[-1]
        return sizes


def _lay(trie: PrefixTrie, ranked: np.ndarray, programme: _TreeProgramme, size: int) -> dict[int, float]:
    """The best tree of ``size`` nodes over the prefixes of the trie: state id -> largest product of acceptances."""
    programme.grow(size)
    found: dict[int, float] = {}
    open_nodes = [_Node(0, size, 1.0)]
    while open_nodes:
        node = open_nodes.pop()
        first, last = int(trie.child_ptr[node.trie_node]), int(trie.child_ptr[node.trie_node + 1])
        for k, width in enumerate(programme.split(node.below)):
            if first + k >= last:
                break
            child = int(ranked[first + k])
            score = node.score * float(programme.acceptance[k])
            state = int(trie.state[child])
            found[state] = max(score, found.get(state, 0.0))
            open_nodes.append(_Node(child, width - 1, score))
    return found
