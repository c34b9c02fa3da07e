"""Milliseconds of a replayed state log: every forward at the latency of its width."""

from dataclasses import replace

import numpy as np
import pytest

from calibrate.measuring.latency_table import LatencyError, LatencyTable
from drafting.state_replay import StateReplay
from studies.pricing.state_price import state_milliseconds

TABLE = LatencyTable(
    device="cpu", dtype="float32", model="m", backend="packed", block_length=8, context_length=16, batch=1,
    drafts=(0, 1, 4), query_tokens=(8, 16, 40), latency=(10.0, 13.0, 20.0), low=(10.0, 13.0, 20.0),
    high=(10.0, 13.0, 20.0), refresh=30.0, repeats=3,
)  # fmt: skip


def replayed(widths):
    widths = np.array(widths)
    found = len(widths)
    refreshes, nothing = np.arange(1, found + 1), np.zeros(found, dtype=np.int64)
    return StateReplay(
        np.arange(found), nothing, widths.sum(axis=1) + refreshes, nothing, nothing, refreshes, nothing, widths, 0, 0
    )


def test_every_forward_costs_what_its_width_does():
    # One refresh, one forward of width 0, two of 1; then two refreshes, a forward of 2 (priced as 4) and one of 4.
    found = state_milliseconds(replayed([[1, 2, 0, 0, 0], [0, 0, 1, 0, 1]]), TABLE)
    assert found.tolist() == [30 + 10 + 26, 60 + 20 + 20]


def test_entries_that_do_not_occur_need_no_measurement():
    assert state_milliseconds(replayed([[3, 0, 0, 0, 0, 0]]), TABLE).tolist() == [60.0]


def test_what_was_not_measured_is_refused():
    with pytest.raises(LatencyError, match=r"up to 5 blocks of rows .* measured for 4 drafts at most; .* up to 5"):
        state_milliseconds(replayed([[0, 0, 0, 0, 0, 1]]), TABLE)
    with pytest.raises(LatencyError, match="a batch of 2"):
        state_milliseconds(replayed([[1]]), replace(TABLE, batch=2))
