"""What informed drafts cost on a device: the forwards that a replayed state log counts, at measured latencies."""

from __future__ import annotations

import numpy as np

from calibrate.measuring.latency_table import LatencyError, LatencyTable
from drafting.state_replay import StateReplay


def state_milliseconds(replayed: StateReplay, latency: LatencyTable) -> np.ndarray:
    """Milliseconds that every prompt of a replayed state log takes, float64 [M].

        time = refresh forwards * refresh + sum over step forwards of latency(w),  w = drafts + 2 * bridges + carried

    A forward with ``w`` blocks of rows beside the real one computes as many rows as one with ``w`` drafts, which is
    what was timed; a ``w`` that was not measured is priced as the next larger one, as in ``studies.pricing.budget``.

    Args:
        replayed: widths and refresh forwards per prompt.
        latency: of one sequence at a time, for the block length and cache mode of the log.

    Raises:
        LatencyError: a table of a batch, whose forwards are as wide as the fullest of its sequences; or one that ends
            before the widest forward.
    """
    if latency.batch != 1:
        raise LatencyError(
            f"the latency table is of a batch of {latency.batch}, and in a batch a forward is as wide as the fullest "
            "of its sequences, which a log does not tell; measure with --batch 1"
        )
    counts = replayed.widths_per_prompt
    widest = int(np.flatnonzero(counts.any(axis=0)).max(initial=0))
    if widest > latency.drafts[-1]:
        raise LatencyError(
            f"a forward carries up to {widest} blocks of rows beside the real one, but latency was measured for "
            f"{latency.drafts[-1]} drafts at most; measure with --drafts up to {widest}"
        )
    entry = np.searchsorted(latency.drafts, np.arange(widest + 1))
    milliseconds = np.array(latency.latency)[entry]
    return replayed.refreshes_per_prompt * latency.refresh + counts[:, : widest + 1] @ milliseconds
