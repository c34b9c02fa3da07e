"""KLASS: what is confident and has not changed for some steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verify.policies.base import BasePolicy, Candidates
from verify.policies.parameters import Number, Whole
from verify.policies.randomness import StepRandom
from verify.policies.rule import Rule
from verify.policies.sampling import softmax

#: Added to probabilities inside the logarithms, as in the source.
SMALL = 1e-12


@dataclass(frozen=True, eq=False)
class Past:
    """What a step saw; ``m`` positions.

    Attributes:
        positions: int [m], offsets that were masked.
        logits: float64 [m, V], in their order; not changed by anybody.
    """

    positions: np.ndarray
    logits: np.ndarray

    def logits_of(self, position: int) -> np.ndarray | None:
        """float64 [1, V], the logits of an offset; None where it was not seen."""
        rows = np.flatnonzero(self.positions == position)
        return self.logits[rows[0] : rows[0] + 1] if len(rows) else None


@dataclass(frozen=True)
class Klass(BasePolicy):
    """Commit all that are confident and stable; where none is, the most confident position.

    Confident: above ``tau``. Stable: in each of the last ``n`` steps the divergence KL(p || p of the step before) was
    below ``eps``, in nats. Both strictly.

    arXiv 2511.05664, algorithm 1; shkim0116/KLASS at ad87ecb, ``src/model/llada_klass.py``, lines 65-68, 76-93, 110-132
    and 155-182 (unmask_strategy all). Where we differ: the history begins with the block, as a decode that caches keys
    knows nothing of a block before its first forward, so the first commit that is due to stability falls into step
    n + 1 of every block; the source keeps the history of the whole sequence across blocks, and can commit in step n of
    a later one. In the first block both are the same. The mask token is left out before the softmax. Where none is
    stable one position is committed, which is what the published settings (as many steps as tokens) do.

    Tokens that are drawn, where they are, have their own probability as confidence; the divergence is that of the
    distributions without noise and temperature. The source adds the noise before both, which leaves nothing stable.

    Complexity: O(c n V) for the c positions above ``tau``: divergences are computed from the logits of the last n
    steps, which the state keeps, n m V numbers, and only where they decide something.
    """

    tau: float
    eps: float = 0.01
    n: int = 2
    name = "klass"
    parameters = (
        Number("tau", 0.0, 1.0, low_open=False, high_open=True),
        Number("eps", 0.0, None, default=0.01),
        Whole("n", 1, 1000, default=2),
    )

    @property
    def reads(self) -> str:
        """A divergence is of whole distributions."""
        return "logits"

    def initial_state(self) -> tuple[Past, ...]:
        """The state is what the last ``n`` steps of the block saw, the newest first."""
        return ()

    def choose(
        self, found: Candidates, state: tuple[Past, ...], rng: StepRandom
    ) -> tuple[np.ndarray, tuple[Past, ...]]:
        past = () if rng.step == 1 else state
        now = Past(found.view.positions, found.view.logits())
        ready = np.flatnonzero(found.confidences > self.tau)
        if len(past) < self.n:
            ready = ready[:0]
        chosen: list[int] = []
        # One position at a time: its distributions stay in the processor's cache, those of all would not.
        for index in ready.tolist():
            stable = self._is_stable(now, past, int(found.positions[index]))
            if stable is None:  # a draft's state whose steps were guessed: nothing is known to be stable
                chosen = []
                break
            if stable:
                chosen.append(index)
        return np.array(chosen or [0]), (now, *past[: self.n - 1])

    def _is_stable(self, now: Past, past: tuple[Past, ...], position: int) -> bool | None:
        """Whether the last ``n`` steps left a position's distribution as it was; None where one did not see it."""
        new = None
        for seen in (now, *past[: self.n]):
            logits = seen.logits_of(position)
            if logits is None:
                return None
            old = softmax(logits)
            if new is not None and not divergence(new, old)[0] < self.eps:
                return False
            new = old
        return True


def divergence(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """KL(new || old) in nats, float64 [c], of distributions float64 [c, V], with ``SMALL`` inside the logarithms."""
    return (new * (np.log(new + SMALL) - np.log(old + SMALL))).sum(axis=1)


_SOURCE = "KLASS (arXiv 2511.05664), algorithm 1; llada_klass.py, unmask_strategy all"

RULES = (Rule.of(Klass, _SOURCE, ["klass:0.9"], exact=False),)
