"""The calibration-size curve: sizes, draws, the rule in words, errors."""

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.replay import ReplayResult, replay
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from studies.statistics.calibration_size import SizeCurve, SizePoint, calibration_size_curve, default_sizes
from studies.statistics.crossval import SplitError
from tests.support.toy import toy_traces

LENGTH = 10


def table(seed: int, prompts: int) -> AnchorTable:
    return AnchorTable.from_traces(toy_traces(seed, prompts=prompts, blocks=2, length=LENGTH, noise=0.2), None)


def counts(forwards: np.ndarray) -> ReplayResult:
    size = len(forwards)
    plain, ones = np.full(size, 60), np.ones(size)
    return ReplayResult(
        prompt_indices=np.arange(size),
        plain_per_prompt=plain,
        forwards_per_prompt=forwards,
        tokens_per_prompt=plain,
        anchors_per_prompt=59 * ones,
        accepted_per_prompt=ones,
        accepted_histogram=np.ones(1),
        visited_histogram=np.ones(1),
        refreshes_per_prompt=ones,
        widths_per_prompt=np.ones((size, 1)),
    )


def curve_of(half: list[np.ndarray], whole: np.ndarray) -> SizeCurve:
    points = (
        SizePoint(10, 8, (2.0,) * len(half), tuple(counts(draw) for draw in half)),
        SizePoint(20, 8, (1.9,), (counts(whole),)),
    )
    return SizeCurve("greedy", points)


def test_sizes_double_and_hold_half_and_all() -> None:
    assert default_sizes(96) == (5, 10, 20, 40, 48, 80, 96)
    assert default_sizes(40) == (5, 10, 20, 40)
    assert default_sizes(3) == (2, 3)


def test_points_are_what_the_searches_found() -> None:
    search, held_out = table(1, 12), table(2, 9)
    curve = calibration_size_curve(
        "greedy", search, held_out, [6, 3], block_length=LENGTH, step_size=1, sizes=[4], draws=3
    )
    assert [(point.budget, point.prompts, len(point.held_out)) for point in curve.points] == [
        (3, 4, 3),
        (3, 6, 3),
        (3, 12, 1),
        (6, 4, 3),
        (6, 6, 3),
        (6, 12, 1),
    ]
    order = greedy(PrefixTrie.from_anchors(search, max_depth=6), 6).nodes
    assert np.array_equal(curve.points[-1].held_out[0].forwards_per_prompt, replay(order, held_out).forwards_per_prompt)
    assert curve.points[-1].in_sample == (replay(order, search).nfe_reduction,)
    assert len({draw.forwards_per_prompt.tobytes() for draw in curve.points[3].held_out}) > 1, "the draws differ"
    again = calibration_size_curve(
        "greedy", search, held_out, [3, 6], block_length=LENGTH, step_size=1, sizes=[4], draws=3
    )
    assert again.rows() == curve.rows()


def test_rows_hold_the_mean_over_draws_and_their_spread() -> None:
    curve = curve_of([np.full(8, 20.0), np.full(8, 30.0)], np.full(8, 15.0))
    first, second = curve.rows()
    assert first.nfe_reduction == pytest.approx(60 / 25)
    assert (first.draws, first.draws_low, first.draws_high) == (2, 2.0, 3.0)
    assert (second.search_prompts, second.forwards_mean, second.nfe_reduction) == (20, 120.0, 4.0)


def test_a_gain_that_paid_says_more_prompts_would_help() -> None:
    rng = np.random.default_rng(0)
    half = 30 + rng.integers(0, 5, 20).astype(float)
    found = curve_of([half, half + 1], half - 4).answer(8)
    assert found.more_would_help
    assert found.sentence().startswith("More prompts are likely to help: from 10 to 20 search prompts")


def test_a_gain_that_chance_explains_says_so_and_how_much_may_be_unseen() -> None:
    rng = np.random.default_rng(0)
    half = 30 + rng.integers(0, 5, 20).astype(float)
    found = curve_of([half, half], half + np.tile([1.0, -1.0], 10)).answer(8)
    assert not found.more_would_help
    assert "the interval contains zero" in found.sentence()
    assert f"A gain of up to {found.gain.high:.3f} may have gone unseen" in found.sentence()


def test_too_few_held_out_prompts_conclude_nothing() -> None:
    half = 30 + np.random.default_rng(0).integers(0, 5, 20).astype(float)
    for prompts, enough in ((11, False), (12, True)):
        found = curve_of([half[:prompts], half[:prompts] + 1], half[:prompts] - 4).answer(8)
        assert found.gain.low > 0
        assert found.more_would_help is enough
        few = f"Too few held-out prompts ({prompts}) to conclude whether more prompts would help"
        assert found.sentence().startswith("More prompts are likely to help" if enough else few)


def test_a_loss_is_called_a_loss() -> None:
    half = np.arange(20.0, 40.0)
    found = curve_of([half, half], half + 5).answer(8)
    assert not found.more_would_help
    assert "they hurt" in found.sentence()
    with pytest.raises(SplitError, match=r"the curve holds budgets \[8\], not 9"):
        curve_of([half, half], half).answer(9)
    with pytest.raises(SplitError, match="at least two draws of half of the prompts, got 1"):
        curve_of([half], half).answer(8)


def test_equal_graphs_gain_nothing_to_the_last_bit() -> None:
    forwards = np.random.default_rng(3).integers(20, 50, 21).astype(float)
    found = curve_of([forwards] * 10, forwards).answer(8)
    assert (found.gain.estimate, *found.gain.pair()) == (0.0, 0.0, 0.0)
    assert "changed by +0.000, 95 % interval [+0.000, +0.000]" in found.sentence()
    assert not found.more_would_help


def test_one_graph_better_than_its_like_is_no_trend() -> None:
    """The whole graph gains on every prompt, yet graphs of half differ among themselves by more than that."""
    rng = np.random.default_rng(0)
    half = 30 + rng.integers(0, 5, 20).astype(float)
    whole = half - 2
    alike, scattered = ([half + shift for shift in shifts] for shifts in ([0, 0.1, -0.1], [0, 4, -4]))
    sure, unsure = (curve_of(draws, whole).answer(8) for draws in (alike, scattered))
    assert sure.more_would_help
    assert not unsure.more_would_help
    assert unsure.gain.estimate == pytest.approx(sure.gain.estimate)
    assert unsure.gain.high - unsure.gain.low > 3 * (sure.gain.high - sure.gain.low)


@pytest.mark.parametrize(
    ("search", "held_out", "options", "message"),
    [
        (1, 5, {}, "at least two search prompts, got 1"),
        (5, 1, {}, "at least two held-out prompts, got 1"),
        (5, 5, {"sizes": [6]}, "between 1 and the 5 search prompts, got 6"),
        (5, 5, {"draws": 0}, "draws must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_drawn_is_one_clear_error(search: int, held_out: int, options: dict, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        calibration_size_curve(
            "greedy", table(1, search), table(2, held_out), [3], block_length=LENGTH, step_size=1, **options
        )
