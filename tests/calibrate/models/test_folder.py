"""Which files of a checkpoint's folder are loaded, and that each file that decides an output changes the revision."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from calibrate.models.checkpoint import CheckpointError, load_checkpoint
from calibrate.recording.recorder import record
from calibrate.traces.table import TraceError
from tests.support.families import save
from tests.support.models import END_ID, MASK_ID, tiny_llama
from verify.decoding import DecodeConfig
from verify.policies.specification import make_policy

WEIGHTS = "model.safetensors"
CONFIG = DecodeConfig(block_length=4, generation_length=8, top_j=3)
PROMPTS = [[5, 6, 7], [8, 9]]


@pytest.fixture
def folder(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "tiny")
    write_facts(tmp_path / "tiny", mask_token_id=MASK_ID, end_token_ids=[END_ID])
    return tmp_path / "tiny"


def write_facts(folder, **facts):
    (folder / "draftgraph.json").write_text(json.dumps(facts), encoding="utf-8")


def into_subfolder(folder):
    """Move the weights into ``parts/`` and write the index that names them there."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    (folder / "parts").mkdir()
    save_file(weights, folder / "parts" / "a.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "parts/a.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder / "parts" / "a.safetensors"


def flip_last_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def record_again_is_refused(folder, out, change):
    record(load_checkpoint(folder), PROMPTS, make_policy("static:1"), CONFIG, out)
    change()
    with pytest.raises(TraceError, match=r"holds a trace of another run \(model_revision: there"):
        record(load_checkpoint(folder), [*PROMPTS], make_policy("static:1"), CONFIG, out)


def test_a_recording_does_not_go_on_with_shifted_logits(folder, tmp_path):
    def shift():
        write_facts(folder, mask_token_id=MASK_ID, end_token_ids=[END_ID], logits_shift=1)

    record_again_is_refused(folder, tmp_path / "trace", shift)


@pytest.mark.parametrize("layout", ["native", "family"])
def test_a_recording_does_not_go_on_with_other_weights_in_a_subfolder(folder, tmp_path, layout):
    if layout == "family":
        folder = save("llada", tmp_path / "llada")
    weights = into_subfolder(folder)
    record_again_is_refused(folder, tmp_path / "trace", lambda: flip_last_bit(weights))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocab.json", "chat_template.jinja"])
def test_the_tokenizers_files_decide_too(folder, name):
    before = load_checkpoint(folder).revision
    (folder / name).write_text("{}")
    assert load_checkpoint(folder).revision != before


def test_a_file_that_decides_nothing_changes_nothing(folder):
    before = load_checkpoint(folder).revision
    (folder / "README.md").write_text("hello")
    (folder / "training_args.bin").write_bytes(b"x")
    (folder / "checkpoint-100").mkdir()
    save_file({"a": torch.ones(1)}, folder / "checkpoint-100" / WEIGHTS)
    assert load_checkpoint(folder).revision == before


@pytest.mark.parametrize("other", ["consolidated.safetensors", "adapter.safetensors"])
def test_model_safetensors_is_preferred(tmp_path, other):
    """Some checkpoints bring a second copy of their weights, or an adapter, beside ``model.safetensors``."""
    folder = save("llada", tmp_path)
    before = load_checkpoint(folder)
    save_file(load_file(folder / WEIGHTS), folder / other)
    after = load_checkpoint(folder)
    assert after.revision == before.revision
    pairs = zip(before.denoiser.model.parameters(), after.denoiser.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_single_file_of_another_name_is_loaded(tmp_path):
    folder = save("llada", tmp_path)
    (folder / WEIGHTS).rename(folder / "llada.safetensors")
    assert load_checkpoint(folder).family == "LLaDA"


def test_two_files_that_nothing_connects_are_refused(tmp_path):
    folder = save("llada", tmp_path)
    (folder / WEIGHTS).rename(folder / "a.safetensors")
    save_file(load_file(folder / "a.safetensors"), folder / "b.safetensors")
    with pytest.raises(
        CheckpointError, match=r"2 \*\.safetensors .*a\.safetensors and b\.safetensors.*name the right file"
    ):
        load_checkpoint(folder)
