"""Dream's rule: an order by confidence, margin or entropy, and counts from its time schedule; or by chance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from verify.policies.base import Candidates, CountedPolicy
from verify.policies.contract import BlockView, Policy
from verify.policies.orders import OrderedPolicy
from verify.policies.origin import SCHEDULE, DreamOrigin
from verify.policies.parameters import Choice
from verify.policies.rule import Rule
from verify.policies.sampling import Sampling, softmax
from verify.policies.schedules import quota, timed_quotas

_ORDERS = ("confidence", "margin", "entropy")


@dataclass(frozen=True)
class Dream(OrderedPolicy, CountedPolicy):
    """Commit the best positions in ``order``, as many as Dream's time schedule gives this step.

    Orders are those of :data:`verify.policies.orders.ORDERS`, under the distribution that tokens are drawn from.
    """

    order: str
    steps: int
    eps: float = 1e-3
    name = "dream"
    parameters = (Choice("order", _ORDERS), *SCHEDULE)

    @property
    def reads(self) -> str:
        return super().reads if self.sampling.plain else "logits"

    def count(self, found: Candidates, masked: int, step: int) -> int:
        return quota(timed_quotas(masked, self.steps, self.eps), step)

    def distribution(self, view: BlockView, scaled: np.ndarray) -> np.ndarray:
        return softmax(scaled)


def _dream(order: str, steps: int, eps: float, *, sampling: Sampling) -> Policy:
    if order == DreamOrigin.order:
        return DreamOrigin(steps, eps, sampling=sampling)
    return Dream(order, steps, eps, sampling=sampling)


_SOURCE = "Dream (arXiv 2508.15487), generation_utils.py, alg"
_ALIASES = {
    "maskgit_plus": ("confidence", "by probability"),
    "topk_margin": ("margin", "by the lead over the second token"),
    "entropy": ("entropy", "by negative entropy"),
}

RULES = (
    replace(
        Rule.of(Dream, _SOURCE, [f"dream:{order}:32" for order in (*_ORDERS, DreamOrigin.order)]), make=_dream,
        parameters=(Choice("order", (*_ORDERS, DreamOrigin.order)), *SCHEDULE),
        summary="Commit the best in an order, as many as Dream's time schedule gives; origin: each by chance.",
    ),
    *(
        Rule(
            alias, SCHEDULE, partial(Dream, order), f"Dream: {words}, S steps of its time schedule.",
            f"{_SOURCE} {alias}", (f"{alias}:32",), stands_for="dream",
        )
        for alias, (order, words) in _ALIASES.items()
    ),
)  # fmt: skip
