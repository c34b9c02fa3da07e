"""Dream's rule: an order by confidence, margin or entropy, and counts from its time schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from verify.policies.base import Candidates, CountedPolicy
from verify.policies.contract import BlockView
from verify.policies.orders import OrderedPolicy
from verify.policies.parameters import Choice, Number, Whole
from verify.policies.rule import Rule
from verify.policies.sampling import softmax
from verify.policies.schedules import quota, timed_quotas

_SCHEDULE = (Whole("S"), Number("eps", default=1e-3))


@dataclass(frozen=True)
class Dream(OrderedPolicy, CountedPolicy):
    """Commit the best positions in ``order``, as many as Dream's time schedule gives this step.

    Orders are those of :data:`verify.policies.orders.ORDERS`, under the distribution that tokens are drawn from.
    """

    order: str
    steps: int
    eps: float = 1e-3
    name = "dream"
    parameters = (Choice("order", ("confidence", "margin", "entropy")), *_SCHEDULE)

    @property
    def reads(self) -> str:
        return super().reads if self.sampling.plain else "logits"

    def count(self, found: Candidates, masked: int, step: int) -> int:
        return quota(timed_quotas(masked, self.steps, self.eps), step)

    def distribution(self, view: BlockView, scaled: np.ndarray) -> np.ndarray:
        return softmax(scaled)


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
