"""What the trials of a study share: the states a graph may be made of, counted and measured once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drafting.anchors import AnchorTable
from drafting.parametric.parameters import PARAMETERS
from drafting.parents import ParentGraph, parent_graph
from drafting.replay import walk
from drafting.searches.greedy import greedy
from drafting.searches.result import check_budget
from drafting.trie import PrefixTrie
from verify.graph.formulas import Formula

MAX_STATES = 4000


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
        _, visits = walk(greedy(full, reference_budget or budget).nodes, anchors)
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
        every = (parameter.name for parameter in PARAMETERS)
        return tuple(name for name in every if name != "domain_mix" or len(self.domains) > 1)


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
    prompt_indices, row = np.unique(anchors.prompt_index, return_inverse=True)
    missing = [prompt_index for prompt_index in prompt_indices.tolist() if prompt_index not in domains]
    if missing:
        raise ValueError(f"no domain is known for {len(missing)} prompts, first prompt {missing[0]}")
    names = tuple(sorted({domains[prompt_index] for prompt_index in prompt_indices.tolist()}))
    return names, np.array([names.index(domains[prompt_index]) for prompt_index in prompt_indices.tolist()])[row]


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
    return trie.carry_down(sums, np.add)
