"""The bundled model: prompts that never meet training, files that transformers loads, honest accuracy."""

import itertools
import json

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from calibrate.bundled import (
    ATTENTION_KINDS,
    BLOCK_LENGTH,
    DOMAINS,
    GENERATION_LENGTH,
    MODEL_DIR,
    SPLITS,
)
from scripts.bundled_model import tasks
from scripts.bundled_model.naive import decode
from scripts.bundled_model.tokenizer import EOS_ID, FIRST_VOCABULARY, MASK_ID, encode_symbols


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(str(MODEL_DIR))


@pytest.fixture(scope="module")
def model():
    return LlamaForCausalLM.from_pretrained(str(MODEL_DIR), dtype=torch.float32).eval()


def test_prompt_sets_are_what_the_generator_makes_today():
    for split in SPLITS:
        assert tasks.read_prompts(split) == tasks.prompt_rows(split)


def test_splits_are_disjoint_and_unknown_to_training():
    prompts = {split: [row["prompt"] for row in tasks.read_prompts(split)] for split in SPLITS}
    everything = [prompt for split in SPLITS for prompt in prompts[split]]
    assert len(everything) == len(set(everything)) == len(SPLITS) * len(DOMAINS) * 96
    for split in SPLITS:
        assert {tasks.split_of(prompt) for prompt in prompts[split]} == {split}
    for domain in DOMAINS:
        streamed = {e.prompt for e in itertools.islice(tasks.stream(domain, "train", seed=0), 2000)}
        assert {tasks.split_of(prompt) for prompt in streamed} == {"train"}
        assert streamed.isdisjoint(everything)


@pytest.mark.parametrize("domain", DOMAINS)
def test_generator_is_deterministic(domain):
    first, again, other = (list(itertools.islice(tasks.stream(domain, "train", s), 20)) for s in (3, 3, 4))
    assert first == again != other


def test_list_operations():
    expected = {
        "copy": "dacb",
        "reverse": "bcad",
        "left": "acbd",
        "right": "bdac",
        "swap": "bacd",
        "rest": "acb",
        "front": "dac",
        "last": "b",
    }
    assert tuple(expected) == tasks.LIST_OPERATIONS
    for operation, result in expected.items():
        assert "".join(tasks.apply_operation(operation, list("dacb"))) == result


def test_code_answers_are_python_that_runs():
    for row in tasks.read_prompts("test"):
        if row["domain"] == "code":
            scope: dict = {}
            exec(row["answer"], scope)
            count = row["prompt"].count(";") + 1
            assert isinstance(scope["f"](*range(1, count + 1)), int)


@pytest.mark.parametrize("split", SPLITS)
def test_tokenizer_round_trip_and_lengths(tokenizer, split):
    for row in tasks.read_prompts(split):
        for text in (row["prompt"], *([row["answer"]] if "answer" in row else [])):
            ids = tokenizer(text)["input_ids"]
            assert ids == encode_symbols(text)
            assert tokenizer.decode(ids) == text
        assert len(encode_symbols(row["prompt"])) <= 45
        if row["domain"] in tasks.ANSWER_TOKENS:
            assert 40 <= len(encode_symbols(row["answer"])) < GENERATION_LENGTH


def test_tokenizer_knows_its_special_tokens(tokenizer):
    special = (tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert special == (MASK_ID, EOS_ID, EOS_ID)
    assert len(tokenizer) == len(FIRST_VOCABULARY)


def test_tokenizer_refuses_unknown_symbols(tokenizer):
    with pytest.raises(Exception, match="UNK"):
        tokenizer("lists : q7")


def test_files_are_small_and_complete(model):
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) <= 20 * 1024 * 1024
    assert sum(p.numel() for p in model.parameters()) <= 8_000_000
    facts = json.loads((MODEL_DIR / "draftgraph.json").read_text(encoding="utf-8"))
    assert facts["mask_token_id"] == MASK_ID
    assert facts["end_token_ids"] == [EOS_ID]
    assert facts["block_length"] == BLOCK_LENGTH
    assert set(facts["attention"]) == set(ATTENTION_KINDS)
    log = (MODEL_DIR / "training_log.csv").read_text(encoding="utf-8").splitlines()
    assert log[0].startswith("minutes,step,loss")
    assert len(log) > 10


def test_committed_accuracy_is_competent():
    report = json.loads((MODEL_DIR / "accuracy.json").read_text(encoding="utf-8"))
    assert (report["split"], report["policy"], report["block_length"]) == ("test", "static:1", BLOCK_LENGTH)
    for domain in DOMAINS:
        for kind in ATTENTION_KINDS:
            cell = report["accuracy"][domain][kind]
            assert cell["n"] == 96
            assert cell["exact_match"] >= 0.70, (domain, kind)
            assert 40 <= cell["mean_answer_tokens"] <= 90


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_weights_still_decode_as_the_table_says(model, kind):
    rows = tasks.read_prompts("test")[:12]
    answers = decode(model, [encode_symbols(row["prompt"]) for row in rows], kind)
    right = sum(a == encode_symbols(row["answer"]) for a, row in zip(answers, rows, strict=True))
    assert right >= 6
