"""The drafts of a calibrated graph: formulas filled from the ranks at the anchor, without any memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from verify.drafters.contract import Evidence, Proposal
from verify.drafts import DraftFiller
from verify.policies.contract import Policy
from verify.ranked import LaggedRanker, RankedBlocks, Ranker


class GraphDrafter:
    """Drafts by the formulas of a graph (the published method); an empty graph is plain decoding.

    What it proposes depends on the newest distribution alone, so the same object serves every sequence, and a replay of
    plain traces predicts every forward.

    Args:
        graph: draft formulas, root left out, or a prepared filler.
        ranker: where ranks come from; the lagged distribution when left out.
    """

    remembers = False
    max_bridges = 0
    copies = False

    def __init__(
        self, graph: DraftFiller | Iterable[Sequence[Sequence[int]]] = (), ranker: Ranker | None = None
    ) -> None:
        self.filler = graph if isinstance(graph, DraftFiller) else DraftFiller(graph)
        self.ranker = ranker or LaggedRanker()

    @property
    def max_drafts(self) -> int:
        return len(self.filler)

    @property
    def max_vocabulary_rank(self) -> int:
        return self.filler.max_vocabulary_rank

    def describe(self) -> dict[str, Any]:
        formulas = [[list(pair) for pair in formula] for formula in self.filler.formulas]
        return {"drafter": "graph", "rank_origin": self.ranker.origin, "formulas": formulas}

    def for_sequence(self) -> GraphDrafter:
        return self

    def start_block(self) -> None:
        """Nothing is kept from state to state, so nothing is forgotten."""

    def learn(self, states: np.ndarray, ranked: RankedBlocks, policy: Policy, mask_token_id: int) -> None:
        """Nothing is learned."""

    def propose(self, evidence: Evidence) -> Proposal:
        """The filled formulas; those that would complete the block are left out."""
        if not len(self.filler):
            return Proposal.of(evidence.block[:0].reshape(0, len(evidence.block)))
        base = evidence.base
        drafts, _ = self.filler.fill(evidence.block, self.ranker.rank(base.ranked, base.index, evidence.masked))
        return Proposal.of(drafts)
