"""Does a served graph still keep its promise? A sequential test that may be looked at after every request.

Of every request one number is looked at: its accepted drafts per anchor (``per request``: anchors of one request
resemble each other, requests do not). The promise is the same number of every *reference* prompt of the recording, not
their mean: nothing is assumed about its distribution, and that a few dozen prompts give an estimate only is part of the
test.

If served requests are like the reference prompts, each new one is equally likely to have any rank among all that were
seen so far, reference prompts included. These ranks, with ties broken at random, are then independent and uniform,
exactly (conformal p-values). The test bets against that. It starts with a capital of 1, which under no drift grows to
``1 / f`` or more, at any time, with a probability of at most ``f`` (Ville's inequality): so ``f`` is the rate of false
alarms of a watch that never ends, however often somebody looks.

* **Bets.** A p-value ``p`` multiplies the capital by ``k * p ** (k - 1)``, for ``k`` of 0.2, 0.4, 0.6 and 0.8, against
  ranks that are too low, and by the same of ``1 - p`` against too high ones. The capital is shared out evenly.
* **When.** Of each share ``1 / (n (n + 1))`` is staked from request ``n`` on, so that requests before a drift do not
  eat up what is bet after it; an alarm late in a watch costs the factor of that share.

Sources: V. Vovk, A. Gammerman and G. Shafer, "Algorithmic Learning in a Random World" (2nd edition, 2022), chapter 8,
conformal test martingales; J. Ville, "Étude critique de la notion de collectif" (1939).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass

import numpy as np

FALSE_ALARMS = 0.01
EXPONENTS = (0.2, 0.4, 0.6, 0.8)
LOWER, HIGHER = "lower", "higher"


class DriftError(ValueError):
    """Numbers that cannot be watched."""


@dataclass(frozen=True, eq=False)
class Drift:
    """What the test found in ``R`` requests.

    Attributes:
        capital: float64 [R], after each request.
        false_alarms: at most this share of watches ever raises an alarm where there is no drift.
        alarm: the first request, from 0, at which the capital reached ``1 / false_alarms``; None where it never did.
        since: the request at which the best bet would best have been begun: about where the drift began. None without
            an alarm.
        direction: whether requests accept less (``lower``) or more (``higher``) than promised. None without an alarm.
    """

    capital: np.ndarray
    false_alarms: float
    alarm: int | None = None
    since: int | None = None
    direction: str | None = None

    @property
    def needed(self) -> float:
        """The capital that raises an alarm."""
        return 1 / self.false_alarms


def check_rate(false_alarms: float) -> None:
    """Raise :class:`DriftError` unless ``false_alarms`` is a rate between 0 and 1."""
    if not 0 < false_alarms < 1:
        raise DriftError(f"the rate of false alarms must lie between 0 and 1, for example 0.01, got {false_alarms}")


def conformal_ranks(reference: np.ndarray, served: np.ndarray, seed: int = 0) -> np.ndarray:
    """The p-values of ``served`` [R], each among ``reference`` [M] and all served before: float64 [R] in (0, 1).

    Low where a number is low. Ties are broken by draws of ``seed``, one a request, so the first of a longer watch are
    those of a shorter one. O(log n) comparisons each.
    """
    seen = sorted(reference.tolist())
    found = np.empty(len(served))
    for index, (number, draw) in enumerate(zip(served.tolist(), _draws(seed, len(served)), strict=True)):
        below, up_to = bisect_left(seen, number), bisect_right(seen, number)
        found[index] = (below + draw * (up_to - below + 1)) / (len(seen) + 1)
        insort(seen, number)
    return found


def _draws(seed: int, count: int) -> list[float]:
    """``count`` numbers inside (0, 1)."""
    return (1 - np.random.default_rng(seed).random(count)).clip(1e-12, 1 - 1e-12).tolist()


def watch(reference: np.ndarray, served: np.ndarray, *, false_alarms: float = FALSE_ALARMS, seed: int = 0) -> Drift:
    """Test whether ``served`` requests are like the ``reference`` prompts.

    Args:
        reference: float [M], accepted drafts per anchor of every prompt that the promise is from.
        served: float [R], of every request, in the order in which they were served.
        false_alarms: see :class:`Drift`.
        seed: of the draws that break ties.

    Raises:
        DriftError: no reference prompt, numbers that are not finite, or a rate outside (0, 1).
    """
    reference, served = np.asarray(reference, dtype=np.float64), np.asarray(served, dtype=np.float64)
    check_rate(false_alarms)
    if not len(reference):
        raise DriftError("a watch needs prompts to compare with, got none; give a recording of some dozens")
    if not (np.isfinite(reference).all() and np.isfinite(served).all()):
        raise DriftError("accepted drafts per anchor must be finite numbers")
    ranks = conformal_ranks(reference, served, seed)
    requests = np.arange(1, len(served) + 1)
    stakes = 1 / (requests * (requests + 1.0))
    bets = [
        (direction, np.log(exponent) + (exponent - 1) * np.log(p))
        for direction, p in ((LOWER, ranks), (HIGHER, 1 - ranks))
        for exponent in EXPONENTS
    ]
    paid = np.array([_paid(stakes, bet) for _, bet in bets]).reshape(len(bets), len(served))
    capital = paid.mean(axis=0) + 1 / (requests + 1.0)  # what is not staked yet
    over = np.flatnonzero(capital >= 1 / false_alarms)
    if not len(over):
        return Drift(capital, false_alarms)
    alarm = int(over[0])
    direction = bets[int(paid[:, alarm].argmax())][0]
    # The logarithm of what a stake at each request has become, for every bet of that direction.
    behind = [np.cumsum(bet[alarm::-1])[::-1] for name, bet in bets if name == direction]
    since = int(np.argmax(behind)) % (alarm + 1)
    return Drift(capital, false_alarms, alarm, since, direction)


def _paid(stakes: np.ndarray, bet: np.ndarray) -> np.ndarray:
    """What is at stake after every request: float64 [R], for stakes [R] and logarithms of the bets' factors [R]."""
    found, held = np.empty(len(bet)), 0.0
    for index, (stake, factor) in enumerate(zip(stakes.tolist(), np.exp(bet).tolist(), strict=True)):
        held = min((held + stake) * factor, 1e300)
        found[index] = held
    return found
