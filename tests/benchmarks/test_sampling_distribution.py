"""Samples with and without drafts: the same under shared noise, of one law under independent noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from benchmarks.sampling_distribution import (
    CASES,
    GRAPH,
    Reusing,
    compare,
    homogeneity,
    least_difference,
    main,
    sample,
    sample_apart,
    tiny_model,
)
from calibrate.models.hugging_face import HuggingFaceDenoiser
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import InformedDrafter
from verify.policies.randomness import StepRandom
from verify.policies.specification import make_policy
from verify.sequence import SequenceDecoder

PLAIN = GraphDrafter()


@pytest.fixture(scope="module")
def model() -> HuggingFaceDenoiser:
    return tiny_model()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
def test_under_shared_noise_drafts_change_nothing(model: HuggingFaceDenoiser, case: Any) -> None:
    policy = make_policy(case.spec)
    plain, alone = sample(model, policy, 60, 1, PLAIN)
    assert len(np.unique(plain, axis=0)) > 40, "these are samples"
    for drafter in (GraphDrafter(GRAPH), InformedDrafter(4)):
        drafted, results = sample(model, policy, 60, 1, drafter)
        np.testing.assert_array_equal(drafted, plain)
        assert sum(one.forwards for one in results) < sum(one.forwards for one in alone)


def test_noise_of_another_step_is_seen_under_shared_noise(
    model: HuggingFaceDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that counts forwards where it should count steps gives an accepted draft the noise of the step before."""
    policy, now = make_policy(CASES[0].spec), [0]
    plain, _ = sample(model, policy, 60, 1, PLAIN)
    denoise: Callable[..., int] = SequenceDecoder._denoise

    def denoise_by_forwards(self: SequenceDecoder, known: Any) -> int:
        now[0] = self.forwards
        return denoise(self, known)

    def by_forwards(seed: int, prompt_index: int, block: int, step: int) -> StepRandom:
        return StepRandom(seed, prompt_index, block, now[0])

    monkeypatch.setattr(SequenceDecoder, "_denoise", denoise_by_forwards)
    monkeypatch.setattr("verify.sequence.StepRandom", by_forwards)
    np.testing.assert_array_equal(sample(model, policy, 60, 1, PLAIN)[0], plain)  # a step is a forward there
    drafted, _ = sample(model, policy, 60, 1, GraphDrafter(GRAPH))
    assert (drafted != plain).any()


def test_a_biased_sampler_is_told_from_one_written_apart(model: HuggingFaceDenoiser) -> None:
    """The same noise in all steps: lossless, so shared noise shows nothing, but of another law."""
    case, level = CASES[0], 1e-3
    policy = make_policy(case.spec)
    reusing = Reusing(policy)
    plain, _ = sample(model, reusing, 800, 2, PLAIN)
    drafted, _ = sample(model, reusing, 60, 2, GraphDrafter(GRAPH))
    np.testing.assert_array_equal(drafted, plain[:60])
    apart = sample_apart(model, case, 800, 3)
    assert not compare(plain, apart, level)["one_distribution"]
    right, _ = sample(model, policy, 800, 2, PLAIN)
    found = compare(right, apart, level)
    assert found["one_distribution"]
    assert found["least_difference"] < 0.25


# ---------------------------------------------------------------- the test itself


def test_the_statistic_is_that_of_a_table_whose_rare_cells_are_one() -> None:
    table = np.array([[30, 12, 9, 3, 0], [25, 22, 4, 2, 2]])
    one, other = (np.repeat(np.arange(5), counts) for counts in table)
    pooled = np.concatenate([table[:, :3], table[:, 3:].sum(axis=1, keepdims=True)], axis=1)
    expected = chi2_contingency(pooled, correction=False)
    statistic, freedom, p = homogeneity(one, other)
    assert (statistic, freedom, p) == pytest.approx((expected.statistic, 3, expected.pvalue))
    assert homogeneity(one * 0, other * 0) == (0.0, 0, 1.0)


def test_the_power_is_what_is_stated() -> None:
    """Two laws that differ by the least difference, spread as is worst for the test: found in 99 of 100 runs."""
    samples, cells, level, runs = 2000, 22, 1e-3, 300
    difference = least_difference(samples, cells - 1, level)
    assert difference == pytest.approx(0.1233, abs=1e-4)
    sign = np.where(np.arange(cells) % 2, 1.0, -1.0)
    random = np.random.default_rng(0)
    seen = {0.0: 0, difference: 0}
    for shift in seen:
        for _ in range(runs):
            one, other = (random.choice(cells, samples, p=(1 + way * shift * sign) / cells) for way in (1, -1))
            seen[shift] += homogeneity(one, other)[2] < level
    assert seen[0.0] <= 3
    assert seen[difference] >= 0.97 * runs


def test_a_run_says_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Forty samples are too few to tell the mutants from the right sampler, and the run says so."""
    assert main(["--samples", "40", "--out", str(tmp_path / "found.json")]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["policy"] for row in found["rules"]] == [make_policy(case.spec).spec for case in CASES]
    assert all(not any(row["different_under_shared_noise"].values()) for row in found["rules"])
    assert found["failures"] and all(line.startswith("not told apart: ") for line in found["failures"])
    assert found["failures"][0] in capsys.readouterr().out
