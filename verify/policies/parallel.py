"""Rules that commit as many positions as one distribution allows: by a joint bound, by entropies, by neighbourhood.

None looks back, and none reads more than the confidences, the entropies and the positions of one step. Where tokens are
drawn, a confidence is the drawn token's probability, and confidences and entropies are those at temperature 1. Scores
are float64 and of the distribution without the mask token, equal ones go by position, and candidates are the masked
positions of the block; where a source has it otherwise, its rule says so. Repositories, commits and lines stand in
``RULES``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.policies.base import BasePolicy, Candidates
from verify.policies.contract import PolicyError
from verify.policies.orders import OrderedPolicy
from verify.policies.parameters import Choice, Number, Whole, number_text
from verify.policies.randomness import StepRandom
from verify.policies.rule import Rule


@dataclass(frozen=True)
class Factor(BasePolicy):
    """Commit the best n for the largest n with (n + 1) (1 - c_n) < ``f``, the best one always (Fast-dLLM's paper).

    ``c_n`` is the n-th highest confidence. The left side never falls with n, so this is a prefix of the order. Up to
    f = 1 the n tokens are the most probable ones together, too (theorem 1 of the source), and a larger f is bolder.
    """

    f: float
    name = "factor"
    parameters = (Number("f", high=None),)

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[int, Any]:
        number = np.arange(1, len(found.confidences) + 1)
        return max(1, int(np.count_nonzero((number + 1) * (1 - found.confidences) < self.f))), state


@dataclass(frozen=True)
class FactorCode(BasePolicy):
    """Commit the best positions up to the first with c_n < 1 - ``f`` / (n + 1), one at least (Fast-dLLM's code).

    Where exactly the last masked position fails first, it is committed too: the scan of the source does not tell that
    it stopped there from that it came through. So two masked positions are always committed together, and a single one
    is never left over. It also takes what lies on the bound, which ``factor`` does not.
    """

    f: float
    name = "factor_code"
    parameters = (Number("f", high=None),)

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[int, Any]:
        masked = len(found.confidences)
        passes = found.confidences >= 1 - self.f / np.arange(2, masked + 2)
        passes[0] = True
        count = masked if passes.all() else int(passes.argmin())
        return (masked if count == masked - 1 else count), state


@dataclass(frozen=True)
class EntropyThreshold(OrderedPolicy):
    """Commit the position of the lowest entropy, and every one with an entropy of at most ``nats`` (dParallel).

    ``edge`` says whether ``nats`` itself is taken: ``at_most`` as the source does for LLaDA, ``below`` as for Dream.
    The source adds 1e-12 to every probability before the logarithm; for Dream 1e-8, and in the dtype of the logits.
    """

    nats: float = 0.5
    edge: str = "at_most"
    name = "entropy_threshold"
    order = "entropy"
    parameters = (
        Number("nats", high=None, low_open=False, default=0.5),
        Choice("edge", ("at_most", "below"), default="at_most"),
    )

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[int, Any]:
        entropies = found.entropies()
        low = entropies < self.nats if self.edge == "below" else entropies <= self.nats
        return max(1, int(np.count_nonzero(low))), state


@dataclass(frozen=True)
class EBSampler(OrderedPolicy):
    """Commit the best positions in ``order`` while their entropies sum up to ``gamma`` at most, the highest left out.

    The sum without its highest term bounds what the tokens say about each other (EB-Sampler). It never falls with a
    further position, and for one position it is 0. The bound is on entropies in every order. The ports that were read
    choose among all masked positions of the sequence; here, as with every rule, among those of the block.
    """

    gamma: float
    order: str = "entropy"
    name = "eb_sampler"
    parameters = (
        Number("gamma", high=None, low_open=False),
        Choice("order", ("entropy", "confidence", "margin"), default="entropy"),
    )

    @property
    def reads(self) -> str:
        return "entropy"

    @property
    def ranks(self) -> int:
        return 2 if self.order == "margin" and self.needs != "logits" else 1

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[int, Any]:
        entropies = found.entropies()
        highest = np.maximum.accumulate(entropies)
        # A further position adds the lower one of its entropy and the highest so far; nothing is subtracted, so a sum
        # that lies on the bound is not moved off it by rounding.
        others = np.cumsum(np.minimum(entropies[1:], highest[:-1]))
        return 1 + int(np.count_nonzero(others <= self.gamma)), state


@dataclass(frozen=True)
class LocalLeap(BasePolicy):
    """Commit the best, all with confidence >= ``threshold``, and all >= ``relaxed`` within ``radius`` of one of these.

    Distances count every position of the block, decided ones included; beyond the block's end nothing is committed.
    Neighbours of a position that only ``relaxed`` let through gain nothing by it, nor do those of the best one where it
    is below ``threshold``.

    Raises:
        PolicyError: ``relaxed`` is above ``threshold``, so that a neighbour would find it harder.
    """

    threshold: float = 0.9
    relaxed: float = 0.75
    radius: int = 4
    name = "local_leap"
    parameters = (Number("threshold", default=0.9), Number("relaxed", default=0.75), Whole("radius", 0, default=4))

    def __post_init__(self) -> None:
        check_order("relaxed", self.relaxed, "threshold", self.threshold)

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[np.ndarray, Any]:
        chosen = found.confidences >= self.threshold
        distances = np.abs(found.positions[:, None] - found.positions[chosen])
        near = (distances <= self.radius).any(axis=1)
        chosen |= near & (found.confidences >= self.relaxed)
        chosen[0] = True
        return np.flatnonzero(chosen), state


@dataclass(frozen=True)
class Hierarchy(BasePolicy):
    """Commit the best of each run of masks if it is above ``low``, all above ``high``, and the best of all (dInfer).

    A run is a maximal stretch of neighbouring masked positions of the block. Both bounds are left out themselves, so
    ``high`` = 1 takes none (the source's default). Every position that equals its run's best is taken, as in the
    source, whose confidences have the dtype of the logits and so are equal more often.

    Raises:
        PolicyError: ``low`` is above ``high``.
    """

    low: float = 0.4
    high: float = 1.0
    name = "hierarchy"
    parameters = (Number("low", low_open=False, default=0.4), Number("high", low_open=False, default=1.0))

    def __post_init__(self) -> None:
        check_order("low", self.low, "high", self.high)

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[np.ndarray, Any]:
        order = np.argsort(found.positions)
        confidences = found.confidences[order]
        starts = np.flatnonzero(np.diff(found.positions[order], prepend=-2) > 1)
        best = np.repeat(np.maximum.reduceat(confidences, starts), np.diff(starts, append=len(order)))
        chosen = np.zeros(len(order), dtype=bool)
        chosen[order] = ((confidences == best) & (confidences > self.low)) | (confidences > self.high)
        chosen[0] = True
        return np.flatnonzero(chosen), state


def check_order(name: str, value: float, bound: str, most: float) -> None:
    """Refuse a parameter ``name`` that is above another one, called ``bound``, with a PolicyError."""
    if value > most:
        raise PolicyError(
            f"{name} is {number_text(value)}, expected at most {bound}, which is {number_text(most)}; "
            f"lower {name} or raise {bound}"
        )


_FAST = "Fast-dLLM (arXiv 2505.22618)"

RULES = (
    Rule.of(Factor, f"{_FAST}, section 3, theorem 1 and algorithm 1", ["factor:1"]),
    Rule.of(
        FactorCode,
        f"{_FAST}, github NVlabs/Fast-dLLM @ f6b35ec, llada/generate.py, get_transfer_index_dynamic",
        ["factor_code:1"],
    ),
    Rule.of(
        EntropyThreshold,
        "dParallel (arXiv 2509.26488), github czg1225/dParallel @ 2ca4d14, LLaDA/generate.py:113-131; below: "
        "Dream/model/generation_utils_semiar.py:484-514",
        ["entropy_threshold:0.45", "entropy_threshold:0.45:below"],
    ),
    Rule.of(
        EBSampler,
        "EB-Sampler (arXiv 2505.24857); entropy order also github NEUIR/PC-Sampler @ 8b106b0, src/generate.py:338",
        ["eb_sampler:0.1", "eb_sampler:0.1:confidence", "eb_sampler:0.1:margin"],
    ),
    Rule.of(
        LocalLeap,
        "LocalLeap (arXiv 2510.07081), generate.py of a copy of github friedrichor/LocalLeap, get_transfer_index",
        ["local_leap", "local_leap:0.8:0.6"],
    ),
    Rule.of(
        Hierarchy,
        "dInfer (arXiv 2510.08666), github inclusionAI/dInfer @ fce4e32, "
        "python/dinfer/decoding/parallel_strategy.py:418-498, HierarchyDecoder",
        ["hierarchy", "hierarchy:0.6:0.9"],
    ),
)
