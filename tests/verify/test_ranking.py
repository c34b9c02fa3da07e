"""Ranks: ties, the mask token, broken logits, and the order of positions that are almost certain."""

import numpy as np
import pytest
import torch

from tests.support.ranking import rank_logits
from verify.ranked import LaggedRanker
from verify.ranking import rank_rows

MASK = 1


def logits_of(*rows, dtype=torch.float32):
    return torch.tensor([list(map(list, rows))], dtype=dtype)


def test_tokens_are_ranked_by_probability():
    ranked = rank_logits(logits_of([0.0, 0.0, 3.0, 1.0, 2.0]), MASK, 3)
    assert ranked.top_token.tolist() == [[[2, 4, 3]]]
    scores = np.exp([3.0, 2.0, 1.0]) / np.exp([0.0, 3.0, 1.0, 2.0]).sum()
    np.testing.assert_allclose(ranked.top_probability[0, 0], scores, rtol=1e-12)


def test_the_mask_token_is_no_token_and_not_in_the_denominator():
    with_mask = rank_logits(logits_of([0.5, 9.0, 2.0, 1.0]), MASK, 8)
    without = rank_logits(logits_of([0.5, -9.0, 2.0, 1.0]), MASK, 8)
    assert with_mask.top_token.tolist() == [[[2, 3, 0]]]  # three tokens are all that is left of top_j = 8
    assert with_mask.top_probability.sum() == pytest.approx(1.0, abs=1e-15)
    np.testing.assert_array_equal(with_mask.top_probability, without.top_probability)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_models_logits_stay_as_they_are(dtype):
    logits = logits_of([0.5, 9.0, 2.0, 1.0], dtype=dtype)
    before = logits.clone()
    ranked = rank_logits(logits, MASK, 2)
    assert torch.equal(logits, before)
    assert ranked.logits.data_ptr() == logits.data_ptr()


def test_equal_tokens_are_ordered_by_id():
    ranked = rank_logits(logits_of([2.0, 0.0, 1.0, 2.0, 1.0, 2.0]), MASK, 5)
    assert ranked.top_token.tolist() == [[[0, 3, 5, 2, 4]]]


@pytest.mark.parametrize("top_j", [1, 2, 3, 4, 7])
def test_bfloat16_ties_at_the_last_rank_kept(top_j):
    """bf16 has 8 bits: of 400 logits many are equal, also across the border between rank J and J + 1."""
    torch.manual_seed(top_j)
    logits = (torch.randn(2, 16, 400) * 0.05 + 3.0).to(torch.bfloat16)
    ranked = rank_logits(logits, MASK, top_j)
    crossing = 0
    for b in range(2):
        for row in range(16):
            score = [(-logits[b, row, t].item(), t) for t in range(400) if t != MASK]
            score.sort()
            assert ranked.top_token[b, row].tolist() == [t for _, t in score[:top_j]]
            crossing += score[top_j - 1][0] == score[top_j][0]
    assert crossing > 4  # the test is about these rows


def test_rows_with_and_without_ties_do_not_disturb_each_other():
    ranked = rank_logits(logits_of([0.0, 0.0, 5.0, 4.0, 3.0], [7.0, 0.0, 7.0, 7.0, 7.0]), MASK, 2)
    assert ranked.top_token.tolist() == [[[2, 3], [0, 2]]]


def test_a_token_at_minus_infinity_ranks_last_but_never_as_the_mask():
    low = float("-inf")
    ranked = rank_logits(logits_of([low, 9.0, low, 1.0, 2.0]), MASK, 4)
    assert ranked.top_token.tolist() == [[[4, 3, 0, 2]]]
    assert ranked.top_probability[0, 0, 2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf")])  # inf - inf has the sign bit on x86
def test_broken_logits_are_refused(bad):
    with pytest.raises(FloatingPointError, match="NaN, \\+inf or only -inf"):
        rank_logits(logits_of([0.0, 0.0, 1.0], [0.0, 0.0, bad]), MASK, 2)


def test_a_row_without_any_finite_logit_is_refused():
    low = float("-inf")
    with pytest.raises(FloatingPointError, match="only -inf"):
        rank_logits(logits_of([low, 3.0, low]), MASK, 2)


def test_a_broken_logit_of_the_mask_token_itself_does_no_harm():
    assert rank_logits(logits_of([0.0, float("nan"), 1.0]), MASK, 2).top_token.tolist() == [[[2, 0]]]


def test_positions_are_ordered_by_probability_then_position():
    ranked = rank_logits(logits_of(*[[0.0, 0.0, gap] for gap in (1.0, 3.0, 1.0, 2.0, 3.0)]), MASK, 1)
    assert ranked.position_order(0, np.array([0, 1, 2, 3, 4])).tolist() == [1, 4, 3, 0, 2]
    assert ranked.position_order(0, np.array([0, 2, 4])).tolist() == [4, 0, 2]


@pytest.mark.parametrize("height", [0.0, 20.0, 60.0])
def test_order_near_certainty_survives_high_logits(height):
    """1 - p is about 3e-14 and differs by a few per cent; in float32 all four would be exactly 1."""
    gaps = [33.0, 33.4, 32.6, 33.2]
    rows = [[height - gap, 0.0, height - gap, height] for gap in gaps]
    ranked = rank_logits(logits_of(*rows, dtype=torch.float64), MASK, 1)
    assert (ranked.top_probability.astype(np.float32) == 1.0).all()
    assert ranked.position_order(0, np.arange(4)).tolist() == [1, 3, 0, 2]
    np.testing.assert_allclose(1 - ranked.top_probability[0, :, 0], 2 * np.exp(-np.array(gaps)), atol=3e-16)


def test_exactly_equal_certainties_are_a_tie():
    rows = [[0.0, 0.0, 50.0], [0.0, 0.0, 60.0], [0.0, 0.0, 55.0]]  # 1 - p under 1e-16: float64 says 1.0
    ranked = rank_logits(logits_of(*rows), MASK, 1)
    assert ranked.position_order(0, np.arange(3)).tolist() == [0, 1, 2]


def test_lagged_ranks_are_those_of_the_distribution_used():
    first = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 3.0, 0.5], [0.0, 0.0, 0.5, 2.0]]
    second = [[0.0, 0.0, 9.0, 8.0], [0.0, 0.0, 1.0, 2.0], [5.0, 0.0, 0.5, 2.0]]
    ranked = rank_logits(torch.tensor([first, second]), MASK, 2)
    ranks = LaggedRanker().rank(ranked, 1, np.array([0, 1, 2]))
    assert ranks.positions.tolist() == [2, 0, 1]
    assert ranks.tokens.tolist() == [[0, 3], [2, 3], [3, 2]]
    assert LaggedRanker().rank(ranked, 0, np.array([0, 2])).positions.tolist() == [2, 0]


@pytest.mark.parametrize("chunk", [1, 3, 5, 6, 99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ranks_by_keys_are_those_of_a_stable_sort(dtype, chunk, monkeypatch):
    """Negative scores, zeros of both signs, infinities and ties; in chunks that do not divide the rows."""
    import verify.ranking

    torch.manual_seed(0)
    logits = (torch.randn(13, 60) * 2).round(decimals=1).to(dtype)
    logits[0, :5] = torch.tensor([0.0, -0.0, 0.0, -0.0, 0.0])
    logits[1, 3:9] = -torch.inf
    logits[2] = -7.5
    logits[3, 4] = torch.finfo(dtype).max
    logits[4] = -logits[4].abs()
    monkeypatch.setattr(verify.ranking, "RANKING_CHUNK", chunk * 60)
    for top_j in (1, 4, 59):
        token, probability, entropy = verify.ranking.rank_rows(logits, MASK, top_j, entropies=top_j == 4)
        expected_token, expected, _ = verify.ranking.rank_rows(logits.double(), MASK, top_j)
        np.testing.assert_array_equal(token, expected_token)
        np.testing.assert_array_equal(probability, expected)
        assert (entropy is None) == (top_j != 4)


def test_entropies_are_those_of_the_whole_distribution_without_the_mask():
    """Uniform over eight tokens, certain of one, and two tokens with all other logits at minus infinity."""
    logits = torch.zeros(3, 9)
    logits[1, 4] = 900.0
    logits[2] = -torch.inf
    logits[2, [0, 8]] = 2.0
    logits[:, MASK] = 50.0
    _, _, entropy = rank_rows(logits, MASK, 1, entropies=True)
    np.testing.assert_allclose(entropy, [np.log(8), 0.0, np.log(2)], atol=1e-15)
    assert entropy[1] == 0.0
    torch.manual_seed(1)
    rows = torch.randn(20, 30) * 3
    _, _, entropy = rank_rows(rows, MASK, 2, entropies=True)
    rest = np.delete(rows.double().numpy(), MASK, axis=1)
    probability = np.exp(rest) / np.exp(rest).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(entropy, -(probability * np.log(probability)).sum(axis=1), rtol=1e-13)
