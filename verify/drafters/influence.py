"""Influence: what committing some tokens did to the rest of the block, learned from evaluated states.

For two known states I and S = I + E, the influence of E is how the top token and the log-odds of its confidence changed
at every position that is masked in S. Adding known influences to a known state predicts states that were never
evaluated. Two numbers per position are enough; the vocabulary plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verify.ranking import RankedBlocks


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


class Influences:
    """The influences learned in one block, by the set of committed (offset, token) pairs.

    The newest forward wins, and within it the pair of states whose base is nearest to the state then reached.

    Args:
        forwards: forwards whose states are compared, the newest included.
    """

    def __init__(self, forwards: int = 2) -> None:
        self._forwards = forwards
        self._kept: list[tuple[np.ndarray, list[Outlook]]] = []
        self._found: dict[tuple[int, ...], tuple[Outlook, Outlook]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def forget(self) -> None:
        """The block is done; in the next one other keys are cached, and nothing learned here holds there."""
        self._kept.clear()
        self._found.clear()

    def learn(self, states: np.ndarray, ranked: RankedBlocks, largest: int, mask_token_id: int) -> None:
        """Compare the states of a forward (int64 [n, L], the reached one first) with the kept ones and each other.

        O(K^2 L) for ``K`` kept states; the states of two forwards with ten drafts are 22.

        Args:
            states: the evaluated states.
            ranked: their distributions.
            largest: pairs in a set at most; larger differences are not looked at.
            mask_token_id: the model's.
        """
        outlooks = [Outlook.of(ranked, index) for index in range(len(states))]
        self._kept = [*self._kept, (states, outlooks)][-self._forwards :]
        known = np.concatenate([kept for kept, _ in self._kept])
        views = [view for _, kept in self._kept for view in kept]
        new = len(known) - len(states)
        masked = known == mask_token_id
        differ = known[:, None, :] != known[None, :, :]  # [S, I, L]
        size = differ.sum(axis=2)
        follows = (size > 0) & (size <= largest) & ~(differ & ~masked[None, :, :]).any(axis=2)
        follows[:new, :new] = False  # both were there before
        larger, smaller = np.nonzero(follows)
        # The nearest base comes last, so that it stays.
        for pair in np.argsort(-size[new, smaller], kind="stable").tolist():
            s, i = larger[pair], smaller[pair]
            offsets = np.flatnonzero(differ[s, i])
            key = tuple((offsets * _CODE + known[s, offsets]).tolist())
            self._found[key] = views[i], views[s]

    def expect(self, outlook: Outlook, offsets: np.ndarray, tokens: np.ndarray) -> Outlook:
        """The outlook after ``tokens`` (int [c]) are committed at ``offsets`` (int [c], ascending).

        The influence of the whole set where it is known, else those of its single pairs that are known, one after the
        other. Where an influence changed the top token to another one than expected, the new token is taken with its
        log-odds, else the difference of the log-odds is added.
        """
        codes = (offsets * _CODE + tokens).tolist()
        whole = self._found.get(tuple(codes))
        parts = [whole] if whole is not None else [self._found.get((code,)) for code in codes]
        token, odds = outlook.token, outlook.odds
        for part in parts:
            if part is None:
                continue
            before, after = part
            # NaN stands where a position was committed in the base or in the larger state: nothing is known there.
            moved = odds + (after.odds - before.odds)
            other = (after.token != token) & (after.token != before.token)
            known = ~np.isnan(moved)
            odds = np.where(known, np.where(other, after.odds, moved), odds)
            token = np.where(known & other, after.token, token)
        return Outlook(token, odds)
