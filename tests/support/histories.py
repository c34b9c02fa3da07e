"""Rules with a history, driven without a model: a distribution for every step, whatever was committed before."""

import numpy as np

from verify.policies.contract import BlockView
from verify.policies.randomness import StepRandom


def view_of(logits, masked, top_j=2):
    """The ``masked`` positions (ascending) of ``logits`` (float64 [L, V], the mask token at minus infinity)."""
    rows = np.asarray(logits, dtype=float)[list(masked)]
    probability = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    order = np.argsort(-probability.max(axis=1), kind="stable")
    tokens = np.argsort(-rows, axis=1, kind="stable")[order, :top_j].astype(np.int32)
    top = np.take_along_axis(probability[order], tokens, axis=1)
    return BlockView(np.asarray(masked)[order], tokens, top, lambda: rows[order])


def drive(policy, distributions, block=0, state=None, seed=0):
    """Commits of every step, as dicts, and the states after them, until nothing is masked or no distribution is left.

    ``distributions``: float64 [T, L, V] logits.
    """
    state = policy.initial_state() if state is None else state
    masked = list(range(len(distributions[0])))
    steps, states = [], []
    for step, logits in enumerate(distributions, 1):
        if not masked:
            break
        commits, state = policy.step(view_of(logits, masked), state, StepRandom(seed, 0, block, step))
        steps.append(
            dict(zip(np.asarray(commits.positions).tolist(), np.asarray(commits.tokens).tolist(), strict=True))
        )
        states.append(state)
        masked = [position for position in masked if position not in steps[-1]]
    return steps, states


def drifting(seed, steps, length, vocabulary, mask=0, drift=0.6, sharp=2.0):
    """Random logits that drift from step to step; the token ``mask`` at minus infinity."""
    rng = np.random.default_rng(seed)
    logits = [sharp * rng.normal(size=(length, vocabulary))]
    while len(logits) < steps:
        logits.append(logits[-1] + drift * rng.normal(size=(length, vocabulary)))
    found = np.array(logits)
    found[:, :, mask] = -np.inf
    return found
