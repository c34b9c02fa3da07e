"""Dream's order ``origin``: every masked position is committed by chance, as time goes by.

The rule of the diffusion process itself: time falls evenly from 1 to ``eps`` in ``S`` steps, and in a step from ``t``
to ``s`` every masked position is committed with probability ``1 - s / t``, whatever the model says of it; the last step
commits what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from verify.policies.base import BasePolicy, drawn
from verify.policies.contract import BlockView, Commits
from verify.policies.parameters import Choice, Number, Whole, write_arguments
from verify.policies.randomness import StepRandom

#: What the orders of Dream share, in its text.
SCHEDULE = (Whole("S"), Number("eps", default=1e-3))


@dataclass(frozen=True)
class DreamOrigin(BasePolicy):
    """Commit every masked position by chance, with the probability of Dream's time schedule.

    A step may commit nothing; the loop pays its forward, as the source does. Which positions are committed is keyed
    noise of its own, at temperature 0 too, so two seeds give two answers. Tokens are those of the distribution that is
    left by temperature, ``top_p`` and ``top_k``, and are drawn only where they are committed; nothing is ordered, so at
    temperature 0 the filters change nothing.

    Source: ``alg="origin"`` of Dream's ``generation_utils.py``, in the copy of NVlabs/Fast-dLLM at 24cc59e,
    dream/model/generation_utils.py, 62-93 and 436-441. It draws its noise from torch's generator in the order of the
    positions; with another noise its texts are other samples of the same distribution. The schedule is of a block here,
    which is the whole answer in the source.
    """

    steps: int
    eps: float = 1e-3
    name = "dream"
    order = "origin"
    parameters = (Choice("order", ("origin",)), *SCHEDULE)
    may_do_nothing = True

    def arguments(self) -> list[str]:
        return [self.order, *write_arguments(SCHEDULE, (self.steps, self.eps))]

    @property
    def longest_pause(self) -> int:
        """Steps in a row that may commit nothing: all but the last one."""
        return self.steps - 1

    def share(self, step: int) -> float:
        """The probability with which a masked position is committed in the 1-based ``step`` of the block."""
        if step >= self.steps:
            return 1.0
        elapsed = (1 - self.eps) / self.steps
        return elapsed / (1 - (step - 1) * elapsed)

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        rows = np.flatnonzero(rng.uniforms(view.positions) < self.share(rng.step))
        tokens = view.tokens[rows, 0]
        if self.sampling.stochastic and len(rows):
            part = replace(view, positions=view.positions[rows])
            tokens = drawn(part, self.sampling.scaled(view.logits()[rows]), rng)
        return Commits(view.positions[rows], tokens), state
