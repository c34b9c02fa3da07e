"""Dynamic pruning: of a large draft graph, the few nodes that look best under the newest distribution.

The structure of the large graph is calibrated; which of its nodes are paid for is decided anew at every anchor.
Numpy only, and for many anchors at once, so that a runtime (one anchor) and a replay (all of them) run the same code.

Source: arXiv 2509.18085, version 4, dynamic pruning. A draft's *local score* is the geometric mean of the probabilities
of its tokens under the distribution that fills it; of ``D`` nodes the ``D*`` with the best scores are kept. We know
that section from a public summary of the accepted version (papernotes.org) and not word for word. What the summary
leaves open is decided here:

* **The score.** The summary says that a node's local score is combined with its children's by another geometric mean,
  and not how. ``own`` is the local score alone. In the others a child is a node that follows in one denoising step and
  can be filled here, it counts with its own combined score (so descendants count too), and a node without one keeps its
  local score. ``mean_child`` is the geometric mean of the local score and of the children's geometric mean;
  ``best_child`` that of the local score and of the best child's; ``pooled`` that of the local score and of all
  children's, each counted alike.
* **The parents.** A kept node without a kept parent could never be accepted. Nodes are taken best first, and only those
  that follow the root or a kept node in one denoising step, so that every kept set is a draft graph. Under a rule
  without a step size every node can follow the root at once, and the condition says nothing.
* **Ties.** Of equal scores the node that stands earlier in the graph's order is kept.
* **Rounding.** Probabilities are rounded to float32, because traces store them so; logarithms and means are float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np

from verify.graph.buffers import FillLimits, pad_formulas
from verify.graph.formulas import ROOT, Formula, format_formula, formula
from verify.graph.structure import followers, members

Score = Literal["own", "mean_child", "best_child", "pooled"]

#: Stands for a probability that float32 rounds to 0, so that every logarithm is finite.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).smallest_subnormal)


class GraphPruner:
    """Chooses ``keep`` nodes of a draft graph at an anchor.

    Args:
        formulas: the draft nodes of the large graph, root left out; their order breaks ties.
        keep: ``D*``, the most nodes that are kept.
        step_size: pairs that one denoising step adds, None when it varies.
        score: see above.

    Attributes:
        formulas: the nodes in their canonical form, in the order given.
        max_vocabulary_rank: the highest vocabulary rank that a node names, 1 without nodes.

    Raises:
        FormulaError: a node that is no formula.
        ValueError: a negative ``keep``, a step size below 1, an unknown score, the root among the nodes, a node twice,
            or one without a path from the root.
    """

    def __init__(
        self, formulas: Iterable[Sequence[Sequence[int]]], keep: int, step_size: int | None, score: Score = "own"
    ) -> None:
        self.formulas: tuple[Formula, ...] = tuple(formula(value) for value in formulas)
        if keep < 0:
            raise ValueError(f"keep is a number of draft nodes, at least 0, got {keep}")
        if step_size is not None and step_size < 1:
            raise ValueError(f"step_size must be at least 1 or None, got {step_size}")
        if score not in get_args(Score):
            raise ValueError(f"score must be one of {', '.join(get_args(Score))}, got {score!r}")
        if len({ROOT, *self.formulas}) != len(self.formulas) + 1:
            raise ValueError("the draft nodes must be distinct, and the root (the empty formula) is none of them")
        self.keep, self.score = keep, score
        pairs, lengths = pad_formulas(self.formulas)
        self._limits = FillLimits.of(self.formulas)
        self.max_vocabulary_rank = int(self._limits.vocabulary_rank.max(initial=1))
        self._pairs, self._size = pairs.astype(np.int64) - 1, lengths.astype(np.int64)
        following = [list(members(bits)) for bits in followers((ROOT, *self.formulas), step_size)]
        self._first = np.zeros(len(self.formulas), dtype=bool)
        self._first[[node - 1 for node in following[0]]] = True
        self._children = np.zeros((len(self.formulas), len(self.formulas)), dtype=bool)
        for parent, nodes in enumerate(following[1:]):
            self._children[parent, [node - 1 for node in nodes]] = True
        self._check_paths(step_size)

    def _check_paths(self, step_size: int | None) -> None:
        reached = self._first.copy()
        for node in np.argsort(self._size, kind="stable"):  # a parent is always smaller
            if reached[node]:
                reached |= self._children[node]
        if not reached.all():
            step = "any number of pairs" if step_size is None else f"{step_size} pairs"
            lost = self.formulas[int(np.argmin(reached))]
            raise ValueError(
                f"node {format_formula(lost)} has no path from the root by steps of {step}; add the states "
                "before it or leave it out"
            )

    def kept(self, probability: np.ndarray, start: np.ndarray, masked: np.ndarray) -> np.ndarray:
        """The nodes kept at each of ``A`` anchors.

        Args:
            probability: float [N, J] of the vocabulary ranks at the positions masked at the anchors, in position-rank
                order; rounded to float32 here.
            start: int [A], the row of ``probability`` that is position rank 1 of an anchor.
            masked: int [A], masked positions, and so rows, of an anchor.

        Returns:
            bool [A, D], at most ``keep`` of a row. What is kept depends on the anchor's own rows alone, not on the
            other anchors.

        Complexity: O(A * D * (S + keep)) for formulas of up to ``S`` pairs, and O(A) more per edge where
        children count.
        """
        usable = self._limits.usable(masked[:, None], probability.shape[1])
        return self._choose(self._scores(probability, start, usable), usable)

    def _scores(self, probability: np.ndarray, start: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """float64 [A, D], logarithms of the scores; -inf where a node is not usable.

        Sums run in one fixed order (no matrix products), so that one anchor gets the same bits alone and among many.
        """
        rounded = probability.astype(np.float32).astype(np.float64)
        logarithm = np.log(np.maximum(rounded, SMALLEST_PROBABILITY))
        total = np.zeros(usable.shape)
        for pair in range(self._pairs.shape[1]):
            named = usable & (pair < self._size)
            rows = np.where(named, start[:, None] + self._pairs[:, pair, 0], 0)
            columns = np.where(named, self._pairs[:, pair, 1], 0)
            total += np.where(named, logarithm[rows, columns], 0.0)
        score = np.where(usable, total / self._size, -np.inf)
        if self.score != "own":
            for node in np.argsort(-self._size, kind="stable"):  # children first
                children = np.flatnonzero(self._children[node])
                if len(children):
                    self._add_children(score, node, children, usable)
        return score

    def _add_children(self, score: np.ndarray, node: int, children: np.ndarray, usable: np.ndarray) -> None:
        """Combine the score of ``node``, in place, with those of its usable children."""
        there = usable[:, children]
        some = there.any(axis=1)
        count, of_children = there[some].sum(axis=1), score[np.ix_(some, children)]
        if self.score == "best_child":
            score[some, node] = (score[some, node] + of_children.max(axis=1)) / 2
            return
        # Not sum(): how it adds up depends on the number of anchors.
        summed = np.cumsum(np.where(there[some], of_children, 0.0), axis=1)[:, -1]
        if self.score == "pooled":
            score[some, node] = (score[some, node] + summed) / (1 + count)
        else:
            score[some, node] = (score[some, node] + summed / count) / 2

    def _choose(self, score: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """The best first, among the usable nodes with a kept parent or the root as parent: bool [A, D]."""
        kept = np.zeros_like(usable)
        if not len(self.formulas):
            return kept
        offered = usable & self._first
        for _ in range(self.keep):
            best = np.where(offered, score, -np.inf).argmax(axis=1)  # the first of equal ones
            rows = np.flatnonzero(offered[np.arange(len(best)), best])
            if not len(rows):
                break
            taken = best[rows]
            kept[rows, taken] = True
            offered[rows] |= self._children[taken] & usable[rows]
            offered &= ~kept
        return kept
