"""Influence: what committing some tokens did to the rest of the block, learned from evaluated states.

For two known states I and S = I + E, the influence of E is how the top token and the log-odds of its confidence changed
at every position that is masked in S. Adding known influences to a known state predicts states that were never
evaluated. Two numbers per position are enough; the vocabulary plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verify.ranked import RankedBlocks


@dataclass(frozen=True, eq=False)
class Outlook:
    """What is expected of a state's distribution; exact where the state was evaluated.

    Attributes:
        token: int [L], the top token of every masked position; of others nothing is said.
        odds: float64 [L], log-odds of its probability, log p - log(1 - p).
    """

    token: np.ndarray
    odds: np.ndarray

    @classmethod
    def of(cls, ranked: RankedBlocks, index: int) -> Outlook:
        """The exact outlook of a state that was evaluated."""
        return cls(ranked.top_token[index, :, 0], ranked.log_odds[index])


#: A pair as one number; token ids are below it.
_CODE = 1 << 32

#: A set of committed pairs: the number of the only one, or the numbers of several in ascending order.
_Set = int | tuple[int, ...]

#: An evaluated state: the distributions of its forward, and which of them is its own.
_Source = tuple[RankedBlocks, int]


class _Influence:
    """What committing a set did: the change of the log-odds, and the tokens that it changed."""

    def __init__(self, before: Outlook, after: Outlook, coefficient: float) -> None:
        difference = coefficient * (after.odds - before.odds)
        # NaN stands where a position is committed in either state: nothing is known there, so nothing moves.
        seen = ~np.isnan(difference)
        self._difference = np.where(seen, difference, 0.0)
        changed = seen & (after.token != before.token)
        self._changed = changed if changed.any() else None
        self._after = after

    def on(self, outlook: Outlook) -> Outlook:
        """``outlook`` after the commit. A new top token is taken with its own log-odds, else the change is added."""
        odds = outlook.odds + self._difference
        if self._changed is None:
            return Outlook(outlook.token, odds)
        other = self._changed & (self._after.token != outlook.token)
        return Outlook(np.where(other, self._after.token, outlook.token), np.where(other, self._after.odds, odds))


class Influences:
    """The influences learned in one block, by the set of committed (offset, token) pairs.

    The newest forward wins, and within it the pair of states whose base is nearest to the state then reached.

    Args:
        forwards: forwards whose states are compared, the newest included.
        coefficient: what a change of log-odds is multiplied by before it is added.
    """

    def __init__(self, forwards: int = 2, coefficient: float = 1.0) -> None:
        self._forwards, self._coefficient = forwards, coefficient
        self._kept: list[tuple[np.ndarray, RankedBlocks]] = []
        self._found: dict[_Set, _Influence | tuple[_Source, _Source]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def forget(self) -> None:
        """The block is done; in the next one other keys are cached, and nothing learned here holds there."""
        self._kept.clear()
        self._found.clear()

    def learn(self, states: np.ndarray, ranked: RankedBlocks, largest: int, mask_token_id: int) -> None:
        """Compare the states of a forward with the kept ones and with each other.

        O(n K L) for ``n`` new and ``K`` kept states; the states of two forwards with ten drafts are 22.

        Args:
            states: int64 [n, L], the evaluated states, the reached one first.
            ranked: their distributions.
            largest: pairs in a set at most; larger differences are not looked at.
            mask_token_id: the model's.
        """
        self._kept = [*self._kept, (states, ranked)][-self._forwards :]
        known = np.concatenate([kept for kept, _ in self._kept])
        sources = [(distributions, index) for kept, distributions in self._kept for index in range(len(kept))]
        new = len(known) - len(states)
        differ = states[:, None, :] != known[None, :, :]  # [n, K, L]; old ones were compared before
        size = np.add.reduce(differ, axis=2, dtype=np.int32)  # several times as fast as np.count_nonzero by axis
        committed = np.add.reduce(known != mask_token_id, axis=1, dtype=np.int32)
        more = committed[new:, None] - committed
        # One is a part of the other exactly when they differ in as many positions as the other has more commits.
        part = (size == np.abs(more)) & (size > 0) & (size <= largest)
        part[:, new:] &= more[:, new:] > 0  # of two new states every pair stands there twice
        row, column = np.nonzero(part)
        grown = more[row, column] > 0
        larger, smaller = np.where(grown, row + new, column), np.where(grown, column, row + new)
        # The nearest base comes last, so that it stays.
        order = np.lexsort((smaller, larger, -size[0, smaller]))
        row, column, larger, smaller = row[order], column[order], larger[order], smaller[order]
        offset = differ[row, column].argmax(axis=1)
        codes: list[_Set] = (offset * _CODE + known[larger, offset]).tolist()
        if largest > 1:
            for pair in np.flatnonzero(size[row, column] > 1).tolist():
                offsets = np.flatnonzero(differ[row[pair], column[pair]])
                codes[pair] = tuple((offsets * _CODE + known[larger[pair], offsets]).tolist())
        found, base, follower = self._found, smaller.tolist(), larger.tolist()
        for code, before, after in zip(codes, base, follower, strict=True):
            found[code] = sources[before], sources[after]

    def expect(self, outlook: Outlook, offsets: np.ndarray, tokens: np.ndarray) -> Outlook:
        """The outlook after ``tokens`` (int [c]) are committed at ``offsets`` (int [c], ascending).

        The influence of the whole set where it is known, else those of its single pairs that are known, one after the
        other.
        """
        if len(offsets) == 1:
            only = self._get(int(offsets[0]) * _CODE + int(tokens[0]))
            return outlook if only is None else only.on(outlook)
        codes = (offsets * _CODE + tokens).tolist()
        whole = self._get(tuple(codes))
        if whole is not None:
            return whole.on(outlook)
        for code in codes:
            part = self._get(code)
            if part is not None:
                outlook = part.on(outlook)
        return outlook

    def _get(self, code: _Set) -> _Influence | None:
        """Worked out when it is first asked for: many are learned, and few are used."""
        found = self._found.get(code)
        if isinstance(found, tuple):
            before, after = found
            found = _Influence(Outlook.of(*before), Outlook.of(*after), self._coefficient)
            self._found[code] = found
        return found
