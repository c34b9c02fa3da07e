"""Filling formulas at an anchor: ranks become tokens, and drafts that nobody needs are left out."""

import numpy as np
import pytest

from tests.support.models import random_formulas
from verify.drafts import DraftFiller
from verify.graph.formulas import FormulaError
from verify.ranked import AnchorRanks

M = 99  # the mask token
# Offsets 0, 2, 3 and 5 are masked; their position ranks are 3 -> 1, 0 -> 2, 5 -> 3, 2 -> 4.
BLOCK = np.array([M, 7, M, M, 8, M])
RANKS = AnchorRanks(np.array([3, 0, 5, 2]), np.array([[30, 31], [40, 41], [50, 51], [60, 61]], dtype=np.int32))


def test_ranks_become_tokens():
    states, which = DraftFiller([[(1, 1)], [(1, 2), (3, 1)], [(2, 1), (4, 2)]]).fill(BLOCK, RANKS)
    assert which.tolist() == [0, 1, 2]
    assert states.tolist() == [
        [M, 7, M, 30, 8, M],
        [M, 7, M, 31, 8, 50],
        [40, 7, 61, M, 8, M],
    ]
    assert BLOCK.tolist() == [M, 7, M, M, 8, M]


def test_pairs_may_come_in_any_order():
    filler = DraftFiller([[(3, 1), (1, 2)]])
    assert filler.formulas == (((1, 2), (3, 1)),)
    assert filler.fill(BLOCK, RANKS)[0].tolist() == [[M, 7, M, 31, 8, 50]]


def test_a_draft_that_completes_the_block_is_left_out():
    whole = [(1, 1), (2, 1), (3, 1), (4, 1)]
    states, which = DraftFiller([whole, whole[:3]]).fill(BLOCK, RANKS)
    assert which.tolist() == [1]
    assert (states == M).sum() == 1


def test_ranks_out_of_reach_are_left_out():
    """Position rank 5 has no masked position, vocabulary rank 3 no recorded token; their neighbours stay."""
    states, which = DraftFiller([[(5, 1)], [(4, 1)], [(1, 3)], [(1, 2)], [(1, 1), (2, 3)]]).fill(BLOCK, RANKS)
    assert which.tolist() == [1, 3]
    assert states.tolist() == [[M, 7, 60, M, 8, M], [M, 7, M, 31, 8, M]]


def test_at_the_last_masked_position_no_draft_is_left():
    ranks = AnchorRanks(RANKS.positions[:1], RANKS.tokens[:1])
    states, which = DraftFiller([[(1, 1)], [(1, 2)], [(2, 1)]]).fill(np.array([1, 7, 2, M, 8, 3]), ranks)
    assert states.shape == (0, 6)
    assert len(which) == 0


def test_filling_equals_the_definition_for_random_graphs():
    rng = np.random.default_rng(0)
    for seed in range(40):
        formulas = random_formulas(seed, 12, step_size=None, ranks=7, top_j=4)
        masked = np.sort(rng.choice(8, size=rng.integers(1, 9), replace=False))
        block = rng.integers(0, 50, size=8)
        block[masked] = M
        positions = rng.permutation(masked)
        tokens = np.stack([rng.permutation(50)[:3] for _ in masked]).astype(np.int32)
        expected = {}
        for k, f in enumerate(formulas):
            if len(f) < len(masked) and all(i <= len(masked) and j <= 3 for i, j in f):
                state = block.copy()
                for i, j in f:
                    state[positions[i - 1]] = tokens[i - 1, j - 1]
                expected[k] = state.tolist()
        states, which = DraftFiller(formulas).fill(block, AnchorRanks(positions, tokens))
        assert dict(zip(which.tolist(), states.tolist(), strict=True)) == expected


def test_an_empty_graph():
    filler = DraftFiller([])
    assert (len(filler), filler.max_vocabulary_rank) == (0, 1)
    assert filler.fill(BLOCK, RANKS)[0].shape == (0, 6)


def test_the_highest_vocabulary_rank_is_known():
    assert DraftFiller([[(1, 1)], [(2, 1), (3, 7)], [(9, 2)]]).max_vocabulary_rank == 7


def test_the_root_is_no_draft():
    with pytest.raises(ValueError, match=r"the root .* must not be among the drafts"):
        DraftFiller([[(1, 1)], []])


def test_one_formula_twice_is_refused():
    with pytest.raises(ValueError, match="stands twice"):
        DraftFiller([[(1, 1), (2, 1)], [(2, 1), (1, 1)]])


@pytest.mark.parametrize("bad", [[(0, 1)], [(1, 0)], [(1, 1), (1, 2)], [(1.0, 1)], [(True, 1)]])
def test_impossible_ranks_are_refused(bad):
    with pytest.raises(FormulaError):
        DraftFiller([bad])
