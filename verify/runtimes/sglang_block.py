"""One request's block in SGLang's server: its drafts, and the walk from state to state that a forward allows.

All of it is on the host and knows nothing of SGLang: which state follows which is handed in, as SGLang's own step said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

from verify.drafters.contract import Evidence
from verify.drafters.memory import KEPT_FORWARDS, KnownState, StateMemory
from verify.policies.randomness import StepRandom
from verify.ranked import RankedBlocks
from verify.ranking import gather_blocks, rank_rows
from verify.runtimes.sglang_config import ServerDrafts


class BlockProgress:
    """What is kept of a request's block between two forwards; with a graph that is one state and its ranks.

    Args:
        drafts: what the server is asked to draft.
        mask_token: the model's.

    Attributes:
        reached: int64 [L], where the block stands; empty before the first forward.
        steps: denoising steps so far.
    """

    def __init__(self, drafts: ServerDrafts, mask_token: int) -> None:
        self._drafts, self._mask = drafts, mask_token
        self._drafter = drafts.drafter.for_sequence()
        self._drafter.start_block()
        kept = KEPT_FORWARDS if self._drafter.remembers else 1
        self._known = StateMemory(kept)
        #: By state (``tobytes()``), the state that a step makes of it; the newest forward first.
        self._after: deque[dict[bytes, np.ndarray]] = deque(maxlen=kept)
        self._base: KnownState | None = None
        self.reached = np.zeros(0, dtype=np.int64)
        self.steps = 0

    def propose(self, root: np.ndarray) -> np.ndarray:
        """The drafts of the block ``root`` (int64 [L]), int64 [D, L], distinct; none before its first distribution.

        Complete blocks are among them: one that comes true has stored itself.
        """
        masked = np.flatnonzero(root == self._mask)
        if self._base is None or not len(masked) or not np.array_equal(self.reached, root):
            return np.zeros((0, len(root)), dtype=np.int64)
        policy = self._drafts.policy
        proposal = self._drafter.propose(
            Evidence(
                block=root,
                masked=masked,
                base=self._base,
                known=self._known,
                policy=policy,
                policy_state=policy.initial_state(),
                random=StepRandom(0, 0, 0, self.steps + 1),
                mask_token_id=self._mask,
                ahead={},
                ends=lambda complete: False,
            )
        )
        # A bridge stands behind the block as it may end; that complete block is what is evaluated here.
        complete = {block.tobytes(): block for block in proposal.bridges[:, 0]}
        states = np.array([*proposal.drafts, *complete.values()], dtype=np.int64).reshape(-1, len(root))
        return states[: self._drafts.drafts]

    def walk(
        self, rows: Sequence[int], states: np.ndarray, after: np.ndarray, done: Sequence[bool], logits: torch.Tensor
    ) -> int | None:
        """Take steps as far as they are known.

        Args:
            rows: the rows of the forward that are this block's, the block itself first.
            states: int64 [R, L], what all rows of the forward evaluated.
            after: int64 [R, L], what one step makes of each.
            done: per row, whether it is complete.
            logits: [R * L, V], the forward's.

        Returns:
            The row at which the block has come to its end: complete, or not changed by a step any more. None where it
            goes on; it then stands at ``reached``.
        """
        row_of = {states[row].tobytes(): row for row in reversed(rows)}
        self._after.appendleft({key: after[row] for key, row in row_of.items()})
        state, last, end = states[rows[0]], None, None
        while True:
            row = row_of.get(state.tobytes())
            following = self._next_of(state)
            if following is None:
                break
            if np.array_equal(following, state):
                end = row  # None: evaluated by an older forward, whose page is no longer there
                break
            state, last = following, state
            self.steps += 1
        self.reached = state
        if end is None and last is not None:
            self._learn(rows, row_of.get(last.tobytes()), last, states, logits)
        assert end is None or done[end] or (state == self._mask).any()
        return end

    def _next_of(self, state: np.ndarray) -> np.ndarray | None:
        key = state.tobytes()
        return next((kept[key] for kept in self._after if key in kept), None)

    def _learn(
        self, rows: Sequence[int], used: int | None, last: np.ndarray, states: np.ndarray, logits: torch.Tensor
    ) -> None:
        """Rank what the next drafts come from: the distribution of the state ``last``; all rows for who remembers."""
        top_j = self._drafts.drafter.max_vocabulary_rank
        if self._drafter.remembers:
            ranked = rank_states(logits, rows, states, self._mask, top_j)
            self._known.add(states[list(rows)], ranked)
            self._drafter.learn(states[list(rows)], ranked, self._drafts.policy, self._mask)
            self._base = self._known.find(last)
        elif used is not None:
            self._base = KnownState(last, rank_states(logits, [used], states, self._mask, top_j), 0)


def rank_states(
    logits: torch.Tensor, rows: Sequence[int], states: np.ndarray, mask_token: int, top_j: int
) -> RankedBlocks:
    """The ranks of some ``rows`` of a forward, at the positions masked there; ``logits`` are [R * L, V]."""
    chosen = np.asarray(rows, dtype=np.int64)
    length = states.shape[1]
    unit, offset = np.nonzero(states[chosen] == mask_token)
    flat = torch.from_numpy(chosen[unit] * length + offset).to(logits.device)
    ranked = rank_rows(logits.reshape(-1, logits.shape[-1])[flat], mask_token, top_j)
    return gather_blocks(ranked, None, unit, offset, len(chosen), length)
