"""Splits of recordings: one run, other prompts, and no prompt on two sides."""

import json
from pathlib import Path

import pytest

from calibrate.models.checkpoint import load_checkpoint
from calibrate.prompts.prompt import PromptError
from calibrate.recording.recorder import record
from calibrate.traces.table import TraceError, read_traces
from studies.runs.configuration import CalibrationConfig, prompt_splits
from studies.runs.splits import check_disjoint, cut_splits, read_splits
from studies.statistics.crossval import SplitError
from tests.support.models import END_ID
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.decoding import DecodeConfig
from verify.policies.specification import make_policy

LENGTH = 10


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("splits")
    return [
        write_folder(toy_traces(seed, prompts=24, blocks=2, length=LENGTH, noise=0.2), root / name)
        for seed, name in enumerate(("search", "validation", "test"))
    ]


def test_a_prompt_on_two_sides_is_found_whatever_the_folder(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SplitError, match=r"24 of the 24 prompts in .*search stand in .*search too"):
        read_splits([folders[0], folders[0]])
    part = write_folder(read_traces(folders[0]).select([3, 7]), tmp_path / "part")
    with pytest.raises(SplitError, match=r"2 of the 2 prompts in .*part stand in .*search too; a value on"):
        read_splits([folders[0], part])
    assert [len(table.prompt_indices()) for table in read_splits(folders).tables] == [24, 24, 24]


def test_a_prompt_is_the_same_prompt_however_it_was_decoded(folders: list[Path], tmp_path: Path) -> None:
    """A batch may swap two of the recorded ranks, and noise gives another decode; the prompt stays the one it is."""
    found = read_traces(folders[0])
    swapped = found.top_token.copy()
    swapped[:, [1, 2]] = swapped[:, [2, 1]]
    other = write_folder(type(found)(**{**vars(found), "top_token": swapped}), tmp_path / "batch")
    with pytest.raises(SplitError, match="24 of the 24 prompts"):
        read_splits([folders[0], other])


def test_a_recorder_names_every_prompt(checkpoint: Path, tmp_path: Path) -> None:
    model = load_checkpoint(checkpoint)
    config = DecodeConfig(block_length=4, generation_length=4, top_j=3, end_token_ids=(END_ID,))
    prompts = [(3, 4, 5), (6, 7), (8, 9, 10)]
    for name, own, batch in (("one", prompts[:2], 1), ("two", prompts[1:], 2), ("three", prompts[2:], 1)):
        record(model, own, make_policy("static:1"), config, tmp_path / name, batch_size=batch)
    with pytest.raises(SplitError, match=r"1 of the 2 prompts in .*two stand in .*one too"):
        read_splits([tmp_path / "one", tmp_path / "two"])
    assert len(read_splits([tmp_path / "one", tmp_path / "three"]).recordings) == 2


def test_a_trace_that_names_no_prompts_is_refused(folders: list[Path], tmp_path: Path) -> None:
    for number, hashes in enumerate((None, [], ["a"] * 3, "abc", [1] * 24)):
        unnamed = write_folder(toy_traces(5, prompts=4, length=LENGTH), tmp_path / str(number), prompt_hashes=hashes)
        with pytest.raises(TraceError, match=rf"{number}: the manifest .* one hash for each of its 4 prompts"):
            read_splits([folders[0], unnamed])


def test_the_leak_check_names_the_first_place() -> None:
    check_disjoint({"a": ["x", "y"], "b": ["z"]}.items())
    with pytest.raises(SplitError, match="2 of the 3 prompts in c stand in b too"):
        check_disjoint({"a": ["x", "y"], "b": ["z", "w"], "c": ["w", "u", "z"]}.items())
    # The same prompt twice on one side is no leak.
    check_disjoint({"a": ["x", "x"], "b": ["z"]}.items())


def test_a_file_is_cut_in_halves_that_do_not_depend_on_its_order(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"p{k}"}) for k in range(10)]
    halves = []
    for name, content in (("a", lines), ("b", lines[::-1] + lines[:3])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(content))
        halves.append(
            [{prompt.text for prompt in part} for part in prompt_splits(CalibrationConfig(prompts=str(path)))]
        )
    assert halves[0] == halves[1]
    assert [len(half) for half in halves[0]] == [5, 5] and not halves[0][0] & halves[0][1]
    config = CalibrationConfig(prompts=str(path), split_fraction="0.2")
    assert [len(part) for part in prompt_splits(config)] == [8, 2]
    with pytest.raises(PromptError, match="has no place beside held-out prompts of their own"):
        prompt_splits(CalibrationConfig(prompts=str(path), held_out=str(path), split_fraction="0.2"))


def test_a_file_with_splits_of_its_own_is_cut_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(
        "\n".join(json.dumps({"prompt": f"p{k}", "split": s}) for k, s in enumerate(["test", "calibration"]))
    )
    search, test = prompt_splits(CalibrationConfig(prompts=str(path)))
    assert ([prompt.text for prompt in search], [prompt.text for prompt in test]) == (["p1"], ["p0"])


def test_splits_of_different_runs_are_refused(folders: list[Path], tmp_path: Path) -> None:
    other = write_folder(toy_traces(7, prompts=4, length=LENGTH), tmp_path / "other", policy="threshold:0.9")
    with pytest.raises(SplitError, match=r"was recorded with policy 'threshold:0.9', .*search with 'static:1'"):
        read_splits([folders[0], other])
    other = write_folder(toy_traces(7, prompts=4, length=LENGTH), tmp_path / "coarse", dtype="bfloat16")
    with pytest.raises(SplitError, match=r"was recorded with dtype 'bfloat16', .*search with 'float32'"):
        read_splits([folders[0], other])


def test_one_revision_is_one_model_by_whatever_name(tmp_path: Path) -> None:
    parts = [
        write_folder(toy_traces(seed, prompts=3, length=LENGTH), tmp_path / name, model=name, model_revision="r1")
        for seed, name in enumerate(("here", "there"))
    ]
    assert read_splits(parts).validity.model == "here"
    unnamed = write_folder(
        toy_traces(5, prompts=3, length=LENGTH), tmp_path / "unnamed", model="there", model_revision=None
    )
    with pytest.raises(SplitError, match="was recorded with model 'there'"):
        read_splits([parts[0], unnamed])


def test_one_recording_is_cut_by_prompt(folders: list[Path], tmp_path: Path) -> None:
    found = cut_splits(folders[0], (2, 1, 1), seed=3)
    prompt_indices = [set(table.prompt_indices().tolist()) for table in found.tables]
    assert [len(part) for part in prompt_indices] == [12, 6, 6]
    assert set().union(*prompt_indices) == set(range(24))
    assert (found.step_size, found.block_length) == (1, LENGTH)
    few = write_folder(toy_traces(9, prompts=5, length=LENGTH), tmp_path / "few")
    with pytest.raises(SplitError, match="holds 5 prompts, too few for 3 splits of at least two prompts each"):
        cut_splits(few, (2, 1, 1))


def test_a_cut_puts_no_prompt_on_two_sides(folders: list[Path], tmp_path: Path) -> None:
    found = read_traces(folders[0])
    twice = write_folder(found, tmp_path / "twice", prompt_hashes=found.metadata["prompt_hashes"][:12] * 2)
    splits = cut_splits(twice, (2, 1))
    assert splits.repeated == 12
    assert [len(table.prompt_indices()) for table in splits.tables] == [8, 4]
    check_disjoint((str(number), traces.prompt_hashes()) for number, traces in enumerate(splits.recordings))
