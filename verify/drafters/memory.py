"""What is known of a block: every state that a forward evaluated, whether it was accepted or not.

While a block is solved nothing cached changes, so a state that was evaluated once stays known: its distribution is the
one that a plain decode would compute. Order does not matter to a state: {a, b, c} that was paid for along a, b, c is
known when the decode arrives along a, c, b.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from verify.policies.contract import BlockView
from verify.policies.sampling import entropy, softmax
from verify.ranked import RankedBlocks

#: Forwards of a block whose states are kept. In the measurements two were within 1 % of all.
KEPT_FORWARDS = 4


@dataclass(frozen=True, eq=False)
class KnownState:
    """One evaluated state of the block.

    Attributes:
        tokens: int64 [L], the state itself.
        ranked: the distributions of the forward that evaluated it.
        index: which of them is its own.
    """

    tokens: np.ndarray
    ranked: RankedBlocks
    index: int

    def view(self, masked: np.ndarray, mask_token_id: int) -> BlockView:
        """The state as a policy sees it; ``masked`` (int [m], ascending) are its masked offsets."""
        positions = self.ranked.position_order(self.index, masked)

        @cache
        def logits() -> np.ndarray:
            rows = (
                self.ranked.logits_of(self.index, positions).cpu().double().numpy()
            )  # widened here: fewer bytes travel
            rows[:, mask_token_id] = -np.inf
            return rows

        def entropies() -> np.ndarray:
            if top.entropy is not None:
                return top.entropy[self.index, positions]
            return entropy(softmax(logits()))

        top = self.ranked
        ranks = positions, top.top_token[self.index, positions], top.top_probability[self.index, positions]
        if top.entropy is None and top.logits is None:
            return BlockView(*ranks, logits)
        return BlockView(*ranks, logits, entropies)


class StateMemory:
    """The evaluated states of one block, the newest forwards only.

    Memory: ``KEPT_FORWARDS`` times a forward's ranks, 12 bytes per position and vocabulary rank; at D = 10, L = 32 and
    J = 8 about 34 KB a forward. For a policy that reads logits, a kept forward also holds (1 + D) * L * V numbers on
    the device; keep one forward then.

    Args:
        forwards: how many forwards are kept, at least 1.
    """

    def __init__(self, forwards: int = KEPT_FORWARDS) -> None:
        self.forwards = forwards
        self._kept: list[list[bytes]] = []
        self._known: dict[bytes, KnownState] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, states: np.ndarray, ranked: RankedBlocks) -> None:
        """Remember the ``states`` (int64 [1 + D, L]) of a forward with their distributions."""
        if self.forwards == 1:  # also what was put
            self._known.clear()
            self._kept.clear()
        keys = [state.tobytes() for state in states]
        for index, key in enumerate(keys):
            self._known[key] = KnownState(states[index], ranked, index)
        self._kept.append(keys)
        if len(self._kept) > self.forwards:
            for key in set(self._kept.pop(0)).difference(*self._kept):
                del self._known[key]

    def put(self, state: np.ndarray, ranked: RankedBlocks, index: int) -> None:
        """Remember one ``state`` (int64 [L]) for good: few are known of a block that has not begun."""
        self._known[state.tobytes()] = KnownState(state, ranked, index)

    def find(self, state: np.ndarray) -> KnownState | None:
        """The known state equal to ``state`` (int64 [L]), position by position and token by token; None without one."""
        return self._known.get(state.tobytes())
