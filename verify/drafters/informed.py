"""Drafts by prediction: the chain of states that the policy will probably reach, from what the block has shown so far.

Nothing needs to be calibrated. Every evaluated state, accepted or not, teaches how commits move the rest of the block
(``verify.drafters.influence``). From the newest distribution the next states are predicted one after the other, by the
policy itself on the predicted confidences; states that are known already are walked through for free, with their real
distributions (``verify.drafters.chain``). When the chain ends (the block would be complete), the rows left go to the
alternatives that came nearest to being chosen (``verify.drafters.fill``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from verify.drafters.chain import Place, Predictor
from verify.drafters.contract import Evidence, Proposal
from verify.drafters.fill import Alternatives, GraphNodes, Rows
from verify.drafters.influence import Influences
from verify.drafters.settings import InformedSettings
from verify.drafts import DraftFiller
from verify.policies.contract import Policy
from verify.ranked import RankedBlocks

#: Pairs in a learned set at most; a rule that commits one pair a step needs no larger ones.
LARGEST_SET = 4
DEFAULTS = InformedSettings()


class InformedDrafter:
    """Proposes up to ``drafts`` predicted states at every anchor.

    Args:
        drafts: drafts per forward at most, ``D``; a bridge counts as one of them, but for a copy.
        settings: what can be tuned.
        graph: draft formulas of a calibrated graph, root left out, best first, or a prepared filler; read where the
            settings give rows to a graph.

    Raises:
        ValueError: a negative number of drafts, settings that give rows to a graph without one, or formulas that
            :class:`verify.drafts.DraftFiller` refuses.
    """

    def __init__(
        self,
        drafts: int,
        settings: InformedSettings = DEFAULTS,
        graph: DraftFiller | Iterable[Sequence[Sequence[int]]] = (),
    ) -> None:
        if isinstance(drafts, bool) or not isinstance(drafts, int) or drafts < 0:
            raise ValueError(f"drafts is {drafts!r}, expected a whole number of at least 0")
        filler = graph if isinstance(graph, DraftFiller) else DraftFiller(graph)
        if settings.uses_graph and not len(filler):
            raise ValueError(
                f"the settings give rows to a graph (fill {settings.fill!r}, hedges {settings.hedges}), but there is "
                "none; give its draft formulas, best first"
            )
        self.settings, self._drafts = settings, drafts
        self._filler = filler if settings.uses_graph else None

    @property
    def max_drafts(self) -> int:
        return self._drafts

    @property
    def max_bridges(self) -> int:
        return self._drafts if self.settings.bridges else 0

    @property
    def copies(self) -> bool:
        return self.settings.bridges and self.settings.copies

    @property
    def max_vocabulary_rank(self) -> int:
        return self._filler.max_vocabulary_rank if self._filler is not None else 1

    def describe(self) -> dict[str, Any]:
        formulas = self._filler.formulas if self._filler is not None else ()
        graph = [[list(pair) for pair in formula] for formula in formulas]
        return {"drafter": "informed", "drafts": self._drafts, **asdict(self.settings), "formulas": graph}

    def for_sequence(self) -> _Informed:
        return _Informed(self._drafts, self.settings, self._filler)


class _Informed:
    """See :class:`InformedDrafter`; one sequence."""

    remembers = True

    def __init__(self, drafts: int, settings: InformedSettings, filler: DraftFiller | None) -> None:
        self._drafts, self._settings, self._filler = drafts, settings, filler
        self._influences = Influences(coefficient=settings.coefficient)

    def start_block(self) -> None:
        self._influences.forget()

    def learn(self, states: np.ndarray, ranked: RankedBlocks, policy: Policy, mask_token_id: int) -> None:
        self._influences.learn(states, ranked, 1 if policy.step_size == 1 else LARGEST_SET, mask_token_id)

    def propose(self, evidence: Evidence) -> Proposal:
        settings, drafts = self._settings, self._drafts
        rows = Rows(evidence, drafts, settings.bridges)
        predictor = Predictor(evidence, self._influences, settings.bridges)
        alternatives = Alternatives(evidence.policy, settings)
        nodes = GraphNodes(self._filler, evidence, predictor) if self._filler is not None else None
        chain = _Chain(predictor, rows, alternatives, nodes)
        horizon = drafts if settings.horizon is None else min(drafts, settings.horizon)
        chain.grow(min(horizon, drafts - settings.hedges))
        if nodes is not None and settings.hedges:
            nodes.fill(rows, settings.hedges)
            chain.grow(horizon)
        for part in settings.fill.split("+"):
            if part == "alternatives":
                alternatives.fill(rows, predictor)
            elif part == "graph" and nodes is not None:
                nodes.fill(rows, drafts)
        return rows.proposal()


class _Chain:
    """The predicted next states from the anchor on, into ``rows``."""

    def __init__(self, predictor: Predictor, rows: Rows, alternatives: Alternatives, nodes: GraphNodes | None) -> None:
        self._predictor, self._rows, self._alternatives, self._nodes = predictor, rows, alternatives, nodes
        self._place: Place | None = predictor.start
        self._count = 0

    def grow(self, count: int) -> None:
        """Go on until the chain has proposed ``count`` states, it is at its end, or no row is free.

        A copy is paid as the refresh that it saves, so one that comes next is taken beyond that.
        """
        rows, predictor = self._rows, self._predictor
        while self._place is not None:
            room = self._count < count and rows.left > 0
            if not room and not rows.copy_open:
                return
            step = predictor.step(self._place)
            place = predictor.reach(step, step.chosen, step.tokens) if step is not None else None
            if not room and place is not None and place.known is None and not rows.is_copy(place.complete):
                return
            if step is not None:
                self._alternatives.note(step)
                if self._nodes is not None:
                    self._nodes.note(step, place)
            if place is not None and place.known is None:
                rows.add(place.state, place.complete)
                self._count += 1
            self._place = place
