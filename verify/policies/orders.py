"""Orders: by which score a rule takes the masked positions, the highest first and equal ones by position.

Random order is LLaDA's ``remasking="random"`` (github ML-GSAI/LLaDA @ b7e6c35, generate.py:8-120: new uniform noise in
every step, tokens still the best or drawn ones), left to right is SDAR's ``sequential`` (github JetAstra/SDAR @
c2041a8, generate.py:119-196), margin and entropy are the orders of Dream, and of ``generate_with_margin`` and
``generate_with_entropy`` under LLaDA (github NEUIR/PC-Sampler @ 6c66276, src/generate.py).
"""

from __future__ import annotations

import numpy as np

from verify.policies.base import BasePolicy, Candidates, drawn
from verify.policies.contract import BlockView, PolicyError
from verify.policies.parameters import Choice
from verify.policies.randomness import StepRandom
from verify.policies.sampling import entropy, softmax

#: ``confidence`` is the probability of the token, ``margin`` the lead of the best token over the second one,
#: ``entropy`` the negative entropy of the distribution, ``left_to_right`` the position, ``random`` noise of the step.
ORDERS = ("confidence", "margin", "entropy", "left_to_right", "random")

#: The order as the last parameter of a rule.
ORDER = Choice("order", ORDERS, default="confidence")


def scores(
    order: str, view: BlockView, tokens: np.ndarray, rng: StepRandom, probability: np.ndarray | None = None
) -> np.ndarray:
    """What an ``order`` takes the positions of ``view`` by, float64 [m], highest first.

    Args:
        order: one of ``ORDERS``.
        view: what the rule was given.
        tokens: int [m], the token of every position.
        rng: the noise of the step, for ``random``.
        probability: float64 [m, V], the distributions to score under; None: those of the view, of whose tokens
            ``tokens`` are the best.

    Raises:
        PolicyError: the margin of a view that holds one vocabulary rank.
    """
    if order == "left_to_right":
        return -view.positions.astype(np.float64)
    if order == "random":
        return rng.uniforms(view.positions)
    if probability is None:
        if order == "entropy":
            return -view.entropies()
        best = view.probabilities[:, :2]
        if order == "margin" and best.shape[1] < 2:
            raise PolicyError("the margin order compares two tokens; keep at least two vocabulary ranks (top_j)")
    else:
        if order == "entropy":
            return -entropy(probability)
        if order == "confidence":
            return probability[np.arange(len(tokens)), tokens]
        best = np.partition(probability, -2, axis=1)[:, :-3:-1]
    return best[:, 0] - best[:, 1] if order == "margin" else best[:, 0]


class OrderedPolicy(BasePolicy):
    """A rule with an ``order``, one of ``ORDERS``: a field of it, or the same for every policy of its class.

    Scores are those of the whole distribution at temperature 1, also where tokens are drawn (LLaDA's way); another
    :meth:`distribution` says otherwise.
    """

    order: str

    @property
    def reads(self) -> str:
        return "entropy" if self.order == "entropy" else "ranks"

    @property
    def ranks(self) -> int:
        return 2 if self.order == "margin" and self.needs != "logits" else 1

    def distribution(self, view: BlockView, scaled: np.ndarray) -> np.ndarray:
        """float64 [m, V], what positions are scored under; tokens are drawn from softmax(``scaled``)."""
        return softmax(view.logits())

    def candidates(self, view: BlockView, rng: StepRandom) -> Candidates:
        tokens = view.tokens[:, 0]
        if self.needs != "logits":
            if self.order == "confidence":
                return super().candidates(view, rng)
            return Candidates.by(view, tokens, scores(self.order, view, tokens, rng))
        scaled = self.sampling.scaled(view.logits())
        if self.sampling.stochastic:
            tokens = drawn(view, scaled, rng)
        return Candidates.by(view, tokens, scores(self.order, view, tokens, rng, self.distribution(view, scaled)))
