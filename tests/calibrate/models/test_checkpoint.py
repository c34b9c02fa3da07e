"""Loading a checkpoint from a folder, and one clear message for each way in which it cannot be used."""

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calibrate.models.checkpoint import CheckpointError, load_checkpoint
from tests.support.models import END_ID, MASK_ID, tiny_llama

WEIGHTS = "model.safetensors"
FACTS = "draftgraph.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_llama().save_pretrained(folder)
    write_facts(folder, mask_token_id=MASK_ID)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "tiny")
    return tmp_path / "tiny"


def write_facts(folder, **facts):
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def refused(folder, message, **options):
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder, **options)


def test_a_saved_model_comes_back(folder):
    checkpoint = load_checkpoint(folder)
    loaded, original = checkpoint.denoiser.model.state_dict(), tiny_llama().state_dict()
    assert loaded.keys() == original.keys()
    assert all(torch.equal(loaded[name], original[name]) for name in loaded)
    assert (checkpoint.mask_token_id, checkpoint.end_token_ids) == (MASK_ID, (END_ID,))
    assert (checkpoint.name, checkpoint.source, checkpoint.dtype) == (folder.name, str(folder), "float32")
    assert (checkpoint.tokenizer, checkpoint.text([5, 6])) == (None, None)
    assert (checkpoint.block_length, checkpoint.attention) == (None, ())


def test_the_name_of_a_folder_is_not_the_path_to_it(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = [load_checkpoint(source).name for source in (f"{folder}/", f"../{folder.name}", "./")]
    assert names == [folder.name] * 3


def test_the_checkpoints_own_facts(folder):
    write_facts(
        folder, mask_token_id=7, end_token_ids=[3, 4], block_length=16, attention=["block_causal"], logits_shift=0
    )
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.mask_token_id, checkpoint.end_token_ids) == (7, (3, 4))
    assert (checkpoint.block_length, checkpoint.attention) == (16, ("block_causal",))
    assert load_checkpoint(folder, mask_token_id=8, end_token_ids=()).mask_token_id == 8
    assert load_checkpoint(folder, mask_token_id=8, end_token_ids=()).end_token_ids == ()


def test_a_tokenizer_brings_mask_and_end(folder):
    (folder / FACTS).unlink()
    words = {word: number for number, word in enumerate(["[PAD]", "[X]", "[Y]", "[MASK]", "[END]", "a", "b"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[X]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, mask_token="[MASK]", eos_token="[END]", unk_token="[X]"
    ).save_pretrained(folder)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.mask_token_id == 3
    assert checkpoint.end_token_ids == (4, END_ID)  # the tokenizer's and the configuration's
    assert checkpoint.text([5, 6]) == "a b"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes(folder, dtype):
    checkpoint = load_checkpoint(folder, dtype=dtype)
    assert checkpoint.denoiser.model.dtype == getattr(torch, dtype)
    assert checkpoint.dtype == dtype


def test_the_revision_is_one_of_the_weights(folder):
    """Another training of the same architecture has the same files, sizes and headers."""
    first = load_checkpoint(folder).revision
    assert load_checkpoint(folder).revision == first
    weights = folder / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    second = load_checkpoint(folder).revision
    change_config(folder, rms_norm_eps=1e-5)
    assert len({first, second, load_checkpoint(folder).revision}) == 3


# ---------------------------------------------------------------- what cannot be loaded


def test_a_missing_folder(tmp_path):
    message = "no checkpoint at .*nowhere: expected a folder with config.json and"
    refused(tmp_path / "nowhere", message)
    refused("~/no such folder/nowhere", "no checkpoint at /.*nowhere")
    refused(tmp_path, "no checkpoint at")


def test_a_hub_name_that_is_nowhere(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("nobody/no-such-model", "checkpoint nobody/no-such-model cannot be loaded: ")


@pytest.mark.parametrize("keep", [0, 4, 100, 20000, -1])
def test_truncated_weights(folder, keep):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:keep])
    refused(folder, "cannot be loaded: ")


def test_no_weights(folder):
    (folder / WEIGHTS).unlink()
    refused(folder, "cannot be loaded: .*no file named model.safetensors")


def test_weights_that_are_missing_would_be_random(folder):
    change_config(folder, num_hidden_layers=3)
    refused(folder, "lacks 9 weights of LlamaForCausalLM, for example 'model.layers.2")


def test_weights_of_another_shape(folder):
    change_config(folder, hidden_size=64)
    refused(folder, "cannot be loaded")


@pytest.mark.parametrize("text", ["", "hello", "[]", "{}", '{"model_type": "nonsense"}', '{"model_type": "t5"}'])
def test_a_foreign_configuration(folder, text):
    (folder / "config.json").write_text(text, encoding="utf-8")
    refused(folder, "cannot be loaded: ")


def test_a_configuration_of_wrong_types(folder):
    change_config(folder, hidden_size="wide")
    refused(folder, "cannot be loaded: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "draftgraph.json is not valid JSON"),
        ("[]", "draftgraph.json must hold a JSON object, found list"),
        ('{"mask_token_id": "x"}', "mask_token_id must be a token id, found 'x'"),
        ('{"mask_token_id": [1]}', r"mask_token_id must be a token id, found \[1\]"),
        ('{"mask_token_id": true}', "mask_token_id must be a token id, found True"),
        ('{"mask_token_id": 1.5}', "mask_token_id must be a token id, found 1.5"),
        ('{"end_token_ids": 2}', "end_token_ids must be a list of token ids, found 2"),
        ('{"end_token_ids": ["2"]}', "end_token_ids must be a list of token ids"),
        ('{"block_length": 0}', "block_length must be an integer of at least 1, found 0"),
        ('{"attention": "causal"}', "attention must be a list of"),
        ('{"attention": ["causal"]}', "attention must be a list of"),
        ('{"logits_shift": 2}', "logits_shift must be 0"),
    ],
)
def test_facts_that_make_no_sense(folder, text, message):
    (folder / FACTS).write_text(text, encoding="utf-8")
    refused(folder, message)


def test_facts_in_another_encoding(folder):
    (folder / FACTS).write_bytes(b"\xff\xfe{}")
    refused(folder, "draftgraph.json is not valid JSON")


def test_no_mask_token(folder):
    (folder / FACTS).unlink()
    refused(folder, "names no mask token; give it with --mask-token-id")
    assert load_checkpoint(folder, mask_token_id=5).mask_token_id == 5


@pytest.mark.parametrize("mask", [48, -1])
def test_a_mask_token_outside_the_vocabulary(folder, mask):
    refused(folder, f"mask token id {mask} is outside the model's vocabulary of 48", mask_token_id=mask)


def test_an_unknown_dtype(folder):
    refused(folder, "unknown dtype 'int8', expected one of float32, bfloat16, float16", dtype="int8")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there(folder, device):
    refused(folder, f"device '{device}' .*use --device cpu", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(folder):
    refused(folder, r"device 'cuda' is not there \(.*use --device cpu", device="cuda")


def test_how_steps_are_run_is_asked_for_at_load():
    assert load_checkpoint("bundled").denoiser.step_forwards == "eager"
    assert load_checkpoint("bundled", compiled=True).denoiser.step_forwards == "compiled"


def test_cuda_graphs_are_for_cuda(folder):
    refused(folder, "--cuda-graphs needs --device cuda, got --device cpu", cuda_graphs=True)


def test_a_shape_is_not_looked_for_on_the_hub():
    refused("llada-9b-shaped", "is the name of a shape, whose random weights only `latency` and `memory` take")
