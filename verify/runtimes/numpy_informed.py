"""Informed drafts in numpy: what a block teaches while it is solved, for servers without this project.

This file is meant to be copied: it imports numpy and nothing of this project. It proposes what
``verify.drafters.informed`` proposes with its default settings inside a block (docs/method.md, "Informed drafts"):
no bridges, no graph beside. All that it reads of a distribution is the best token and its probability at every masked
position, as ``rank(..., top_j=1)`` of the runtime core gives them, so a server on a GPU sends ``2 L`` numbers a row.

Per sequence, for every forward, the block's first one (the refresh) included::

    drafter = Informed(drafts=10, mask_token=mask_token, least=1)    # static:1
    drafter.start_block()
    state = drafter.advance(states, tokens, confidence)              # states[0] is the state the forward was run for
    states = [state, *drafter.propose()]                             # of the next forward, while state holds masks
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Log-odds are cut to this: beyond it float64 does not tell a probability from 0 or 1.
LIMIT = 36.0
#: Forwards of a block whose states stay known, and those whose states are compared to learn influences.
KEPT_FORWARDS, COMPARED_FORWARDS = 4, 2
#: Pairs in a learned set at most, where a step may commit more than one.
LARGEST_SET = 4

_Pairs = tuple[tuple[int, int], ...]


class _Outlook(NamedTuple):
    """What is expected of a state's distribution: best tokens int [L], and their log-odds float64 [L]."""

    tokens: np.ndarray
    odds: np.ndarray


class _Known(NamedTuple):
    """An evaluated state; ``confidence`` is exact where log-odds are cut."""

    state: np.ndarray
    outlook: _Outlook
    confidence: np.ndarray


class _Place(NamedTuple):
    """Where the chain stands: a state, its masked offsets, what is expected there, and the state as it is known."""

    state: np.ndarray
    masked: np.ndarray
    outlook: _Outlook
    known: _Known | None


class _Step(NamedTuple):
    """A step of the chain: the masked offsets in expected order, and what is committed."""

    place: _Place
    order: np.ndarray
    chosen: np.ndarray
    tokens: np.ndarray


class Informed:
    """The informed drafter of one sequence, for a rule of the runtime core.

    Args:
        drafts: drafts per forward at most.
        mask_token: the model's.
        least, tau, strict: the rule, as in ``numpy_core.Rule``; ``least`` is at least 1.
        coefficient: what a change of log-odds is multiplied by.
        alternatives: whether rows that the chain leaves go to the choices that came nearest to being made.

    Raises:
        ValueError: a rule that may commit nothing, or a negative number of drafts.
    """

    def __init__(
        self,
        drafts: int,
        mask_token: int,
        least: int = 1,
        tau: float | None = None,
        strict: bool = False,
        coefficient: float = 1.0,
        alternatives: bool = True,
    ) -> None:
        if least < 1 or drafts < 0:
            raise ValueError(f"least is {least} and drafts {drafts}, expected at least 1 and at least 0")
        self._drafts, self._mask, self._coefficient, self._alternatives = drafts, mask_token, coefficient, alternatives
        self._least, self._tau, self._strict = least, tau, strict
        self._largest = 1 if least == 1 and tau is None else LARGEST_SET
        self.start_block()

    def start_block(self) -> None:
        """Forget everything: in the next block other keys are cached."""
        self._forwards: list[list[_Known]] = []
        self._known: dict[bytes, _Known] = {}
        self._influences: dict[_Pairs, tuple[_Outlook, _Outlook]] = {}

    def advance(self, states: np.ndarray, tokens: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """Use the distributions of a forward, and known ones, as far as they reach.

        Args:
            states: int [n, L], the evaluated states, the reached one first.
            tokens: int [n, L], the best token of every position that is masked there, the mask token left out.
            confidence: float64 [n, L], its probability; both are not read at other positions.

        Returns:
            int64 [L], the state reached: the next anchor, or the whole block.
        """
        states = np.array(states, dtype=np.int64)
        masked = states == self._mask
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = np.clip(np.log(confidence) - np.log1p(-np.asarray(confidence)), -LIMIT, LIMIT)
        odds = np.where(masked, odds, np.nan)
        new = [
            _Known(state, _Outlook(token, odd), sure)
            for state, token, odd, sure in zip(states, np.array(tokens), odds, np.array(confidence), strict=True)
        ]
        self._remember(new)
        self._learn()
        known: _Known | None = new[0]
        self._state = new[0].state
        while known is not None:
            self._last = known
            masks = np.flatnonzero(known.state == self._mask)
            if not len(masks):
                break
            place = _Place(known.state, masks, known.outlook, known)
            chosen, token = self._commits(place, masks)
            self._state = known.state.copy()
            self._state[chosen] = token
            known = self._known.get(self._state.tobytes())
        return self._state.copy()

    def propose(self) -> np.ndarray:
        """The states to evaluate beside the one that :meth:`advance` reached, int64 [D', L]; none of them full.

        Complexity: O(D L) beside the steps of the chain, of which each sorts the masked positions.
        """
        base, block = self._last, self._state
        rows = {block.tobytes(): block}
        committed = np.flatnonzero(block != base.state)
        outlook = self._expect(base.outlook, committed, block[committed])
        place: _Place | None = _Place(block, np.flatnonzero(block == self._mask), outlook, None)
        steps: list[_Step] = []
        while place is not None and len(rows) <= self._drafts:
            step = self._step(place)
            steps.append(step)
            place = self._reach(step, step.chosen, step.tokens)
            if place is not None and place.known is None:
                rows[place.state.tobytes()] = place.state
        if self._alternatives:
            found = [(gap, step, chosen) for step in steps for gap, chosen in self._others(step)]
            for _, step, chosen in sorted(found, key=lambda one: one[0]):
                if len(rows) > self._drafts:
                    break
                other = self._reach(step, chosen, step.place.outlook.tokens[chosen])
                if other is not None and other.known is None:
                    rows.setdefault(other.state.tobytes(), other.state)
        return np.array(list(rows.values())[1:], dtype=np.int64).reshape(-1, len(block))

    def _remember(self, new: list[_Known]) -> None:
        """Keep the states of the newest forwards; one that was evaluated again has its newest distribution."""
        self._known.update((known.state.tobytes(), known) for known in new)
        self._forwards.append(new)
        if len(self._forwards) > KEPT_FORWARDS:
            old = {known.state.tobytes() for known in self._forwards.pop(0)}
            for key in old - {known.state.tobytes() for kept in self._forwards for known in kept}:
                del self._known[key]

    def _learn(self) -> None:
        """Influences of committed sets, between the new states and those of the last forwards.

        The newest forward wins; within it the pair whose base is nearest to the reached state.
        """
        known = [one for kept in self._forwards[-COMPARED_FORWARDS:] for one in kept]
        states = np.array([one.state for one in known])
        first = len(known) - len(self._forwards[-1])
        differ = states[first:, None] != states[None]
        size, committed = differ.sum(axis=2), (states != self._mask).sum(axis=1)
        more = committed[first:, None] - committed
        part = (size == np.abs(more)) & (size > 0) & (size <= self._largest)
        part[:, first:] &= more[:, first:] > 0
        found = []
        for row, column in np.argwhere(part).tolist():
            larger, smaller = (first + row, column) if more[row, column] > 0 else (column, first + row)
            offsets = np.flatnonzero(differ[row, column])
            found.append((-int(size[0, smaller]), larger, smaller, self._pairs(offsets, states[larger, offsets])))
        for _, larger, smaller, pairs in sorted(found):  # the nearest base comes last, so that it stays
            self._influences[pairs] = known[smaller].outlook, known[larger].outlook

    @staticmethod
    def _pairs(offsets: np.ndarray, tokens: np.ndarray) -> _Pairs:
        return tuple(zip(offsets.tolist(), tokens.tolist(), strict=True))

    def _expect(self, outlook: _Outlook, offsets: np.ndarray, tokens: np.ndarray) -> _Outlook:
        """After ``tokens`` are committed at ``offsets``, ascending: the influence of the set, else of its pairs."""
        pairs = self._pairs(offsets, tokens)
        known = [pairs] if pairs in self._influences else [(pair,) for pair in pairs]
        for part in known:
            if part in self._influences:
                outlook = self._moved(outlook, *self._influences[part])
        return outlook

    def _moved(self, outlook: _Outlook, before: _Outlook, after: _Outlook) -> _Outlook:
        """``outlook`` after a commit that led from ``before`` to ``after``; a new token comes with its own log-odds."""
        difference = self._coefficient * (after.odds - before.odds)
        seen = ~np.isnan(difference)
        other = seen & (after.tokens != before.tokens) & (after.tokens != outlook.tokens)
        odds = np.where(other, after.odds, outlook.odds + np.where(seen, difference, 0.0))
        return _Outlook(np.where(other, after.tokens, outlook.tokens), odds)

    def _step(self, place: _Place) -> _Step:
        order = place.masked[np.argsort(-place.outlook.odds[place.masked], kind="stable")]
        return _Step(place, order, *self._commits(place, order))

    def _commits(self, place: _Place, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the rule commits: by the confidences of a known state, else by those that are expected."""
        if place.known is not None:
            confidence = place.known.confidence[place.masked]
            rank = np.argsort(-confidence, kind="stable")
            order, confidence = place.masked[rank], confidence[rank]
        else:
            # Influences add up, so odds may leave the range of exp; below -700 the probability is 0 anyhow.
            confidence = 1.0 / (1.0 + np.exp(-np.maximum(place.outlook.odds[order], -700.0)))
        count = self._least
        if self._tau is not None:
            reached = confidence > self._tau if self._strict else confidence >= self._tau
            count = max(count, int(reached.sum()))
        return order[:count], place.outlook.tokens[order[:count]]

    def _reach(self, step: _Step, chosen: np.ndarray, tokens: np.ndarray) -> _Place | None:
        """Where committing ``tokens`` at ``chosen`` leads; None where the block would be full."""
        if len(chosen) == len(step.place.masked):
            return None
        state = step.place.state.copy()
        state[chosen] = tokens
        known = self._known.get(state.tobytes())
        ascending = np.sort(chosen)
        outlook = known.outlook if known else self._expect(step.place.outlook, ascending, state[ascending])
        return _Place(state, np.flatnonzero(state == self._mask), outlook, known)

    def _others(self, step: _Step) -> list[tuple[float, np.ndarray]]:
        """The nearest other choices of a step, each with its gap in log-odds.

        Where every step commits the same count, the last one is swapped for the next best. Else one more is taken, or
        one fewer, by the distance to the threshold.
        """
        order, count, odds = step.order, len(step.chosen), step.place.outlook.odds
        if self._tau is None:
            if count == len(order):
                return []
            return [(odds[order[count - 1]] - odds[order[count]], order[[*range(count - 1), count]])]
        edge = np.log(self._tau) - np.log1p(-self._tau) if self._tau < 1 else odds[order[count - 1]]
        found = []
        if count < len(order):
            found.append((abs(edge - odds[order[count]]), order[: count + 1]))
        if count > 1:
            found.append((abs(odds[order[count - 1]] - edge), order[: count - 1]))
        return found
