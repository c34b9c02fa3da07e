from __future__ import annotations

import pytest

from studies.statistics.shares import Share


def test_the_interval_is_the_exact_one() -> None:
    """Clopper and Pearson: none of 48 still allows 1 - 0.025^(1/48)."""
    none, some = Share.of([False] * 48), Share.of([True] * 3 + [False] * 7)
    assert (none.count, none.prompts, none.low) == (0, 48, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 48))
    assert (some.low, some.high) == (pytest.approx(0.0667, abs=1e-4), pytest.approx(0.6525, abs=1e-4))
    assert str(some) == "3 of 10"
