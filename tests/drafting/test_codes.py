"""Codes: additive, order-free, stable across versions, no collisions among real pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafting.codes import distinct_codes, formula_codes, pair_codes
from verify.graph.formulas import ROOT, formula

PAIRS = st.dictionaries(st.integers(1, 64), st.integers(1, 32), max_size=8)


def test_codes_never_change() -> None:
    """Codes may be stored beside counts, so their values are part of the contract."""
    assert pair_codes(np.array([1, 1, 2]), np.array([1, 2, 1])).tolist() == FROZEN


FROZEN = [12907530582970678659, 802605708536680711, 9645306626371925366]


def test_no_two_pairs_share_a_code() -> None:
    i, j = np.meshgrid(np.arange(1, 513), np.arange(1, 129))
    assert len(np.unique(pair_codes(i, j))) == i.size


def test_no_two_small_sets_share_a_code() -> None:
    pairs = [(i, j) for i in range(1, 13) for j in range(1, 4)]
    sets = [formula([a, b, c]) for a in pairs for b in pairs for c in pairs if a[0] < b[0] < c[0]]
    sets += [formula([a, b]) for a in pairs for b in pairs if a[0] < b[0]] + [(a,) for a in pairs] + [ROOT]
    assert len(np.unique(formula_codes(sets))) == len(sets)


@given(PAIRS)
def test_a_code_is_the_sum_of_its_pairs(pairs: dict[int, int]) -> None:
    value = formula(pairs.items())
    total = sum(int(pair_codes(np.array([i]), np.array([j]))[0]) for i, j in value) % 2**64
    assert formula_codes([ROOT, value, value]).tolist() == [0, total, total]


@pytest.mark.parametrize("count", [0, 1, 50, 5000])
def test_distinct_codes_are_those_of_numpy(count: int) -> None:
    rng = np.random.default_rng(count)
    codes = pair_codes(rng.integers(1, 65, count), rng.integers(1, 9, count))
    if count:
        codes[0] = 0  # the root's code
    values, place = distinct_codes(codes)
    expected, inverse = np.unique(codes, return_inverse=True)
    assert np.array_equal(values, expected)
    assert values.dtype == np.uint64
    assert np.array_equal(place, inverse)
