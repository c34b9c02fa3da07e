"""Are other drafts accepted than promised? A test of whole profiles, at 8, 16, 32, ... requests.

The *profile* of a request is the share of its anchors at which each draft node (or depth) was accepted. Domains can
differ in it and yet accept as many drafts in all; then the graph keeps its promise, and another graph may win more.

At every look the profiles of the requests are compared with those of the reference prompts: by the squared distance of
their means in units of the pooled spread (Hotelling's statistic, with a ridge, so that it exists for more nodes than
prompts). Its distribution without a drift is not assumed but made: labels "reference" and "request" are dealt out anew,
thousands of times, which is exact for any distribution (a permutation test). A look compares all requests, and the
newer half of them, as a drift may have begun late. Look ``k`` may raise a false alarm with a probability of
``f / (k (k + 1))``; so all looks together do with at most ``f``, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: Requests at the first look; every further look has twice as many.
FIRST_LOOK = 8
#: A look compares the newest requests only, so that it costs the same however long a watch lasts.
MOST_REQUESTS = 2048
#: The share of the mean variance that is added to every variance.
RIDGE = 0.1
_CELLS = 1 << 21


def looks(requests: int) -> Iterator[tuple[int, int]]:
    """(number of the look from 1, requests seen by then), up to ``requests``."""
    number, seen = 1, FIRST_LOOK
    while seen <= requests:
        yield number, seen
        number, seen = number + 1, 2 * seen


def profile_alarm(reference: np.ndarray, served: np.ndarray, false_alarms: float, seed: int = 0) -> int | None:
    """The request, from 0, at whose look an alarm was raised first; None where none was.

    Args:
        reference: float [M, C], profiles of the reference prompts.
        served: float [R, C], of the requests, in the order in which they were served.
        false_alarms: at most this share of watches without a drift ever raises an alarm.
        seed: of the deals. A look depends on its requests alone, so a longer watch repeats those of a shorter one.

    Complexity: per look up to ``20 k (k + 1) / false_alarms`` deals of M + R labels; most often some hundreds, as a
    look is given up as soon as its deals forbid an alarm.
    """
    for number, seen in looks(len(served)):
        level = false_alarms / (2 * number * (number + 1))
        for part, count in enumerate((seen, seen // 2)):
            newest = served[seen - min(count, MOST_REQUESTS) : seen]
            if _differs(reference, newest, level, np.random.default_rng([seed, number, part])):
                return seen - 1
    return None


def _differs(reference: np.ndarray, served: np.ndarray, level: float, rng: np.random.Generator) -> bool:
    """Whether the permutation p-value is at most ``level``."""
    white = whitened(np.concatenate([reference, served]))
    count, new = len(white), len(served)
    weight = np.full(count, 1 / new)
    weight[: len(reference)] = -1 / len(reference)
    # Rounding must not part deals that are the same, so a distance counts as reached a little below it.
    distance = float(((weight @ white) ** 2).sum()) * (1 - 1e-9)
    deals, reached = int(np.ceil(5 / level)), 0
    allowed = level * (deals + 1) - 1  # reached more often than that, no alarm can follow
    for low in range(0, deals, rows := max(1, min(256, _CELLS // count))):
        drawn = rng.permuted(np.tile(weight, (min(rows, deals - low), 1)), axis=1)
        reached += int((((drawn @ white) ** 2).sum(axis=1) >= distance).sum())
        if reached > allowed:
            return False
    return True


def whitened(profiles: np.ndarray) -> np.ndarray:
    """``profiles`` [n, C] without their mean, in units of their spread (with a ridge): float64 [n, C].

    No label plays a part, so labels can be dealt out anew behind it.
    """
    centred = profiles - profiles.mean(axis=0)
    spread = centred.T @ centred / max(len(centred) - 1, 1)
    values, vectors = np.linalg.eigh(spread)
    ridge = RIDGE * float(values.clip(0).mean()) if len(values) else 0.0
    scale = np.sqrt(np.maximum(values, 0.0) + ridge)
    return (centred @ vectors) / np.where(scale > 0, scale, 1.0)
