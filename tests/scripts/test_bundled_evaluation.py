"""What the bundled model is judged by: calibration and likelihood on literal cases, and the report of an evaluation."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from calibrate.bundled.grammar import expectation
from calibrate.bundled.stories import StoryGrammar
from scripts.bundled_model import evaluate
from scripts.bundled_model.batches import IGNORE
from scripts.bundled_model.evaluation_report import markdown, requirements
from scripts.bundled_model.export import build_model, export
from scripts.bundled_model.measures import decode_domain, examples, likelihood, ratio_rows, reliability, score
from scripts.bundled_model.tokenizer import EOS_ID, VOCABULARY, encode_symbols


class Constant(torch.nn.Module):
    """A model whose distribution is the same everywhere: end-of-text with `share`, the rest evenly."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dtype, self.device = torch.float32, torch.device("cpu")
        rest = len(VOCABULARY) - 2
        self.logits = torch.full((len(VOCABULARY),), math.log((1 - share) / rest))
        self.logits[EOS_ID] = math.log(share)

    def forward(self, input_ids, attention_mask, position_ids):
        return SimpleNamespace(logits=self.logits.repeat(*input_ids.shape, 1))


def test_reliability_by_hand():
    sure = np.array([0.05, 0.95, 0.95, 1.0])
    found = reliability(sure, np.array([0.0, 1.0, 0.0, 1.0]), bins=10)
    assert found.count == (1, 3)
    assert found.confidence == pytest.approx((0.05, 2.9 / 3))
    assert found.accuracy == pytest.approx((0.0, 2 / 3))
    assert found.error == pytest.approx((0.05 + 3 * (2.9 / 3 - 2 / 3)) / 4)


def test_reliability_needs_predictions():
    with pytest.raises(ValueError, match="no prediction"):
        reliability(np.array([]), np.array([]))


@pytest.mark.parametrize("kind", ["bidirectional", "block_causal"])
def test_ratios_of_masked_positions(kind):
    prompts = examples("validation", "stories", 5)
    for ratio in (0.25, 1.0):
        for row, prompt in zip(ratio_rows(prompts, kind, 32, ratio, 0), prompts, strict=True):
            known = len(encode_symbols(f"{prompt.text} {prompt.answer}")) + 1
            places = [row.places[k] for k, target in enumerate(row.targets) if target != IGNORE]
            assert len(places) <= math.ceil(ratio * 32)
            assert all(place < known for place in places)


def test_score_of_a_constant_distribution():
    rows = ratio_rows(examples("validation", "lists", 4), "block_causal", 8, 1.0, 0)
    rest = len(VOCABULARY) - 2
    for row, found in zip(rows, score(Constant(0.25), rows), strict=True):
        targets = [target for target in row.targets if target != IGNORE]
        assert found[:, 0].tolist() == pytest.approx([0.25] * len(targets))
        assert found[:, 1].tolist() == [float(target == EOS_ID) for target in targets]
        expected = [2.0 if target == EOS_ID else -math.log2(0.75 / rest) for target in targets]
        assert found[:, 2].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["bidirectional", "block_causal"])
def test_likelihood_counts_every_token_once(kind):
    prompts = examples("validation", "stories", 2)
    found = likelihood(Constant(0.5), prompts, kind, 32)
    each = -math.log2(0.5 / (len(VOCABULARY) - 2))
    assert found.model.tolist() == pytest.approx([each * (tokens - 1) + 1 for tokens in found.tokens])
    expected = sum(expectation(StoryGrammar.of_prompt(prompt.text)).bits for prompt in prompts)
    assert 0.3 * expected < found.grammar.sum() < 3 * expected
    filled = likelihood(Constant(0.5), prompts, kind, 32, seed=0)
    assert (filled.model >= found.model).all()  # the filling behind the end token, one bit each


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    directory, model = tmp_path_factory.mktemp("model"), build_model(1, 32)
    export(model, list(model.parameters()), directory, {})
    return directory


@pytest.mark.parametrize("kind", ["bidirectional", "block_causal"])
def test_steps_of_full_blocks(exported, kind):
    from calibrate import load_checkpoint

    prompts = examples("test", "lists", 2)
    found = decode_domain(load_checkpoint(exported), prompts, "static:2", kind, 8)
    assert not found.valid.any()
    assert {steps for blocks in found.block_steps for steps in blocks} <= {4}
    assert any(found.block_steps)


def test_evaluation_is_written_and_goes_on(exported, monkeypatch):
    monkeypatch.setattr(evaluate, "RULES", ("threshold:0.9",))
    monkeypatch.setattr(evaluate, "BLOCK_LENGTHS", (32,))
    evaluate.main(exported, "stories", prompts=2, texts=2, seed=0, threads=1)
    report = json.loads((exported / "evaluation.json").read_text())
    text = (exported / "evaluation.md").read_text()
    assert "| stories | block_causal | static:1 | 0.0 [" in text
    assert (
        "| stories: at least 90 % valid under static:1 | least 0.0 % (bidirectional, block length 32) | **no** |"
        in text
    )
    assert text == markdown(report["options"], report["cells"])
    assert {path.suffix for path in exported.glob("reliability.*")} == {".png", ".svg", ".csv"}
    monkeypatch.setattr(evaluate, "decode_domain", None)  # every cell is known: nothing is decoded again
    evaluate.main(exported, "stories", prompts=2, texts=2, seed=0, threads=1)
    cells = report["cells"] | {"valid/stories/static:1/bidirectional/32": {"valid": 0.93}}
    cells |= {"valid/stories/static:1/block_causal/32": {"valid": 0.91}}
    assert requirements(report["options"], cells)[0] == (
        "stories: at least 90 % valid under static:1", "least 91.0 % (block_causal, block length 32)", True
    )  # fmt: skip
