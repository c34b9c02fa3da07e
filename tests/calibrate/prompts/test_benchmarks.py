"""Benchmark prompts: from tiny copies with the columns of the real data sets, in every form a copy can have."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibrate.prompts.benchmarks import SHOT_ROWS, DatasetSpec
from calibrate.prompts.prompt import SPLITS, PromptError
from calibrate.prompts.source import load_prompt_set

CODE = "def f(x):\n    return x"


def gsm8k(split, count):
    return [
        {"question": f"{split} question {n}?", "answer": f"{n} + 1 = <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"}
        for n in range(count)
    ]


ROWS = {
    "gsm8k": {"train": gsm8k("train", 60), "test": gsm8k("test", 12)},
    "math500": {"test": [{"problem": f"Find $x_{n}$.", "solution": "...", "answer": f"{n}"} for n in range(20)]},
    "humaneval": {
        "test": [
            {
                "task_id": f"HumanEval/{n}",
                "prompt": f'def f{n}(x):\n    """Do {n}."""\n',
                "canonical_solution": "    pass",
            }
            for n in range(16)
        ]
    },
    "mbpp": {
        split: [
            {
                "task_id": n,
                "text": f"Write {split} function {n}.",
                "code": CODE,
                "test_list": [f"assert f({k}) == {n}" for k in range(4)],
            }
            for n in range(count)
        ]
        for split, count in (("train", 6), ("validation", 3), ("test", 8), ("prompt", 10))
    },
}


def save(folder, name, form="parquet"):
    """A copy of a tiny data set, as ``form`` has it; returns the specification."""
    for split, rows in ROWS[name].items():
        if form == "parquet":
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")
        elif form == "jsonl":
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if form == "disk":
        datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
        splits = {split: datasets.Dataset.from_list(rows) for split, rows in ROWS[name].items()}
        datasets.DatasetDict(splits).save_to_disk(str(folder))
    return f"datasets:{name},path={folder}"


@pytest.fixture
def copies(tmp_path):
    return {name: save(tmp_path / name, name) for name in ROWS}


@pytest.mark.parametrize(
    "name, text",
    [
        ("gsm8k", "Question: train question 17?\nAnswer:"),
        ("math500", "Problem:\nFind $x_17$.\n\nSolution:"),
        ("humaneval", 'def f3(x):\n    """Do 3."""\n'),
        (
            "mbpp",
            "You are an expert Python programmer, and here is your task: Write train function 3. Your code should pass "
            "these tests:\n\nassert f(0) == 3\nassert f(1) == 3\nassert f(2) == 3\n[BEGIN]\n",
        ),
    ],
)
def test_the_words_around_a_question(copies, name, text):
    found = [prompt for split in SPLITS for prompt in load_prompt_set(copies[name], split)]
    assert text in [prompt.text for prompt in found]
    assert {prompt.domain for prompt in found} == {name}
    assert len({prompt.id for prompt in found}) == len(found)


def test_a_request_in_a_sentence(copies):
    def texts(name):
        spec = copies[name].replace(",path", ",style=instruct,path")
        return {prompt.id: prompt.text for prompt in load_prompt_set(spec, "test")}

    boxed = "?\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert all(text.startswith("test question") and text.endswith(boxed) for text in texts("gsm8k").values())
    assert texts("mbpp")["mbpp/test/5"].endswith("task:\nWrite test function 5.\nYour code should pass these tests:\n"
                                                 "assert f(0) == 5\nassert f(1) == 5\nassert f(2) == 5")  # fmt: skip
    assert all("passes the tests:\n```python\ndef f" in text for text in texts("humaneval").values())


def test_answers_are_kept(copies):
    def answers(name):
        return {prompt.id: prompt.answer for prompt in load_prompt_set(copies[name], "test")}

    assert answers("gsm8k")["gsm8k/test/3"] == "4"
    assert answers("mbpp")["mbpp/test/0"] == CODE
    assert all(answer == prompt.rpartition("/")[2] for prompt, answer in answers("math500").items())


@pytest.mark.parametrize("name", list(ROWS))
def test_splits_hold_everything_once(copies, name):
    parts = {split: load_prompt_set(copies[name], split) for split in SPLITS}
    texts = [prompt.text for part in parts.values() for prompt in part]
    assert all(parts.values()) and len(set(texts)) == len(texts)
    own = {"gsm8k": 60 - SHOT_ROWS + 12, "math500": 20, "humaneval": 16, "mbpp": 6 + 3 + 8}
    assert len(texts) == own[name]
    sizes = {"gsm8k": (40, 4, 12), "math500": (10, 5, 5), "humaneval": (8, 4, 4), "mbpp": (6, 3, 8)}
    assert tuple(len(parts[split]) for split in SPLITS) == sizes[name]


def test_the_seed_orders_and_never_moves_a_prompt_to_another_split(copies):
    spec = copies["math500"]
    seeded = [spec.replace(",path", f",seed={seed},path") for seed in range(3)]
    for split in SPLITS:
        orders = [[prompt.id for prompt in load_prompt_set(one, split)] for one in seeded]
        assert len({frozenset(order) for order in orders}) == 1
        assert len({tuple(order) for order in orders}) == 3
    assert [p.id for p in load_prompt_set(spec, "test")] == [p.id for p in load_prompt_set(seeded[0], "test")]
    assert load_prompt_set(spec, "test", limit=2) == load_prompt_set(spec, "test")[:2]


def test_neither_the_form_of_a_copy_nor_the_order_of_its_rows_matters(copies, tmp_path):
    wanted = load_prompt_set(copies["mbpp"], "calibration", limit=4)
    for form in ("jsonl", "disk"):
        assert load_prompt_set(save(tmp_path / form, "mbpp", form), "calibration", limit=4) == wanted
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for split, rows in ROWS["math500"].items():
        (shuffled / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]))
    there = load_prompt_set(f"datasets:math500,path={shuffled}", "test")
    assert [p.text for p in there] == [p.text for p in load_prompt_set(copies["math500"], "test")]


def test_one_file_without_a_split_is_cut(tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in gsm8k("any", 40)))
    sizes = [len(load_prompt_set(f"datasets:gsm8k,path={file}", split)) for split in SPLITS]
    assert sizes == [20, 10, 10]


def test_the_folder_of_the_configuration_is_taken(tmp_path):
    save(tmp_path / "main", "gsm8k")
    (tmp_path / "socratic").mkdir()
    (tmp_path / "socratic" / "test.jsonl").write_text('{"question": "other", "answer": "other"}\n')
    texts = [prompt.text for prompt in load_prompt_set(f"datasets:gsm8k,path={tmp_path}", "test")]
    assert len(texts) == 12 and not any("other" in text for text in texts)


def test_solved_examples_come_from_rows_that_are_no_prompts(copies):
    spec = copies["gsm8k"].replace(",path", ",shots=2,path")
    for split in SPLITS:
        for prompt in load_prompt_set(spec, split):
            start = "Question: train question 0?\nAnswer: 0 + 1 = <<0+1=1>>1\n#### 1\n\nQuestion: train question 1?\n"
            assert prompt.text.startswith(start) and prompt.text.count("Question:") == 3
    (mbpp, *_) = load_prompt_set(copies["mbpp"].replace(",path", ",shots=3,path"), "test")
    assert [f"Write prompt function {n}." in mbpp.text for n in range(5)] == [False, True, True, True, False]
    assert mbpp.text.count(f"[BEGIN]\n{CODE}\n[DONE]\n\n") == 3 and mbpp.text.endswith("[BEGIN]\n")


def test_a_question_of_both_splits_is_a_test_question(tmp_path):
    both = gsm8k("both", 20)
    for split, rows in (("train", gsm8k("train", 30) + both), ("test", both)):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[-3:]]))
    spec = f"datasets:gsm8k,path={tmp_path}"
    assert len(load_prompt_set(spec, "test")) == 20
    found = load_prompt_set(spec, "calibration") + load_prompt_set(spec, "validation")
    assert len(found) == 30 - SHOT_ROWS and all("train" in prompt.text for prompt in found)


def test_no_prompt_is_in_two_splits_whatever_the_copy_holds_twice(tmp_path):
    """Of validation and calibration the first has it; and a solved example is never a prompt, under any number."""
    rows = ROWS["mbpp"]
    copy = {
        "train": [*rows["train"], *rows["validation"], rows["test"][0], rows["prompt"][2]],
        "validation": [*rows["validation"], rows["test"][1]],
        "test": [*rows["test"], rows["prompt"][1]],
        "prompt": rows["prompt"],
    }
    for split, there in copy.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in there), encoding="utf-8")
    found = {
        split: {prompt.text for prompt in load_prompt_set(f"datasets:mbpp,path={tmp_path}", split)}
        for split in ("calibration", "validation", "test")
    }
    assert {split: len(texts) for split, texts in found.items()} == {"calibration": 6, "validation": 3, "test": 8}
    assert len(set.union(*found.values())) == 17


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "spec, message",
    [
        ("datasets:gsm9k", 'unknown data set "gsm9k", expected one of gsm8k, math500, humaneval, mbpp'),
        ("datasets:", 'unknown data set ""'),
        ("datasets:gsm8k,style=poem", 'cannot read "style=poem"; expected style=completion|instruct'),
        ("datasets:gsm8k,shots=-1", 'cannot read "shots=-1"'),
        ("datasets:gsm8k,shots=17", "shots=17 are too many, at most 16"),
        ("datasets:gsm8k,split=test", 'cannot read "split=test"'),
        ("datasets:math500,shots=4", "math500 brings no solved examples"),
        ("datasets:mbpp,style=instruct,shots=3", "shots=3 are for style=completion"),
        ("datasets:gsm8k,path=/nowhere/at/all", "/nowhere/at/all does not exist; expected a copy of openai/gsm8k"),
    ],
)
def test_specifications_that_cannot_be_read(spec, message):
    with pytest.raises(PromptError) as caught:
        load_prompt_set(spec)
    assert message in str(caught.value)


def test_an_unknown_split_and_a_limit_of_nothing(copies):
    with pytest.raises(PromptError, match='unknown split "train", expected one of calibration'):
        load_prompt_set(copies["gsm8k"], "train")
    with pytest.raises(PromptError, match="at least one prompt is needed"):
        load_prompt_set(copies["gsm8k"], "test", limit=0)


def test_other_columns_are_named(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"problem": "x", "answer": "1"}\n')
    with pytest.raises(
        PromptError, match="test row 0 lacks 'question': gsm8k has the columns question, answer, found "
    ):
        load_prompt_set(f"datasets:gsm8k,path={tmp_path}", "test")
    (tmp_path / "test.jsonl").write_text('{"question": "x", "answer": 1}\n')
    with pytest.raises(PromptError, match="answer must be text that is not empty, found 1"):
        load_prompt_set(f"datasets:gsm8k,path={tmp_path}", "test")


def test_copies_that_cannot_be_used(tmp_path, copies):
    (tmp_path / "readme.txt").write_text("words")
    with pytest.raises(PromptError, match="holds no copy of openai/gsm8k: expected what datasets' save_to_disk wrote"):
        load_prompt_set(f"datasets:gsm8k,path={tmp_path / 'readme.txt'}")
    broken = tmp_path / "mbpp" / "train-00000-of-00001.parquet"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(PromptError, match=r"train-00000-of-00001\.parquet cannot be read"):
        load_prompt_set(copies["mbpp"])
    (tmp_path / "gsm8k" / "train-00000-of-00001.parquet").rename(tmp_path / "gsm8k" / "validation.parquet")
    with pytest.raises(
        PromptError, match="has the splits test, validation; the calibration prompts of gsm8k are in 'tr"
    ):
        load_prompt_set(copies["gsm8k"])
    with pytest.raises(PromptError, match="has 0 rows for examples in the split 'train', shots=2"):
        load_prompt_set(copies["gsm8k"].replace(",path", ",shots=2,path"), "test")
    (tmp_path / "few.jsonl").write_text(json.dumps(ROWS["math500"]["test"][0]) + "\n")
    with pytest.raises(PromptError, match="no math500 prompt for the split 'calibration', only 1 in all"):
        load_prompt_set(f"datasets:math500,path={tmp_path / 'few.jsonl'}", "calibration")


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(PromptError, match=r"needs the package `datasets`: pip install -e '\.\[datasets\]' in a clone"):
        load_prompt_set("datasets:gsm8k")


def test_without_a_network(monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")

    def unreachable(repository, configuration):
        raise ConnectionError(f"Couldn't reach '{repository}' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = "openai/gsm8k cannot be had from the hub .*Couldn't reach.*give a copy, datasets:gsm8k,path=FOLDER"
    with pytest.raises(PromptError, match=message):
        load_prompt_set("datasets:gsm8k")


def test_the_hub_is_asked_for_the_configuration(monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    asked = []

    def load(repository, configuration):
        asked.append((repository, configuration))
        return datasets.DatasetDict({s: datasets.Dataset.from_list(rows) for s, rows in ROWS["mbpp"].items()})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(load_prompt_set("datasets:mbpp", "test")) == 8
    assert asked == [("google-research-datasets/mbpp", "full")]


def test_several_take_turns(monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")

    def load(repository, configuration):
        name = {"openai/gsm8k": "gsm8k", "google-research-datasets/mbpp": "mbpp"}[repository]
        return datasets.DatasetDict({s: datasets.Dataset.from_list(rows) for s, rows in ROWS[name].items()})

    monkeypatch.setattr(datasets, "load_dataset", load)
    both = load_prompt_set("datasets:gsm8k+mbpp,seed=1", "test", limit=6)
    assert [prompt.domain for prompt in both] == ["gsm8k", "mbpp"] * 3
    assert both[::2] == load_prompt_set("datasets:gsm8k,seed=1", "test", limit=3)
    assert len(load_prompt_set("datasets:gsm8k+mbpp", "test")) == 2 * 8
    with pytest.raises(PromptError, match="a path is the copy of one data set"):
        load_prompt_set("datasets:gsm8k+mbpp,path=/data", "test")


def test_a_path_may_hold_a_comma():
    spec = DatasetSpec.parse("datasets:gsm8k,seed=2,path=/data/a,b")
    assert (str(spec.path), spec.seed, spec.style) == ("/data/a,b", 2, "completion")
