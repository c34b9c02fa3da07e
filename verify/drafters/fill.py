"""The rows of a proposal, and who gets those that the chain leaves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verify.drafters.chain import Place, Predictor, Step
from verify.drafters.contract import Evidence, Proposal
from verify.drafters.settings import InformedSettings
from verify.drafts import DraftFiller
from verify.policies.contract import Policy
from verify.ranked import AnchorRanks


class Rows:
    """The rows of one proposal: distinct states that are not known yet, ``limit`` at most, and a copy beside them."""

    def __init__(self, evidence: Evidence, limit: int, bridges: bool = True) -> None:
        self._length, self._limit = len(evidence.block), limit
        self._held = evidence.ahead if evidence.copies and bridges else None
        self._taken = {evidence.block.tobytes()}
        self._drafts: list[np.ndarray] = []
        self._bridges: list[tuple[np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._taken) - 1

    @property
    def left(self) -> int:
        """Rows that are free."""
        return self._limit - len(self)

    @property
    def copy_open(self) -> bool:
        """Whether a copy may still be taken: there is one at most, and no bridge beside it."""
        return self._held is not None and not self._bridges

    def is_copy(self, complete: np.ndarray | None) -> bool:
        """Whether a bridge behind ``complete`` (int64 [L]; None: no bridge) is a copy: none of that block is held."""
        return complete is not None and self._held is not None and complete.tobytes() not in self._held

    def add(self, state: np.ndarray, complete: np.ndarray | None) -> None:
        """Take a draft ``state``, or a bridge to it behind the block ``complete``; nothing where it was taken."""
        key = state.tobytes() if complete is None else complete.tobytes() + state.tobytes()
        if key in self._taken:
            return
        self._taken.add(key)
        if self.is_copy(complete):
            self._limit += 1
        if complete is None:
            self._drafts.append(state)
        else:
            self._bridges.append((complete, state))

    def proposal(self) -> Proposal:
        return Proposal.of(np.array(self._drafts, dtype=np.int64).reshape(-1, self._length), self._bridges)


class Alternatives:
    """The nearest other choices of the steps of a chain."""

    def __init__(self, policy: Policy, settings: InformedSettings) -> None:
        self._policy, self._settings = policy, settings
        self._steps: list[Step] = []

    def note(self, step: Step) -> None:
        """Remember a ``step``; what else it could have been is only worked out when rows are left."""
        if step.place.complete is None or self._settings.beyond:
            self._steps.append(step)

    def _of(self, step: Step) -> Iterator[tuple[float, Step, np.ndarray]]:
        """The nearest other choices of a ``step``, each with its gap.

        Where every step commits the same count, the last one is swapped for the next best ones. Else more are taken,
        or fewer; how near that was is the distance of the log-odds to the threshold, or to the last one taken.
        """
        assert step.place.outlook is not None
        order, count, odds = step.order, len(step.chosen), step.place.outlook.odds
        last = odds[order[count - 1]]
        width = self._settings.width
        if self._policy.step_size is not None:
            for swapped in range(count, min(count + width, len(order))):
                yield last - odds[order[swapped]], step, order[[*range(count - 1), swapped]]
            return
        tau = getattr(self._policy, "tau", 1.0)
        edge = np.log(tau) - np.log1p(-tau) if tau < 1 else last
        for more in range(count, min(count + width, len(order))):
            yield abs(edge - odds[order[more]]), step, order[: more + 1]
        for fewer in range(count - 1, max(0, count - 1 - width), -1):
            yield abs(odds[order[fewer]] - edge), step, order[:fewer]

    def fill(self, rows: Rows, predictor: Predictor) -> None:
        """Give what is left of ``rows`` to the alternatives, the nearest first."""
        if rows.left <= 0:
            return
        follow = self._settings.follow
        noted = [found for step in self._steps for found in self._of(step)]
        for _, step, chosen in sorted(noted, key=lambda found: found[0]):
            if rows.left <= 0:
                return
            assert step.place.outlook is not None
            place = predictor.reach(step, chosen, step.place.outlook.token[chosen])
            crossed = place is not None and place.complete is not step.place.complete
            if crossed and predictor.copies:
                continue  # one copy is held: that of the likeliest end
            if crossed and place is not None and place.memory is not None and place.known is None:
                continue  # the block was seen to end so; a policy that reads logits has forgotten what came then
            if place is not None and place.known is None:
                rows.add(place.state, place.complete)
            further = 0
            while place is not None and further < follow and rows.left > 0:
                then = predictor.step(place)
                place = predictor.reach(then, then.chosen, then.tokens) if then is not None else None
                if place is not None and predictor.copies and place.complete is not step.place.complete:
                    break
                if place is not None and place.known is None:
                    rows.add(place.state, place.complete)
                    further += 1


class GraphNodes:
    """The nodes of a calibrated graph, rooted at the anchor and at the known states that the chain went through.

    A graph is read as it was calibrated, by the ranks of the distribution that produced its root. At the anchor that is
    the newest one; and where the chain went through a known state, its own distribution and the successor, which it
    names exactly, are such a pair.
    """

    def __init__(self, filler: DraftFiller, evidence: Evidence, predictor: Predictor) -> None:
        self._filler, self._predictor, self._mask = filler, predictor, evidence.mask_token_id
        self._roots = [(evidence.base, predictor.start)]

    def note(self, step: Step, reached: Place | None) -> None:
        """Root the graph at what a ``step`` from a known state ``reached``."""
        known = step.place.known
        if known is not None and reached is not None and reached.complete is step.place.complete:
            self._roots.append((known, reached))

    def fill(self, rows: Rows, count: int) -> None:
        """Give up to ``count`` of the free rows to nodes: the first of every root, the anchor's first, then the second.

        Nodes that are known already are passed over. Those that complete the block become bridges where the cache mode
        has them, else they are left out, and so are those that complete the next block.
        """
        target = len(rows) + min(count, rows.left)
        if len(rows) >= target:
            return
        found: list[tuple[int, int, np.ndarray]] = []
        for number, (base, place) in enumerate(self._roots):
            positions = base.ranked.position_order(base.index, place.masked)
            ranks = AnchorRanks(positions, base.ranked.top_token[base.index, positions])
            drafts, nodes = self._filler.fill(place.state, ranks, complete=place.complete is None)
            found += [(node, number, draft) for node, draft in zip(nodes.tolist(), drafts, strict=True)]
        for _, number, state in sorted(found, key=lambda one: one[:2]):
            place = self._roots[number][1]
            memory, complete = place.memory, place.complete
            if complete is None and not (state == self._mask).any():
                first = None if self._predictor.copies else self._predictor.behind(state)
                if first is None:
                    continue
                complete, (state, memory, _) = state, first
            if memory is None or memory.find(state) is None:
                rows.add(state, complete)
                if len(rows) >= target:
                    return
