"""Quality against forward passes on a tiny model: every count is that of a decode, and nothing is claimed unchecked."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calibrate.models.checkpoint import load_checkpoint
from calibrate.progress import SilentReporter
from calibrate.prompts.checking import CHECKERS
from figures.records.quality import Quality, load_quality
from studies.runs import quality as study
from studies.runs.configuration import CalibrationConfig
from studies.runs.quality import QualityError, all_rules, measure_quality
from studies.runs.recordings import decode_config
from tests.support.command_line import run as run_command
from verify.decoding import decode
from verify.drafters.informed import InformedDrafter
from verify.policies.registry import BUILT_IN
from verify.policies.specification import make_policy

RULES = ("static:1", "threshold:0.5", "dream:entropy:4")
HEADS = ("odd", "even")


def is_odd(prompt: object, text: str) -> bool:
    return len(text.split()) > 1 and int(text.split()[0]) % 2 == 1


def is_even(prompt: object, text: str) -> bool:
    return len(text.split()) > 1 and int(text.split()[0]) % 2 == 0


@pytest.fixture(scope="module")
def speaking(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a tokenizer whose words are the ids."""
    folder = tmp_path_factory.mktemp("speaking") / "model"
    shutil.copytree(checkpoint, folder)
    core = Tokenizer(models.WordLevel({str(number): number for number in range(48)}))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def config(speaking: Path, tmp_path_factory: pytest.TempPathFactory) -> CalibrationConfig:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    lines = []
    for n in range(12):
        split = "calibration" if n % 2 else "test"
        tokens = [3 + (7 * n + k * k) % 45 for k in range(5 + n % 3)]
        lines.append({"id": f"p{n}", "tokens": tokens, "domain": HEADS[n // 2 % 2], "split": split})
    lines.append({"id": "bare", "tokens": [9, 8, 7], "domain": "poems", "split": "test"})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return CalibrationConfig(
        model=str(speaking), prompts=str(path), policies=RULES, methods=("greedy", "informed"), budgets=(2, 3),
        block_length=8, generation_length=16, top_j=4, cache="dual", measured_prompts=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def with_checkers() -> Callable[[], None]:
    patch = pytest.MonkeyPatch()
    patch.setitem(CHECKERS, "odd", is_odd)
    patch.setitem(CHECKERS, "even", is_even)
    yield
    patch.undo()


class Heard(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture(scope="module")
def ran(
    config: CalibrationConfig, with_checkers: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Quality, list[str]]:
    out, heard = tmp_path_factory.mktemp("quality") / "run", Heard()
    return out, measure_quality(config, out, reporter=heard), heard.said


def test_counts_and_answers_are_those_of_plain_decodes(config: CalibrationConfig, ran: tuple) -> None:
    _, quality, _ = ran
    checkpoint = load_checkpoint(config.model)
    prompts = study.prompt_splits(config)[1][:-1]
    for spec in RULES:
        settings = decode_config(config, checkpoint)
        for domain, checker in (("odd", is_odd), ("even", is_even)):
            results = [
                decode(checkpoint.denoiser, prompt.tokens, make_policy(spec), settings, drafts, prompt_index=index)
                for drafts in ((), InformedDrafter(3))
                for index, prompt in enumerate(prompts)
                if prompt.domain == domain
            ]
            plain, informed = results[: len(results) // 2], results[len(results) // 2 :]
            valid = sum(checker(None, checkpoint.text(one.tokens[: one.end]) or "") for one in plain)
            row, drafted = (
                quality.select(domain=domain, policy=spec, method=method, budget=budget)[0]
                for method, budget in (("plain", 0), ("informed", 3))
            )
            assert (row.prompts, row.valid, drafted.valid) == (3, valid, valid)
            assert row.valid_low <= row.share <= row.valid_high
            assert row.forwards == pytest.approx(sum(one.forwards for one in plain) / 3)
            assert drafted.forwards == pytest.approx(sum(one.forwards for one in informed) / 3)
            assert drafted.nfe_reduction == pytest.approx(row.forwards / drafted.forwards)
    assert len({row.valid for row in quality.rows}) > 1  # else a checker that nobody asks would do


def test_drafts_are_replayed_and_decoded_on_some_prompts(ran: tuple) -> None:
    _, quality, _ = ran
    drafted = [row for row in quality.rows if row.method != "plain"]
    assert {(row.method, row.budget) for row in drafted} == {(m, D) for m in ("greedy", "informed") for D in (2, 3)}
    assert len(quality.rows) == 2 * 3 * 5 and all(row.holds and row.exact for row in drafted)
    for row in drafted:
        assert row.replayed and row.measured_prompts == 2
        assert row.measured_identical == row.measured_prompts and row.forwards_measured > 0
        assert row.forwards_predicted == row.forwards_measured
    assert [row.method for row in quality.rows[:5]] == ["plain", "greedy", "greedy", "informed", "informed"]


def test_what_cannot_be_checked_is_left_out_with_a_message(ran: tuple) -> None:
    _, quality, said = ran
    assert quality.domains() == ["odd", "even"]
    assert [(group.prompts, group.reason.partition(";")[0]) for group in quality.left_out] == [
        (1, "no checker for their domain and no reference answer")
    ]
    assert any(sentence.startswith("left out 1 of 7 held-out prompts: no checker") for sentence in said)


def test_files_hold_what_was_returned_and_a_rerun_decodes_nothing(
    config: CalibrationConfig, ran: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, quality, _ = ran
    assert load_quality(out).rows == quality.rows
    with (out / "quality.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["policy"] for row in table] == [row.policy for row in quality.rows] and "share" in table[0]
    monkeypatch.setattr("studies.runs.evaluation.decode_batch", lambda *_, **__: pytest.fail("decoded again"))
    monkeypatch.setattr("calibrate.recording.recorder.decode_batch", lambda *_, **__: pytest.fail("recorded again"))
    assert measure_quality(config, out).rows == quality.rows


def test_tokens_that_differ_break_the_promise(
    config: CalibrationConfig, with_checkers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = study.measure
    monkeypatch.setattr(study, "measure", lambda *a, **k: replace(real(*a, **k), differing=[(0, [5, 6])]))
    one = replace(config, policies=("static:1",), methods=("greedy",), budgets=(2,))
    rows = measure_quality(one, tmp_path / "run").rows
    assert [row.holds for row in rows] == [True, False, True, True]
    assert rows[0].valid == rows[1].valid


def test_where_nothing_is_promised_all_prompts_are_decoded_and_checked(
    config: CalibrationConfig, with_checkers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = replace(config, cache="prefix", policies=("static:1",), budgets=(3,))
    real = study.measure
    words = {"odd": [5, 5], "even": [4, 4]}  # what would be a valid answer of either task
    right = [(n, words[HEADS[n % 2]]) for n in range(6)]
    monkeypatch.setattr(study, "measure", lambda *a, **k: replace(real(*a, **k), differing=right))
    drafted = [row for row in measure_quality(near, tmp_path / "run").rows if row.method != "plain"]
    assert {row.method for row in drafted} == {"greedy", "informed"}
    for row in drafted:
        assert not row.exact and not row.replayed and row.holds
        assert (row.measured_prompts, row.measured_identical, row.valid) == (3, 0, 3)


def test_what_is_refused_is_refused_before_anything_is_recorded(
    config: CalibrationConfig, checkpoint: Path, with_checkers: None, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({"tokens": [3, 4 + n]}) + "\n" for n in range(4)))
    for changes, expected in (
        ({"prompts": str(bare)}, "no held-out prompt has answers that can be checked: no checker"),
        ({"model": str(checkpoint)}, "has no tokenizer, so its answers are no text"),
        ({"budgets": (0,)}, "drafts need a budget above 0"),
        ({"policies": ("wishful",)}, "unknown policy 'wishful'"),
        ({"methods": ("wishful",)}, "unknown method 'wishful'"),
    ):
        with pytest.raises(ValueError, match=expected) as caught:
            measure_quality(replace(config, **changes), tmp_path / "run")
        assert isinstance(caught.value, QualityError) or "wishful" in expected
    assert not (tmp_path / "run").exists()


def test_there_is_a_rule_of_every_kind() -> None:
    kinds = {make_policy(spec).spec.partition(":")[0] for spec in all_rules(32)}
    ours = {rule.name for rule in BUILT_IN.values() if not rule.stands_for}
    assert kinds == ours - {"learn2pd"}  # its filter fits one model
    assert len({make_policy(spec).spec for spec in all_rules(32)}) == len(all_rules(32))


def test_the_command(config: CalibrationConfig, with_checkers: None, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = run_command(
        "quality", "--model", config.model, "--prompts", config.prompts, "--policies", "static:1",
        "--methods", "greedy", "--budgets", "3", "--block-length", "8", "--generation-length", "16", "--top-j", "4",
        "--measured-prompts", "2", "--out", out,
    )  # fmt: skip
    assert "odd: valid answers, and forward passes per answer" in said and "D = 3" in said
    assert "3 held-out prompts, 1 of them decoded again with every drafter" in said
    assert "left out 1 of 7 held-out prompts" in said and "quality.png" in said
    assert (out / "figures" / "quality.png").is_file() and (out / "quality.csv").is_file()
