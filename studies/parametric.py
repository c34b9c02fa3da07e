"""A constructor of draft graphs with continuous parameters, for Optuna to tune.

Counts of rare prefixes are noisy and a decode visits a biased sample of the anchors, so the graph that is best on the
counts need not be best on new prompts. Each parameter bends the counts, or the rule that reads them, in one way that
may help (:data:`PARAMETERS`). With the neutral values the constructor *is* greedy; with ``order_blind`` and
``parent_bonus`` at 1 it is the published rule (degree-1 accumulation over all parents).

What a trial does not change is computed once (:class:`Candidates`). A trial costs a few passes over arrays of some
thousand prefixes, and a loop over the chosen nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drafting.anchors import AnchorTable
from drafting.chains import ptr_of
from drafting.parents import ParentGraph, parent_graph
from drafting.replay import replay
from drafting.trie import PrefixTrie
from studies.construction import Construction, check_budget
from studies.greedy import greedy
from verify.formulas import Formula

MAX_STATES = 4000
_SMOOTHING_SCALE = 64.0  # pseudo-anchors at smoothing = 1


@dataclass(frozen=True)
class Parameter:
    """One continuous parameter: its range, the value that does nothing, and what it does."""

    name: str
    low: float
    high: float
    neutral: float
    says: str


PARAMETERS = (
    Parameter("smoothing", 0.0, 1.0, 0.0, "pseudo-anchors (64 * smoothing^2) that pull each count towards a model"),
    Parameter("markov", 0.0, 1.0, 0.5, "that model: 1 = next state given the state, 0 = product of rank probabilities"),
    Parameter("count_discount", 0.0, 1.5, 0.0, "anchors taken off every count and given to the model (Kneser-Ney)"),
    Parameter("depth_discount", 0.7, 1.1, 1.0, "factor on the weight of a prefix per state behind the first"),
    Parameter("position_exponent", -0.3, 0.3, 0.0, "exponent on the probability of the position ranks of a prefix"),
    Parameter("vocabulary_exponent", -0.3, 0.3, 0.0, "exponent on the probability of its vocabulary ranks"),
    Parameter("look_ahead", 0.0, 1.0, 0.0, "share of the best next prefix that counts for a node already"),
    Parameter("order_blind", 0.0, 1.0, 0.0, "0 = anchors that reach a node through the graph, 1 = in any order"),
    Parameter("parent_bonus", 0.0, 1.0, 0.0, "share of the weight of its parents that a node is credited with"),
    Parameter("visited", 0.0, 1.0, 0.0, "0 = all anchors alike, 1 = those that a decode with the greedy graph visits"),
    Parameter("domain_mix", 0.0, 1.0, 0.5, "weight of the first domain against the others; there with two domains"),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}

NEUTRAL: dict[str, float] = {parameter.name: parameter.neutral for parameter in PARAMETERS}
#: Parameter values that reproduce known rules or are a plain first guess: where a study starts.
WARM_STARTS: dict[str, dict[str, float]] = {
    "greedy": NEUTRAL,
    "published:degree1/all": {**NEUTRAL, "order_blind": 1.0, "parent_bonus": 1.0},
    "published:degree0": {**NEUTRAL, "order_blind": 1.0},
    "greedy, smoothed": {**NEUTRAL, "smoothing": 0.3, "count_discount": 0.5},
    "greedy on visited anchors": {**NEUTRAL, "visited": 1.0},
}


def check_parameters(parameters: Mapping[str, float]) -> dict[str, float]:
    """All parameters, those not given at their neutral value.

    Raises:
        ValueError: an unknown name, or a value that is no number in the range.
    """
    unknown = sorted(set(parameters) - set(_BY_NAME))
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)}; expected some of {', '.join(_BY_NAME)}")
    for name, value in parameters.items():
        known = _BY_NAME[name]
        if not known.low <= value <= known.high:
            raise ValueError(f"{name} must lie between {known.low:g} and {known.high:g}, got {value!r}")
    return {**NEUTRAL, **parameters}


@dataclass(frozen=True, eq=False)
class Candidates:
    """The states a graph may be made of, with everything that no trial changes. ``T`` prefixes, ``Q`` states.

    Attributes:
        trie: the prefixes, pruned to at most ``max_states`` states (more when too few are left by a tie).
        parents: which states can come before which.
        domains: names of the domains, one row of ``counts`` each.
        counts, visited_counts: float64 [domains, T], anchors whose chain begins with each prefix: of all anchors,
            and of those that a decode with the greedy graph visits (scaled to the same total).
        edge, edge_from: int64 [T], number of the pair (state before, state), and the state before.
        pair_node, pair_key: int64 [P], the pairs that each prefix adds to the one before, as rows of a table of
            (position rank among the positions left, vocabulary rank).
        size: int64 [T], how many pairs a prefix adds.
        log_position, log_vocabulary: float64 [T], log probabilities of all rank choices on the path.
        tie_rank: int64 [Q], states by size, then lexicographically: which of equal scores comes first.
    """

    trie: PrefixTrie
    parents: ParentGraph
    domains: tuple[str, ...]
    counts: np.ndarray
    visited_counts: np.ndarray
    edge: np.ndarray
    edge_from: np.ndarray
    pair_node: np.ndarray
    pair_key: np.ndarray
    size: np.ndarray
    log_position: np.ndarray
    log_vocabulary: np.ndarray
    tie_rank: np.ndarray

    @classmethod
    def from_anchors(
        cls,
        anchors: AnchorTable,
        budget: int,
        step_size: int | None,
        domains: Mapping[int, str] | None = None,
        *,
        reference_budget: int | None = None,
        max_states: int = MAX_STATES,
    ) -> Candidates:
        """Prepare for graphs of up to ``budget`` nodes.

        Args:
            anchors: of the prompts that graphs are built from.
            budget: the largest budget asked for.
            step_size: pairs per denoising step, None when it varies.
            domains: domain of each prompt; None: all of one domain.
            reference_budget: of the greedy graph whose visits ``visited`` means; by default ``budget``.
            max_states: keep the states that at least n anchors reach, with n as small as this allows.

        Raises:
            ValueError: no anchors, or a prompt without a domain.
        """
        check_budget(budget)
        if not anchors.n_anchors:
            raise ValueError("no anchor at all (every block was complete after one step): there is nothing to draft")
        full = PrefixTrie.from_anchors(anchors, max_depth=max(budget, 1))
        trie = full.prune(_least_count(full, max_states, budget))
        names, row = _domain_rows(anchors, domains)
        counts = np.stack([_counts(trie, row == d) for d in range(len(names))])
        visits = replay(greedy(full, reference_budget or budget).order, anchors).visited
        visited = np.stack([_counts(trie, (row == d) & visits) for d in range(len(names))])
        visited *= anchors.n_anchors / visits.sum()
        state = trie.state.astype(np.int64)
        edge_from = np.concatenate([[0], state[trie.parent[1:]]])
        _, edge = np.unique(edge_from * trie.n_states + state, return_inverse=True)
        formulas = trie.formulas(range(trie.n_states))
        by_tie = sorted(range(trie.n_states), key=lambda q: (len(formulas[q]), formulas[q]))
        pair_node, relative, vocabulary = _added_pairs(trie, formulas)
        width = int(vocabulary.max(initial=1))
        weights = trie.count.astype(np.float64)[pair_node]
        position_share = _share(relative, weights)
        vocabulary_share = _share(vocabulary, weights)
        return cls(
            trie=trie,
            parents=parent_graph(trie, step_size),
            domains=names,
            counts=counts,
            visited_counts=visited,
            edge=edge,
            edge_from=edge_from,
            pair_node=pair_node,
            pair_key=(relative - 1) * width + vocabulary - 1,
            size=np.bincount(pair_node, minlength=trie.n_nodes),
            log_position=_along_path(trie, pair_node, np.log(position_share)),
            log_vocabulary=_along_path(trie, pair_node, np.log(vocabulary_share)),
            tie_rank=np.argsort(by_tie),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that have an effect here."""
        return tuple(name for name in _BY_NAME if name != "domain_mix" or len(self.domains) > 1)


def parametric(candidates: Candidates, parameters: Mapping[str, float], budget: int) -> Construction:
    """Build the graph of ``parameters`` (see :data:`PARAMETERS`); those not given are neutral.

    Returns:
        A :class:`Construction` "parametric"; gains are scores, in anchors after all weighting. Incomplete when no
        candidate scores above 0.

    Raises:
        ValueError: as :func:`check_parameters`; a negative budget.
    """
    check_budget(budget)
    order, gains = parametric_order(candidates, parameters, budget)
    formulas = tuple(candidates.trie.formulas(order))
    return Construction("parametric", formulas, tuple(gains), complete=len(order) == budget)


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
        given = np.maximum(count[1:] - discount, 0) + (extra + discount * brothers) * model
        below = count[above] + extra
        step = np.divide(given, below, out=np.zeros_like(given), where=below > 0)
        weight = count.copy()
        for depth in range(1, trie.max_depth + 1):
            level = slice(trie.level_ptr[depth], trie.level_ptr[depth + 1])
            weight[level] = weight[trie.parent[level]] * step[level.start - 1 : level.stop - 1]
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


class _Selection:
    """Best score first, with the scores kept up to date; the same bookkeeping as in ``studies.greedy``.

    ``worth[t]`` is the weight that prefix ``t`` would bring if its parent counted and its state were chosen; the gain
    of a state sums it over its prefixes whose parent counts. ``ahead`` sums the best next prefix in the same way.
    """

    def __init__(self, candidates: Candidates, weight: np.ndarray, chosen: Mapping[str, float]) -> None:
        trie = candidates.trie
        self.trie, self.parents, self.tie_rank = trie, candidates.parents, candidates.tie_rank
        self.path_share, self.look = 1 - chosen["order_blind"], chosen["look_ahead"]
        self.worth = weight.copy()
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
        self.gain, self.ahead = np.zeros(trie.n_states), np.zeros(trie.n_states)
        self.chosen, self.open = np.zeros(trie.n_states, dtype=bool), np.zeros(trie.n_states, dtype=bool)
        self.alive = np.zeros(trie.n_nodes, dtype=bool)
        self.chosen[0] = True
        self._enliven(np.zeros(1, dtype=np.int64))
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
            self._add(state)
        return order, gains

    def _add(self, state: int) -> None:
        ptr, nodes = self.trie.nodes_by_state
        here = nodes[ptr[state] : ptr[state + 1]]
        reached = self.alive[self.trie.parent[here]]
        self.chosen[state], self.open[state] = True, False
        children = self.parents.children_of(state)
        self.open[children[~self.chosen[children]]] = True
        self._pass_up(here[~reached])
        self._enliven(here[reached])

    def _pass_up(self, nodes: np.ndarray) -> None:
        """Prefixes that wait for one before them: their worth goes to whatever would free them."""
        trie, worth = self.trie, self.worth[nodes]
        above = trie.parent[nodes]
        while len(above):
            np.add.at(self.worth, above, worth)
            frees = self.chosen[trie.state[above]]
            waits = ~frees & self.alive[trie.parent[above]]
            np.add.at(self.gain, trie.state[above[waits]], worth[waits])
            above, worth = trie.parent[above[frees]], worth[frees]

    def _enliven(self, nodes: np.ndarray) -> None:
        trie = self.trie
        while len(nodes):
            self.alive[nodes] = True
            starts = trie.child_ptr[nodes]
            lengths = trie.child_ptr[nodes + 1] - starts
            children = np.repeat(starts - ptr_of(lengths)[:-1], lengths) + np.arange(int(lengths.sum()))
            reached = self.chosen[trie.state[children]]
            waiting = children[~reached]
            np.add.at(self.gain, trie.state[waiting], self.worth[waiting])
            np.add.at(self.ahead, trie.state[waiting], self.best_child[waiting])
            nodes = children[reached]


def _least_count(trie: PrefixTrie, max_states: int, budget: int) -> float:
    """The smallest number of anchors that at most ``max_states`` states are reached by.

    When that leaves fewer than eight states per draft node, the ties are kept too.
    """
    counts = np.sort(trie.state_count[1:])[::-1]
    if len(counts) <= max_states:
        return 0.0
    tie = counts[max_states]
    return float(tie if np.count_nonzero(counts > tie) < 8 * budget else np.nextafter(tie, np.inf))


def _counts(trie: PrefixTrie, chosen: np.ndarray) -> np.ndarray:
    """Prefix counts over the anchors ``chosen`` (bool [A])."""
    leaves = np.bincount(trie.leaf[chosen], minlength=trie.n_nodes)
    return trie.count_from_leaves(leaves).astype(np.float64)


def _domain_rows(anchors: AnchorTable, domains: Mapping[int, str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the domains of the anchors, ascending, and the number of each anchor's."""
    if domains is None:
        return ("",), np.zeros(anchors.n_anchors, dtype=np.int64)
    samples, row = np.unique(anchors.sample, return_inverse=True)
    missing = [sample for sample in samples.tolist() if sample not in domains]
    if missing:
        raise ValueError(f"no domain is known for {len(missing)} prompts, first prompt {missing[0]}")
    names = tuple(sorted({domains[sample] for sample in samples.tolist()}))
    return names, np.array([names.index(domains[sample]) for sample in samples.tolist()])[row]


def _added_pairs(trie: PrefixTrie, formulas: Sequence[Formula]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs every prefix adds: (prefix, position rank among the positions still left, vocabulary rank)."""
    added: dict[tuple[int, int], Sequence[tuple[int, int]]] = {}
    node, relative, vocabulary = [], [], []
    before_all, after_all = trie.state[trie.parent].tolist(), trie.state.tolist()
    for t in range(1, trie.n_nodes):
        key = (before_all[t], after_all[t])
        if key not in added:
            before = formulas[key[0]]
            new = set(formulas[key[1]]) - set(before)
            added[key] = [(i - sum(k < i for k, _ in before), j) for i, j in sorted(new)]
        for i, j in added[key]:
            node.append(t)
            relative.append(i)
            vocabulary.append(j)
    return np.array(node, dtype=np.int64), np.array(relative, dtype=np.int64), np.array(vocabulary, dtype=np.int64)


def _share(rank: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the weight that goes to each entry's rank."""
    if not len(rank):
        return np.zeros(0)
    sums = np.bincount(rank, weights=weights)
    return sums[rank] / max(sums.sum(), 1e-300)


def _along_path(trie: PrefixTrie, node: np.ndarray, value: np.ndarray) -> np.ndarray:
    """float64 [T]: values summed over each prefix and those before it."""
    sums = np.bincount(node, weights=value, minlength=trie.n_nodes)
    for depth in range(1, trie.max_depth + 1):
        level = slice(trie.level_ptr[depth], trie.level_ptr[depth + 1])
        sums[level] += sums[trie.parent[level]]
    return sums
