"""The drafts of a large calibrated graph, pruned at every anchor to those that look best there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from verify.drafters.contract import Evidence, Proposal
from verify.drafters.graph import GraphDrafter
from verify.graph.pruning import GraphPruner, Score


class PrunedGraphDrafter(GraphDrafter):
    """Proposes ``keep`` drafts of a graph with more nodes, chosen by the probabilities of their tokens.

    The published dynamic pruning; ``verify.graph.pruning`` says how its rule is read. It has no memory and no bridges,
    so ``drafting.pruned_replay`` predicts its forwards from plain traces.

    Args:
        formulas: the draft nodes of the large graph, root left out; their order breaks ties.
        keep: ``D*``, the most drafts at an anchor.
        step_size: pairs that one denoising step of the policy adds (``verify.policies.specification.step_sizes``), None
            when it varies. It says which node is a parent of which.
        score: how nodes are scored (``verify.graph.pruning``).

    Raises:
        ValueError: as :class:`~verify.graph.pruning.GraphPruner`.
    """

    def __init__(
        self, formulas: Iterable[Sequence[Sequence[int]]], keep: int, step_size: int | None, score: Score = "own"
    ) -> None:
        self.pruner = GraphPruner(formulas, keep, step_size, score)
        self._rule = {"drafter": "pruned", "keep": keep, "step_size": step_size, "score": score}
        super().__init__(self.pruner.formulas)

    @property
    def max_drafts(self) -> int:
        return min(self.pruner.keep, len(self.filler))

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **self._rule}

    def for_sequence(self) -> PrunedGraphDrafter:
        return self

    def propose(self, evidence: Evidence) -> Proposal:
        """The kept nodes, filled, in the order of the graph."""
        base = evidence.base
        ranks = self.ranker.rank(base.ranked, base.index, evidence.masked)
        drafts, usable = self.filler.fill(evidence.block, ranks)
        probability = base.ranked.top_probability[base.index, ranks.positions]
        kept = self.pruner.kept(probability, np.zeros(1, dtype=np.int64), np.array([len(probability)]))
        return Proposal.of(drafts[kept[0, usable]])
