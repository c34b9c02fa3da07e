"""Replay of all budgets of a nested order at once: what a search that tries thousands of orders needs.

``drafting.replay`` looks every chain state up in one graph. Here the chains are matched with the candidate states
once, and an order of the candidates then costs a pass over their trie: a prefix is accepted by the graph of budget D
when the last chosen of its states is among the first D. The counts are those of ``drafting.replay``; a test compares
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drafting.anchors import AnchorTable
from drafting.ragged import ptr_of
from drafting.replay import visited_anchors
from drafting.trie import PrefixTrie, carry_down, levels_of


class NestedReplay:
    """Recorded decodes, ready to be replayed under orders of the states of ``candidates``.

    Args:
        candidates: the trie whose state ids orders are made of.
        anchors: the decodes, with whole chains.
        budgets: ascending budgets.

    Attributes:
        prompt_indices: int32 [M], the prompts, ascending.
        plain: int64 [M], forwards of plain decoding, per prompt.
    """

    def __init__(self, candidates: PrefixTrie, anchors: AnchorTable, budgets: Sequence[int]) -> None:
        self.budgets = np.asarray(budgets, dtype=np.int64)
        self.n_states = candidates.n_states
        trie = PrefixTrie.from_anchors(anchors, max_depth=max(1, int(self.budgets.max(initial=1))))
        at = np.minimum(np.searchsorted(candidates.state_code, trie.state_code), candidates.n_states - 1)
        known = candidates.state_code[at] == trie.state_code
        # A prefix with a state that is no candidate is in no graph, nor is what stands behind it.
        kept = trie.carry_down(known[trie.state], np.logical_and)
        number = np.cumsum(kept) - 1
        # Prefixes are numbered by depth, so of a path the deepest that is left has the largest number.
        nearest = trie.carry_down(np.where(kept, number, 0), np.maximum)
        self._parent = number[trie.parent[kept]]
        self._parent[0] = 0
        self._state = at[trie.state[kept]]
        widths = np.add.reduceat(kept.astype(np.int64), trie.level_ptr[:-1])
        self._levels = levels_of(ptr_of(widths[widths > 0]))
        self._leaf = nearest[trie.leaf]
        self._block_ptr = anchors.block_ptr
        self.prompt_indices, of_block = np.unique(anchors.block_prompt, return_inverse=True)
        self._of_anchor = np.searchsorted(self.prompt_indices, anchors.prompt_index)
        self._blocks = self._per_prompt(of_block)
        self.plain = self._per_prompt(of_block, anchors.block_steps)

    def forwards(self, order: Sequence[int]) -> np.ndarray:
        """int64 [budgets, M], forward passes per prompt under the first D states of ``order``."""
        rank = np.full(self.n_states, np.iinfo(np.int64).max)
        rank[np.asarray(order, dtype=np.int64)] = np.arange(len(order))
        rank[0] = -1
        needs = carry_down(rank[self._state], self._parent, self._levels, np.maximum)
        accepted = (needs < self.budgets[:, None]).astype(np.int64)
        accepted[:, 0] = 0
        carry_down(accepted, self._parent, self._levels, np.add)
        visited = visited_anchors(accepted[:, self._leaf], self._block_ptr)
        return self._blocks + np.array([self._per_prompt(self._of_anchor, row) for row in visited])

    def _per_prompt(self, place: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(place, weights=values, minlength=len(self.prompt_indices)).astype(np.int64)
