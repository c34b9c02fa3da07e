"""Filling a draft graph: from ranks to the states that one forward evaluates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from verify.graph.buffers import FillLimits
from verify.graph.formulas import Formula, formula
from verify.ranked import AnchorRanks


class DraftFiller:
    """The formulas of a graph as padded arrays, filled at every anchor.

    Args:
        formulas: draft formulas, root left out; any order, their pairs too: every formula is brought into its canonical
            form (ascending in ``i``).

    Attributes:
        formulas: the canonical formulas, in the order given; indices that :meth:`fill` returns point into them.
        max_vocabulary_rank: the highest ``j`` that any formula names, 1 when there is none.

    Raises:
        FormulaError: a rank that is no integer of at least 1, or a position rank twice in one formula.
        ValueError: a pair that is not two numbers, the root among the formulas, or one formula twice.
    """

    def __init__(self, formulas: Iterable[Sequence[Sequence[int]]]) -> None:
        self.formulas: tuple[Formula, ...] = tuple(formula(f) for f in formulas)
        if () in self.formulas:
            raise ValueError("the root (the empty formula) is the real block and must not be among the drafts")
        if len(set(self.formulas)) != len(self.formulas):
            raise ValueError("a formula stands twice among the drafts")
        sizes = [len(f) for f in self.formulas]
        self._limits = FillLimits.of(self.formulas)
        self._draft = np.repeat(np.arange(len(sizes)), sizes)
        pairs = np.array([pair for f in self.formulas for pair in f], dtype=np.int64).reshape(-1, 2)
        self._position_rank, self._vocabulary_rank = pairs[:, 0], pairs[:, 1]
        self.max_vocabulary_rank = int(self._vocabulary_rank.max(initial=1))

    def __len__(self) -> int:
        return len(self.formulas)

    def fill(self, block: np.ndarray, ranks: AnchorRanks, complete: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The draft blocks worth evaluating at this anchor: of the formulas that are usable here.

        Args:
            block: int64 [L], the state ``X``.
            ranks: the anchor's ranks over the ``m`` masked positions of ``X``.
            complete: also those that complete the block.

        Returns:
            int64 [D', L] draft blocks and int64 [D'] their indices in ``formulas``.
        """
        masked, depth = ranks.tokens.shape
        usable = self._limits.usable(masked, depth, complete)
        chosen = np.flatnonzero(usable)
        states = np.repeat(block[None], len(chosen), axis=0)
        keep = usable[self._draft]
        row = (np.cumsum(usable) - 1)[self._draft[keep]]
        i, j = self._position_rank[keep] - 1, self._vocabulary_rank[keep] - 1
        states[row, ranks.positions[i]] = ranks.tokens[i, j]
        return states, chosen
