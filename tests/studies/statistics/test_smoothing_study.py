"""The smoothing study: chosen on validation, judged on test, and said when it does not help."""

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.parametric.smoothing import SmoothingError
from drafting.replay import replay
from studies.statistics.crossval import SplitError
from studies.statistics.intervals import Interval
from studies.statistics.smoothing_study import RAW, SmoothingStudy, smoothing_study
from tests.support.toy import toy_traces

LENGTH = 8


def split(seed: int, prompts: int) -> AnchorTable:
    return AnchorTable.from_traces(toy_traces(seed, prompts=prompts, blocks=2, length=LENGTH, noise=0.3), None)


def study(method: str = "greedy", **options: object) -> SmoothingStudy:
    settings = {"block_length": LENGTH, "step_size": 1, "strengths": (2.0, 20.0), **options}
    return smoothing_study(method, split(0, 5), split(1, 10), split(2, 12), [4, 8], **settings)  # type: ignore[arg-type]


def test_validation_chooses_and_test_judges() -> None:
    found = study()
    assert [(trial.model, trial.strength) for trial in found.trials] == [
        (RAW, 0.0),
        ("markov", 2.0),
        ("markov", 20.0),
        ("product", 2.0),
        ("product", 20.0),
    ]
    validation, test = split(1, 10), split(2, 12)
    for trial in found.trials:
        for budget, nodes in trial.graphs.items():
            assert trial.validation_forwards[budget] == replay(nodes, validation).forwards
    assert found.chosen.total == min(trial.total for trial in found.trials)
    for budget, verdict in found.test.items():
        for interval, trial in zip(verdict.nfe_reduction, (found.chosen, found.trials[0]), strict=True):
            assert interval.estimate == pytest.approx(replay(trial.graphs[budget], test).nfe_reduction)
        # Two intervals, together 95 %.
        assert verdict.nfe_reduction_difference.level == pytest.approx(0.975)


def test_raw_counts_win_ties_and_the_output_says_that_smoothing_does_not_help() -> None:
    found = study("chain")  # the chain looks at no counts
    assert found.chosen.model == RAW
    assert found.sentence().startswith("Smoothing does not help")
    for verdict in found.test.values():
        assert verdict.nfe_reduction_difference.pair() == [0.0, 0.0]


def test_rows_hold_test_values_only_where_they_were_looked_at() -> None:
    found = study()
    rows = found.rows()
    assert len(rows) == 10
    judged = {(row["model"], row["strength"]) for row in rows if "nfe_reduction" in row}
    assert judged == {(RAW, 0.0), (found.chosen.model, found.chosen.strength)}
    assert sum(row["chosen"] for row in rows) == 2


def outcome(gains: list[tuple[float, float]]) -> str:
    """The sentence of a study in which Markov smoothing was chosen and gained so much on test."""
    found = study()
    chosen = next(trial for trial in found.trials if trial.model == "markov")
    verdicts = {}
    for (budget, verdict), (low, high) in zip(found.test.items(), gains, strict=True):
        interval = Interval((low + high) / 2, low, high, 0.975, 12, 10_000, "bca", 0)
        verdicts[budget] = type(verdict)(**{**vars(verdict), "nfe_reduction_difference": interval})
    return SmoothingStudy(found.method, found.trials, chosen, verdicts).sentence()


def test_the_sentence_follows_the_intervals() -> None:
    assert "confirm a gain at every budget" in outcome([(0.1, 0.2), (0.1, 0.3)])
    assert "confirm a gain at 1 of 2 budgets" in outcome([(0.1, 0.2), (-0.1, 0.3)])
    assert "show no gain, every interval contains zero" in outcome([(-0.1, 0.2), (-0.1, 0.3)])
    assert "loses at 1 budgets" in outcome([(-0.2, -0.1), (0.1, 0.3)])
    assert "on 12 test prompts, together 95%" in outcome([(0.1, 0.2), (0.1, 0.3)])


def test_one_seed_gives_one_study() -> None:
    assert study().rows() == study().rows()


@pytest.mark.parametrize(
    ("sizes", "budgets", "options", "error", "message"),
    [
        ((5, 5, 1), [3], {}, SplitError, "the test split needs at least 2 prompts, got 1"),
        ((5, 0, 5), [3], {}, SplitError, "the validation split needs at least 1 prompts, got 0"),
        ((5, 5, 5), [0], {}, SplitError, "budgets of at least one draft, got none"),
        ((5, 5, 5), [3], {"models": ["bayes"]}, SmoothingError, "unknown model 'bayes', expected one of markov"),
        ((5, 5, 5), [3], {"strengths": [-2.0]}, SmoothingError, "at least 0 and finite, got -2"),
    ],
)
def test_what_cannot_be_studied_is_one_clear_error(
    sizes: tuple[int, int, int], budgets: list[int], options: dict, error: type[Exception], message: str
) -> None:
    tables = [split(n, 5).select(np.arange(size)) for n, size in enumerate(sizes)]
    with pytest.raises(error, match=message):
        smoothing_study("greedy", *tables, budgets, block_length=LENGTH, step_size=1, **options)
