"""One block's distribution as a policy sees it, from a few numbers."""

import numpy as np
import pytest

from verify.policies.contract import BlockView
from verify.policies.randomness import StepRandom
from verify.policies.sampling import entropy, softmax


def view_of(confidences, *, second=None, entropies=None, positions=None, logits=None):
    """A view in rank order: masked position ``p`` has ``confidences[p]`` for token ``100 + p``; ranks only by default.

    Args:
        confidences: of the best token of every masked position, in the order of ``positions``.
        second: probabilities of the second tokens, ``200 + p``.
        entropies: of every position; a view without them has none.
        positions: ascending offsets, 0, 1, ... by default.
        logits: [m, V]; entropies are theirs.
    """
    top = np.asarray(confidences, dtype=float)
    offsets = np.arange(len(top)) if positions is None else np.asarray(positions)
    order = np.argsort(-top, kind="stable")
    columns = [top] if second is None else [top, np.asarray(second, dtype=float)]
    tokens = np.stack([100 * (k + 1) + offsets for k in range(len(columns))], axis=1).astype(np.int32)
    ranks = offsets[order], tokens[order], np.stack(columns, axis=1)[order]

    def all_logits():
        assert logits is not None, "this policy must not ask for logits"
        return np.asarray(logits, dtype=float)[order]

    if logits is not None:
        return BlockView(*ranks, all_logits, lambda: entropy(softmax(all_logits())))
    if entropies is None:
        return BlockView(
            *ranks, lambda: pytest.fail("logits were fetched"), lambda: pytest.fail("entropies were asked")
        )
    return BlockView(*ranks, all_logits, lambda: np.asarray(entropies, dtype=float)[order])


def committed(policy, view, step=1, seed=0):
    """Position -> token of one step from the initial state, in ascending order of positions."""
    commits, _ = policy.step(view, policy.initial_state(), StepRandom(seed, 0, 0, step))
    return dict(sorted(zip(commits.positions.tolist(), commits.tokens.tolist(), strict=True)))
