"""Prompts in a checkpoint's chat template, and the manifest that says so."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calibrate.models.checkpoint import CheckpointError, load_checkpoint
from calibrate.prompts.encoding import encode_for, prompt_hash, prompt_set_hash
from calibrate.prompts.prompt import Prompt, PromptError
from calibrate.recording.recorder import record
from calibrate.traces.table import TraceError, read_manifest
from tests.support.models import END_ID, MASK_ID, tiny_llama
from verify.decoding import DecodeConfig
from verify.policies.specification import make_policy

TEMPLATE = "{% for m in messages %}w7 {{ m['content'] }} w9{% endfor %}{% if add_generation_prompt %} w6{% endif %}"
PROMPTS = [Prompt("a", text="w20 w21"), Prompt("b", text="w22", tokens=(3, 4))]


def saved(folder, template):
    tiny_llama().save_pretrained(folder)
    (folder / "draftgraph.json").write_text(json.dumps({"mask_token_id": MASK_ID, "end_token_ids": [END_ID]}))
    tokenizer = Tokenizer(models.WordLevel({f"w{k}": k for k in range(48)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0", chat_template=template).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def instruct(tmp_path_factory):
    return load_checkpoint(saved(tmp_path_factory.mktemp("encoding") / "instruct", TEMPLATE))


def test_texts_become_a_users_turn(instruct):
    assert encode_for(instruct, PROMPTS) == [(20, 21), (3, 4)]
    assert encode_for(instruct, PROMPTS, chat=True) == [(7, 20, 21, 9, 6), (7, 22, 9, 6)]


def test_token_ids_take_no_template(instruct):
    with pytest.raises(PromptError, match='prompt "c" is given as token ids, which no chat template can be put around'):
        encode_for(instruct, [Prompt("c", tokens=(3, 4))], chat=True)


def test_a_template_may_not_bring_the_mask(tmp_path):
    masked = load_checkpoint(saved(tmp_path, "w1 {{ messages[0]['content'] }}"))
    with pytest.raises(PromptError, match='prompt "a" holds the mask token 1 at index 0'):
        encode_for(masked, PROMPTS, chat=True)


def test_a_base_model_has_no_template(tmp_path):
    base = load_checkpoint(saved(tmp_path, None))
    with pytest.raises(CheckpointError, match=r"brings no chat template; give the prompt as it is \(without --chat\)"):
        encode_for(base, PROMPTS, chat=True)


def test_the_manifest_says_whether_the_template_was_used(instruct, tmp_path):
    config = DecodeConfig(block_length=6, generation_length=6, top_j=3, end_token_ids=(END_ID,))
    policy = make_policy("static:2")
    facts = {}
    for chat in (False, True):
        ids = encode_for(instruct, PROMPTS, chat=chat)
        record(instruct, ids, policy, config, tmp_path / str(chat), chat=chat)
        facts[chat] = read_manifest(tmp_path / str(chat))["run"]
        assert facts[chat]["chat"] is chat and facts[chat]["prompt_set_hash"] == prompt_set_hash(ids)
        assert facts[chat]["prompt_hashes"] == [prompt_hash(prompt) for prompt in ids]
    assert facts[True]["prompt_set_hash"] != facts[False]["prompt_set_hash"]
    with pytest.raises(TraceError, match="prompt_set_hash: there"):
        record(instruct, encode_for(instruct, PROMPTS), policy, config, tmp_path / "True")
