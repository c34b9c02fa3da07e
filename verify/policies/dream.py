"""Dream's rule: an order by confidence, margin or entropy, and counts from its time schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from verify.policies.base import Candidates, CountedPolicy, drawn
from verify.policies.contract import BlockView, PolicyError
from verify.policies.parameters import Choice, Number, Whole
from verify.policies.randomness import StepRandom
from verify.policies.rule import Rule
from verify.policies.sampling import entropy, softmax
from verify.policies.schedules import quota, timed_quotas

_SCHEDULE = (Whole("S"), Number("eps", default=1e-3))


@dataclass(frozen=True)
class Dream(CountedPolicy):
    """Commit the best positions in ``order``, as many as Dream's time schedule gives this step.

    ``confidence`` is the probability of the token, ``margin`` its lead over the second one, ``entropy`` the negative
    entropy of the distribution; all under the distribution that tokens are drawn from.
    """

    order: str
    steps: int
    eps: float = 1e-3
    name = "dream"
    parameters = (Choice("order", ("confidence", "margin", "entropy")), *_SCHEDULE)

    @property
    def reads(self) -> str:
        if not self.sampling.plain:
            return "logits"
        return "entropy" if self.order == "entropy" else "ranks"

    @property
    def ranks(self) -> int:
        return 2 if self.order == "margin" and self.needs == "ranks" else 1

    def count(self, found: Candidates, masked: int, step: int) -> int:
        return quota(timed_quotas(masked, self.steps, self.eps), step)

    def candidates(self, view: BlockView, rng: StepRandom) -> Candidates:
        tokens, top = view.tokens[:, 0], view.probabilities
        if self.needs != "logits":
            if self.order == "entropy":
                return Candidates.by(view, tokens, -view.entropies())
            if self.order == "confidence":
                return Candidates.by(view, tokens, top[:, 0])
            if top.shape[1] < 2:
                raise PolicyError("the margin order compares two tokens; keep at least two vocabulary ranks (top_j)")
            return Candidates.by(view, tokens, top[:, 0] - top[:, 1])
        scaled = self.sampling.scaled(view.logits())
        probability = softmax(scaled)
        if self.sampling.stochastic:
            tokens = drawn(view, scaled, rng)
        if self.order == "entropy":
            return Candidates.by(view, tokens, -entropy(probability))
        if self.order == "margin":
            best = np.partition(probability, -2, axis=1)[:, -2:]
            return Candidates.by(view, tokens, best[:, 1] - best[:, 0])
        return Candidates.by(view, tokens, probability[np.arange(len(tokens)), tokens])


_SOURCE = "Dream (arXiv 2508.15487), generation_utils.py, alg"
_ALIASES = {
    "maskgit_plus": ("confidence", "by probability"),
    "topk_margin": ("margin", "by the lead over the second token"),
    "entropy": ("entropy", "by negative entropy"),
}

RULES = (
    Rule.of(Dream, _SOURCE, ["dream:confidence:32", "dream:margin:32", "dream:entropy:32"]),
    *(
        Rule(
            alias, _SCHEDULE, partial(Dream, order), f"Dream: {words}, S steps of its time schedule.",
            f"{_SOURCE} {alias}", (f"{alias}:32",), stands_for="dream",
        )
        for alias, (order, words) in _ALIASES.items()
    ),
)  # fmt: skip
