"""The published rule: choose the draft graph by counts accumulated over parents (arXiv 2509.18085).

How we read the paper. Its calibration rewinds recorded generations, counts the rank formulas that occur,
and takes

    Q* = argmax over connected Q, |Q| = D, of
         sum over q in Q of ( count(q) + sum over parents p of q of count(p) ),

"degree-1 accumulation"; its ablations drop the parents ("degree-0") or take all ancestors ("total"). No code
was published, so three things are ours to read:

* *How the argmax is found.* Node by node: eligible is a state with a chosen or root parent, the heaviest
  eligible state comes next.
* *count(q)*: the number of anchors whose chain contains state q, in whatever order it was reached. The root
  is not a formula of any step and counts 0.
* *Which parents count.* ``parents="all"``: every state that can come before q and occurs in some chain,
  chosen or not (the formula as it is written: weights are fixed beforehand). ``parents="chosen"``: only
  those in Q. Neither follows from the text, and they give different graphs; studies report both.

What a parent is with and without a fixed step size: see ``drafting.parents``.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from drafting.parents import Accumulation, ParentGraph, ancestor_weight, parent_graph
from drafting.searches.result import SearchResult, check_budget
from drafting.trie import PrefixTrie

Parents = Literal["all", "chosen"]


def published(
    trie: PrefixTrie,
    budget: int,
    *,
    step_size: int | None,
    accumulation: Accumulation = "degree1",
    parents: Parents = "all",
    relation: str | None = None,
    graph: ParentGraph | None = None,
) -> SearchResult:
    """Choose up to ``budget`` draft nodes by the published rule.

    Ties go to the node with fewer pairs, then to the lexicographically least formula.

    Args:
        trie: where the counts come from; prune it when rare states shall not be candidates (the paper
            does not say).
        budget: draft nodes asked for.
        step_size: pairs that one denoising step adds, None when it varies.
        accumulation: "degree0", "degree1" or "total".
        parents: which parents count, see above; has no effect with "degree0".
        relation: "subset", "transition" or None for the default of ``drafting.parents``.
        graph: the parent relation, when the caller has it already (it is the costly part).

    Returns:
        A :class:`SearchResult` whose gains are the weights at the time of choice, in anchors (some counted
        several times). Incomplete when no eligible state is left.

    Complexity: the parent relation (``drafting.parents.parent_edges``), then O(Q) per node for "degree0" and
    "degree1"; "total" walks the ancestors of each state that becomes eligible.

    Raises:
        ValueError: an unknown option or a negative budget; whatever ``parent_edges`` raises.
    """
    check_budget(budget)
    for value, allowed, what in ((accumulation, Accumulation, "accumulation"), (parents, Parents, "parents")):
        if value not in get_args(allowed):
            raise ValueError(f"{what} must be one of {', '.join(get_args(allowed))}, got {value!r}")
    rule = _Weights(trie, graph or parent_graph(trie, step_size, relation), accumulation, parents == "chosen")
    rule.open(0)
    order: list[int] = []
    gains: list[float] = []
    while len(order) < budget:
        best = rule.weight.max()
        if best == -np.inf:
            break
        chosen = trie.canonical_first(np.flatnonzero(rule.weight == best))
        order.append(chosen)
        gains.append(float(best))
        rule.choose(chosen)
    name = "published:degree0" if accumulation == "degree0" else f"published:{accumulation}/{parents}"
    return SearchResult(name, budget, tuple(trie.formulas(order)), tuple(gains))


class _Weights:
    """Weight of every eligible state, minus infinity for the others, kept up to date while states are
    chosen."""

    def __init__(self, trie: PrefixTrie, graph: ParentGraph, accumulation: Accumulation, dynamic: bool) -> None:
        self.trie, self.graph, self.accumulation = trie, graph, accumulation
        self.weight = np.full(trie.n_states, -np.inf)
        self.taken = np.zeros(trie.n_states, dtype=bool)
        self.inside: set[int] | None = set() if dynamic else None
        self.fixed: np.ndarray | None = None  # weights known beforehand, [Q]
        if accumulation == "degree0":
            self.fixed = trie.state_count.astype(np.float64)
        elif accumulation == "degree1" and not dynamic:
            counts = np.where(np.arange(trie.n_states) == 0, 0, trie.state_count)
            child = np.repeat(np.arange(trie.n_states), np.diff(graph.parent_ptr))
            self.fixed = counts + np.bincount(child, weights=counts[graph.parent], minlength=trie.n_states)

    def choose(self, state: int) -> None:
        """Take ``state`` out of the eligible ones, make its children eligible, mend the weights it
        changes."""
        self.taken[state] = True
        self.weight[state] = -np.inf
        if self.inside is not None:
            self.inside.add(state)
        children = self.graph.children_of(state)
        known = children[self.weight[children] > -np.inf]
        self.open(state)
        if self.inside is None or self.fixed is not None:
            return
        if self.accumulation == "degree1":
            self.weight[known] += self.trie.state_count[state]
            return
        for parent in (state, *self.graph.descendants(state, self.inside)):
            children = self.graph.children_of(parent)
            self._weigh(children[self.weight[children] > -np.inf])

    def open(self, parent: int) -> None:
        """Make the children of a chosen state (or of the root) eligible."""
        children = self.graph.children_of(parent)
        self._weigh(children[(self.weight[children] == -np.inf) & ~self.taken[children]])

    def _weigh(self, states: np.ndarray) -> None:
        if self.fixed is not None:
            self.weight[states] = self.fixed[states]
            return
        for state in states.tolist():
            self.weight[state] = ancestor_weight(self.graph, self.trie, state, self.accumulation, self.inside)
