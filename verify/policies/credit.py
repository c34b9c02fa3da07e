"""CreditDecoding: tokens that stayed on top in earlier steps of the block count for more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verify.policies.base import BasePolicy, drawn
from verify.policies.contract import BlockView, Commits
from verify.policies.parameters import Number
from verify.policies.randomness import StepRandom
from verify.policies.rule import Rule
from verify.policies.sampling import softmax

#: What comes this near to the best is committed with it where nothing reaches the threshold (dInfer's value).
NEAR = 1e-5


@dataclass(frozen=True, eq=False)
class Credits:
    """The credits of a block: ``n`` pairs of a position and a token, distinct, by position and then by token.

    A pair that is not here has none. At most one is added per position and step, so they are few.

    Attributes:
        positions: int64 [n], offsets in the block.
        tokens: int64 [n].
        amounts: float64 [n].
    """

    positions: np.ndarray
    tokens: np.ndarray
    amounts: np.ndarray


_NONE = Credits(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))


@dataclass(frozen=True)
class CreditDecoding(BasePolicy):
    """Commit all whose probability, raised by the credit of earlier steps, is >= ``tau``, and always the best.

    Per position and token, from zero at the block's start, every step does this in this order, with ``p`` the
    distribution of the position: all credits C are multiplied by ``beta``; the top token v of p gains ``p(v) ** gamma``
    (so the step's own credit counts at once); ``q(v)`` is proportional to ``p(v) * (1 + C(v)) ** alpha``, which adds
    ``alpha * log(1 + C)`` to the logits. The token is the arg-max of q, and its probability under q is compared.
    With ``alpha`` 0 it is ``threshold:tau``, but for positions within ``NEAR`` of the best.

    arXiv 2510.06133, equations 6 and 7; inclusionAI/dInfer at fce4e32, ``python/dinfer/decoding/parallel_strategy.py``,
    lines 314-390 for the credits and 263-285 for what is committed: c >= min(tau, max c - 1e-5), so that where nothing
    reaches ``tau`` all that are as good as the best go. Its defaults are these; the paper's are alpha 0.65, beta 0.7,
    and it has no forced progress. Where we differ: the mask token is left out before the softmax, so it takes neither
    probability nor credit; float64 where dInfer computes in float32; a step counts its forward once, a refresh too; and
    credits never outlive their block or their sequence.

    A token is drawn, where one is, from q scaled by the temperature; its confidence is q's own.

    Complexity: O(m s) for m masked positions after s steps of the block, beside the transfer of the logits; the
    normaliser of q differs from that of p by the credited tokens alone.
    """

    tau: float
    alpha: float = 0.7
    beta: float = 0.8
    gamma: float = 0.2
    name = "credit"
    parameters = (
        Number("tau"),
        Number("alpha", 0.0, None, low_open=False, default=0.7),
        Number("beta", 0.0, 1.0, low_open=False, high_open=True, default=0.8),
        Number("gamma", 0.0, None, low_open=False, default=0.2),
    )

    @property
    def reads(self) -> str:
        """A token with credit may have left the best ones."""
        return "logits"

    def initial_state(self) -> Credits:
        """The state is the credits, and the first step of every block begins without any."""
        return _NONE

    def step(self, view: BlockView, state: Credits, rng: StepRandom) -> tuple[Commits, Credits]:
        credits, rows = self._grown(view, _NONE if rng.step == 1 else state)
        raise_by = np.power(1.0 + credits.amounts, self.alpha)
        if self.sampling.stochastic:
            fused = view.logits().copy()
            fused[rows, credits.tokens] += np.log(raise_by)
            tokens = drawn(view, self.sampling.scaled(fused), rng)
            confidences = softmax(fused)[np.arange(len(tokens)), tokens]
        else:
            tokens, confidences = _best(view, credits, rows, raise_by)
        chosen = confidences >= min(self.tau, float(confidences.max()) - NEAR)
        return Commits(view.positions[chosen], tokens[chosen]), credits

    def _grown(self, view: BlockView, before: Credits) -> tuple[Credits, np.ndarray]:
        """The credits after this step's, of what is masked still, and the rows of ``view`` that they belong to."""
        row_of = np.full(1 + max(view.positions.max(), before.positions.max(initial=0)), -1)
        row_of[view.positions] = np.arange(len(view.positions))
        left = row_of[before.positions] >= 0
        # One sorted key per pair; the decayed credit comes before what is added to it, so sums have one order.
        positions = np.concatenate([before.positions[left], view.positions])
        tokens = np.concatenate([before.tokens[left], view.tokens[:, 0]])
        amounts = np.concatenate([self.beta * before.amounts[left], view.probabilities[:, 0] ** self.gamma])
        keys, pair = np.unique(positions.astype(np.int64) << 32 | tokens, return_inverse=True)
        grown = Credits(keys >> 32, keys & 0xFFFFFFFF, np.bincount(pair, weights=amounts))
        return grown, row_of[grown.positions]


def _best(view: BlockView, credits: Credits, rows: np.ndarray, raise_by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The arg-max of q at every position of ``view``, int64 [m], and its probability, float64 [m].

    Credits are not negative and the top token of p has some, so the best one has credit. Ties: lower token id.

    Args:
        view: the view.
        credits: after this step's.
        rows: int [n], of their positions.
        raise_by: float64 [n], what the probabilities of the pairs are multiplied by; at least 1.
    """
    logits = view.logits()
    lead = logits[rows, credits.tokens] - logits[rows, view.tokens[rows, 0]]
    probability = view.probabilities[rows, 0] * np.exp(lead)
    added = np.bincount(rows, weights=probability * (raise_by - 1.0), minlength=len(logits))
    raised = probability * raise_by / (1.0 + added[rows])
    order = np.lexsort((credits.tokens, -raised, rows))
    first = order[np.unique(rows[order], return_index=True)[1]]
    return credits.tokens[first], raised[first]


_SOURCE = "CreditDecoding (arXiv 2510.06133), equations 6 and 7; dInfer, parallel_strategy.py, credit"

RULES = (Rule.of(CreditDecoding, _SOURCE, ["credit:0.9"]),)
