"""Dream's rule: an order by confidence, margin or entropy, and counts from its time schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.policies.confidence import _Counted, _number, _quota
from verify.policies.contract import BlockView, Commits, PolicyError
from verify.policies.randomness import StepRandom
from verify.policies.schedules import timed_quotas

ORDERS = ("confidence", "margin", "entropy")


DREAM_EPS = 1e-3


@dataclass(frozen=True)
class Dream(_Counted):
    """Commit the best positions in ``order``, as many as Dream's time schedule gives this step.

    ``confidence`` is the probability of the token, ``margin`` its lead over the second one, ``entropy`` the negative
    entropy of the distribution; all under the distribution at the temperature, from which tokens are sampled above 0.
    """

    order: str = "confidence"
    steps: int = 1
    eps: float = DREAM_EPS

    @property
    def spec(self) -> str:
        tail = "" if self.eps == DREAM_EPS else f":{_number(self.eps)}"
        return f"dream:{self.order}:{self.steps}{tail}"

    @property
    def needs(self) -> str:
        return "logits" if self.stochastic or self.order == "entropy" else "top_j"

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        state = self.masked_at_start(view, state, rng)
        count = _quota(timed_quotas(state, self.steps, self.eps), rng.step)
        tokens, score = self._scored(view, rng)
        order = np.lexsort((view.positions, -score))[:count]
        return Commits(view.positions[order], tokens[order]), state

    def _scored(self, view: BlockView, rng: StepRandom) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int [m] and scores float64 [m] of the masked positions, in the view's order."""
        if self.needs == "top_j":
            if self.order == "confidence":
                return view.tokens[:, 0], view.probabilities[:, 0]
            if view.probabilities.shape[1] < 2:
                raise PolicyError("the margin order compares two tokens; keep at least two vocabulary ranks (top_j)")
            return view.tokens[:, 0], view.probabilities[:, 0] - view.probabilities[:, 1]
        logits = view.logits() / (self.temperature or 1.0)
        probability = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        tokens = view.tokens[:, 0]
        if self.stochastic:
            noise = np.stack([rng.gumbel(int(position), logits.shape[1]) for position in view.positions])
            tokens = np.argmax(logits + noise, axis=1)
        if self.order == "entropy":
            return tokens, (probability * np.log(probability + 1e-10)).sum(axis=1)
        if self.order == "margin":
            best = np.sort(probability, axis=1)[:, -2:]
            return tokens, best[:, 1] - best[:, 0]
        return tokens, probability[np.arange(len(tokens)), tokens]
