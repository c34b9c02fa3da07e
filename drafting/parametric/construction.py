"""A constructor of draft graphs with continuous parameters, for Optuna to tune.

Counts of rare prefixes are noisy and a decode visits a biased sample of the anchors, so the graph that is best on the
counts need not be best on new prompts. Each parameter bends the counts, or the rule that reads them, in one way that
may help (``drafting.parametric.parameters``). With the neutral values the constructor *is* greedy; with ``order_blind``
and ``parent_bonus`` at 1 it is the published rule (degree-1 accumulation over all parents).

What a trial does not change is computed once (``drafting.parametric.candidates``). A trial costs a few passes over
arrays of some thousand prefixes, and a loop over the chosen nodes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from drafting.parametric.candidates import Candidates
from drafting.parametric.parameters import check_parameters
from drafting.searches.greedy import Marginals
from drafting.searches.result import SearchResult, check_budget

_SMOOTHING_SCALE = 64.0  # pseudo-anchors at smoothing = 1


def parametric(candidates: Candidates, parameters: Mapping[str, float], budget: int) -> SearchResult:
    """Build the graph of ``parameters`` (see :data:`PARAMETERS`); those not given are neutral.

    Returns:
        A :class:`SearchResult` "parametric"; gains are scores, in anchors after all weighting. Incomplete when no
        candidate scores above 0.

    Raises:
        ValueError: as :func:`check_parameters`; a negative budget.
    """
    check_budget(budget)
    order, gains = parametric_order(candidates, parameters, budget)
    formulas = tuple(candidates.trie.formulas(order))
    return SearchResult("parametric", budget, formulas, tuple(gains))


def parametric_order(
    candidates: Candidates, parameters: Mapping[str, float], budget: int
) -> tuple[list[int], list[float]]:
    """State ids in the order chosen, and their scores. O(T) per level of the trie, O(Q) per node."""
    chosen = check_parameters(parameters)
    return _Selection(candidates, prefix_weights(candidates, chosen), chosen).run(budget)


def prefix_weights(candidates: Candidates, chosen: Mapping[str, float]) -> np.ndarray:
    """float64 [T], the weight of every prefix under the parameters; with the neutral ones its count, exactly.

    With counts c, pseudo-anchors k, discount d and n(t) children of t that occur, the chance of a step is

        p(t | before) = (max(c(t) - d, 0) + (k + d * n(before)) * m(t)) / (c(before) + k)

    where m mixes P(state | state before), counted over all orders in which that state is reached, with the product
    of the rank probabilities of the added pairs (for steps of several pairs a score rather than a distribution).
    """
    trie = candidates.trie
    count = _mixed_counts(candidates, chosen)
    extra = _SMOOTHING_SCALE * chosen["smoothing"] ** 2
    discount = chosen["count_discount"]
    weight = count
    if extra or discount:
        above = trie.parent[1:]
        model = _model(candidates, count, chosen["markov"])[1:]
        occurs = (count[1:] > 0).astype(np.float64)
        brothers = np.bincount(above, weights=occurs, minlength=trie.n_nodes)[above]
        smoothed = np.maximum(count[1:] - discount, 0) + (extra + discount * brothers) * model
        below = count[above] + extra
        step = np.divide(smoothed, below, out=np.zeros_like(smoothed), where=below > 0)
        weight = trie.carry_down(np.concatenate([count[:1], step]), np.multiply)
    powers = chosen["depth_discount"] ** np.maximum(trie.depth - 1, 0)
    ranks = chosen["position_exponent"] * candidates.log_position
    ranks = ranks + chosen["vocabulary_exponent"] * candidates.log_vocabulary
    return weight * powers * np.exp(ranks)


def _mixed_counts(candidates: Candidates, chosen: Mapping[str, float]) -> np.ndarray:
    counts = candidates.counts
    if chosen["visited"]:
        counts = (1 - chosen["visited"]) * counts + chosen["visited"] * candidates.visited_counts
    if len(counts) == 1:
        return counts[0]
    mix = chosen["domain_mix"]
    return 2 * mix * counts[0] + 2 * (1 - mix) * counts[1:].sum(axis=0)


def _model(candidates: Candidates, count: np.ndarray, markov: float) -> np.ndarray:
    """float64 [T], chance of the last step of each prefix under the mixed model."""
    trie = candidates.trie
    through = np.bincount(candidates.edge[1:], weights=count[1:], minlength=int(candidates.edge.max()) + 1)
    at = np.bincount(trie.state, weights=count, minlength=trie.n_states)[candidates.edge_from]
    by_state = np.divide(through[candidates.edge], at, out=np.zeros_like(count), where=at > 0)
    total = max(count.sum(), 1e-300)
    pair_chance = np.bincount(candidates.pair_key, weights=count[candidates.pair_node]) / total
    logs = np.log(np.maximum(pair_chance, 1e-300))[candidates.pair_key]
    by_product = np.exp(np.bincount(candidates.pair_node, weights=logs, minlength=trie.n_nodes))
    if candidates.size.max() > 1:
        # Pair chances are per step, so that of a step of s pairs is scaled to the share of such steps.
        sizes = np.bincount(candidates.size[1:], weights=count[1:])
        made = np.bincount(candidates.size[1:], weights=by_product[1:] * at[1:], minlength=len(sizes))
        scale = np.divide(sizes, made, out=np.ones_like(sizes), where=made > 0)
        by_product = np.minimum(by_product * np.minimum(scale, 1.0)[candidates.size], 1.0)
    return markov * by_state + (1 - markov) * by_product


class _Selection(Marginals):
    """Best score first. Beside the gain of a state, ``ahead`` sums the best next prefix in the same way."""

    def __init__(self, candidates: Candidates, weight: np.ndarray, chosen: Mapping[str, float]) -> None:
        trie = candidates.trie
        self.parents, self.tie_rank = candidates.parents, candidates.tie_rank
        self.path_share, self.look = 1 - chosen["order_blind"], chosen["look_ahead"]
        self.best_child = np.zeros(trie.n_nodes)
        if self.look:
            has = np.flatnonzero(np.diff(trie.child_ptr) > 0)
            self.best_child[has] = np.maximum.reduceat(weight, trie.child_ptr[has])
        self.fixed = np.zeros(trie.n_states)
        if chosen["order_blind"] or chosen["parent_bonus"]:
            anyhow = np.bincount(trie.state, weights=weight, minlength=trie.n_states)
            anyhow[0] = 0
            child = np.repeat(np.arange(trie.n_states), np.diff(self.parents.parent_ptr))
            above = np.bincount(child, weights=anyhow[self.parents.parent], minlength=trie.n_states)
            self.fixed = chosen["order_blind"] * anyhow + chosen["parent_bonus"] * above
        self.ahead = np.zeros(trie.n_states)
        self.open = np.zeros(trie.n_states, dtype=bool)
        super().__init__(trie, weight)
        self.open[self.parents.children_of(0)] = True

    def run(self, budget: int) -> tuple[list[int], list[float]]:
        order: list[int] = []
        gains: list[float] = []
        while len(order) < budget:
            score = self.path_share * (self.gain + self.look * self.ahead) + self.fixed
            score[~self.open] = 0.0
            best = score.max()
            if best <= 0:
                break
            tied = np.flatnonzero(score == best)
            state = int(tied[np.argmin(self.tie_rank[tied])])
            order.append(state)
            gains.append(float(best))
            self.add(state)
        return order, gains

    def add(self, state: int) -> None:
        """Choose ``state``; its children may come next."""
        super().add(state)
        self.open[state] = False
        children = self.parents.children_of(state)
        self.open[children[~self.chosen[children]]] = True

    def _offer(self, waiting: np.ndarray) -> None:
        super()._offer(waiting)
        np.add.at(self.ahead, self.trie.state[waiting], self.best_child[waiting])
