"""What an adapter does not load, and the one message for each: nothing is left random, dropped or guessed."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from calibrate.models.checkpoint import CheckpointError, load_checkpoint
from calibrate.models.hugging_face import HuggingFaceDenoiser
from tests.support.families import MASK, VOCABULARY, save, weights
from tests.support.models import MASK_ID, tiny_llama
from verify.runtimes.transformers_probe import MaskIgnoredError, probe_mask

WEIGHTS = "model.safetensors"


def refused(folder, message, **options):
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder, **options)


def rewrite(folder, change):
    made = load_file(folder / WEIGHTS)
    change(made)
    save_file(made, folder / WEIGHTS)
    return folder


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("family", "name", "native"),
    [
        ("llada", "model.transformer.blocks.1.ff_proj.weight", r"model\.layers\.1\.mlp\.gate_proj\.weight"),
        ("dream", "model.layers.0.self_attn.q_proj.bias", r"model\.layers\.0\.self_attn\.q_proj\.bias"),
        ("sdar", "model.layers.0.self_attn.k_norm.weight", r"model\.layers\.0\.self_attn\.k_norm\.weight"),
        ("llada2", "model.layers.1.mlp.gate.expert_bias", r"model\.layers\.1\.mlp\.gate\.e_score_correction_bias"),
    ],
)
def test_a_missing_weight(tmp_path, family, name, native):
    folder = rewrite(save(family, tmp_path), lambda made: made.pop(name))
    refused(folder, f"do not fit: 1 weights of .* are missing, for example {native}. Is this a ")


def test_a_missing_expert(tmp_path):
    folder = rewrite(save("llada2", tmp_path), lambda made: made.pop("model.layers.1.mlp.experts.5.up_proj.weight"))
    refused(folder, r"1 expert weights are missing, for example model\.layers\.1\.mlp\.experts\.5\.up_proj\.weight")


def test_an_expert_too_many(tmp_path):
    def add(made):
        for kind in ("gate", "up", "down"):
            made[f"model.layers.1.mlp.experts.8.{kind}_proj.weight"] = torch.zeros(2, 2)

    refused(rewrite(save("llada2", tmp_path), add), "holds more than the 8 experts of the config")


def test_a_foreign_weight(tmp_path):
    folder = rewrite(save("llada", tmp_path), lambda made: made.update({"model.transformer.wpe.weight": torch.ones(2)}))
    refused(folder, r"1 weights have no place in it, for example model\.transformer\.wpe\.weight")


def test_another_familys_weights(tmp_path):
    folder = save("llada", tmp_path)
    save_file(weights("sdar"), folder / WEIGHTS)
    refused(folder, "4 weights have no place in it, for example .*k_norm.*Is this a LLaDA checkpoint")


def test_a_weight_of_another_shape(tmp_path):
    folder = save("llada", tmp_path, embedding_size=VOCABULARY + 8)
    refused(folder, r"embed_tokens\.weight has shape \(64, 32\), but config\.json makes it \(72, 32\)|lm_head")


def test_two_weights_for_one_name(tmp_path):
    extra = {"model.embed_tokens.weight": torch.ones(VOCABULARY, 32)}
    folder = rewrite(save("llada", tmp_path), lambda made: made.update(extra))
    refused(folder, r"model\.embed_tokens\.weight was already loaded")


def test_mixed_dtypes(tmp_path):
    def halve(made):
        made["model.transformer.ln_f.weight"] = made["model.transformer.ln_f.weight"].bfloat16()

    refused(rewrite(save("llada", tmp_path), halve), "weights mix dtypes .*is BF16.*is F32.*save the checkpoint in one")


def test_a_router_in_float32_is_no_mixture(tmp_path):
    folder = save("llada2", tmp_path, dtype=torch.bfloat16)
    rewrite(folder, lambda made: made.update({"model.layers.1.mlp.gate.expert_bias": torch.ones(8)}))
    assert load_checkpoint(folder, dtype="bfloat16").denoiser.model.dtype == torch.bfloat16


def test_a_model_of_two_dtypes():
    model = tiny_llama()
    model.model.norm.to(torch.float16)
    with pytest.raises(ValueError, match=r"the model mixes torch\.float16 and torch\.float32"):
        HuggingFaceDenoiser(model, MASK_ID)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_quantised_weights(tmp_path, dtype):
    name = "model.transformer.ff_out.weight"
    folder = rewrite(save("llada", tmp_path), lambda made: made.update({name: made[name].to(dtype)}))
    refused(folder, "only unquantised weights can be loaded")


def test_a_quantisation_config(tmp_path):
    refused(save("sdar", tmp_path, quantization_config={"bits": 4}), "this one has a quantization_config")


@pytest.mark.parametrize("keep", [0, 4, 100, 20000, -1])
def test_truncated_weights(tmp_path, keep):
    folder = save("dream", tmp_path)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:keep])
    refused(folder, f"weight file {WEIGHTS} cannot be read")


def test_pickled_weights_are_not_read(tmp_path):
    folder = save("dream", tmp_path)
    (folder / WEIGHTS).unlink()
    torch.save(weights("dream"), folder / "pytorch_model.bin")
    refused(
        folder, "has pytorch_model.bin and no model.safetensors; other weight formats can run code and are not read"
    )


def test_a_missing_shard(tmp_path):
    folder = save("llada", tmp_path)
    (folder / WEIGHTS).unlink()
    index = {name: "model-00002-of-00002.safetensors" for name in weights("llada")}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    refused(folder, "1 of 1 weight files are missing, for example model-00002-of-00002")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_that_is_none(tmp_path, content):
    folder = save("llada", tmp_path)
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    refused(folder, "is not an index of weight files")


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llada", {"alibi": True}),
        ("llada", {"rope": False}),
        ("llada", {"block_type": "sequential"}),
        ("llada", {"include_qkv_bias": True}),
        ("llada", {"scale_logits": True}),
        ("dream", {"use_mrope": True}),
        ("sdar", {"use_sliding_window": True}),
        ("llada2", {"score_function": "softmax"}),
        ("llada2", {"norm_head": True}),
    ],
)
def test_what_the_native_class_would_compute_otherwise(tmp_path, family, changes):
    ((key, value),) = changes.items()
    refused(save(family, tmp_path, **changes), f"config.json has {key}={value!r}; .* computes the same as .* only with")


def test_a_config_without_a_key(tmp_path):
    refused(save("llada", tmp_path, d_model=None), "config.json of a LLaDA checkpoint lacks d_model")
    refused(save("llada2", tmp_path, num_experts=None), "config.json of a LLaDA2 checkpoint lacks num_experts")


def test_a_vocabulary_beyond_the_traces_type(tmp_path):
    refused(save("llada", tmp_path, embedding_size=2**31), "a vocabulary of 2147483648 is beyond the int32")


@pytest.mark.parametrize("architecture", ["LLaDAMoEModelLM", "SDARMoeForCausalLM"])
def test_architectures_that_only_look_alike(tmp_path, architecture):
    refused(save("llada", tmp_path, architectures=[architecture]), f"{architecture} is not supported: ")


# ---------------------------------------------------------------- the mask token


def tokenizer_with(folder, mask_token, number):
    words = {f"w{k}": k for k in range(VOCABULARY)}
    words.pop(f"w{number}")
    words[mask_token] = number
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="w0", extra_special_tokens=[mask_token], chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)


TEMPLATE = (
    "{% for m in messages %}w7 w8 {{ m['content'] }} w9{% endfor %}{% if add_generation_prompt %} w7 w6{% endif %}"
)


def test_another_mask_than_the_configs(tmp_path):
    refused(save("dream", tmp_path), "mask token id 5 is wrong for Dream: config.json says 63", mask_token_id=5)


def test_another_mask_than_the_tokenizers(tmp_path):
    folder = save("llada2", tmp_path, mask_token_id=7)
    tokenizer_with(folder, "<|mask|>", 62)
    refused(folder, "mask token id 7 is wrong for LLaDA2: the tokenizer says 62")


def test_a_tokenizer_brings_the_mask(tmp_path):
    folder = save("qwen3", tmp_path, mask_token_id=None)
    refused(folder, "names no mask token; give it with --mask-token-id")
    assert load_checkpoint(folder, mask_token_id=MASK).mask_token_id == MASK
    tokenizer_with(folder, "<|mask|>", 61)
    assert load_checkpoint(folder).mask_token_id == 61


def test_a_tokenizer_class_that_only_remote_code_has(tmp_path):
    """Dream's own class is Qwen2's under another name; its files are enough, its code is not run."""
    folder = save("dream", tmp_path, mask_token_id=None)
    words = {chr(97 + k) if k < 26 else f"w{k}": k for k in range(VOCABULARY - 1)}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {"content": "<|mask|>", "lstrip": False, "normalized": False, "rstrip": False, "special": True}
    stated = {"tokenizer_class": "DreamTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_dream.D", None]}}
    stated |= {"added_tokens_decoder": {str(MASK): {**added, "single_word": False}}, "mask_token": "<|mask|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    (folder / "tokenization_dream.py").write_text("raise SystemExit('remote code was run')")
    checkpoint = load_checkpoint(folder)
    assert type(checkpoint.tokenizer).__name__.startswith("Qwen2Tokenizer")
    assert checkpoint.mask_token_id == MASK
    assert checkpoint.tokenizer("ab<|mask|>")["input_ids"] == [0, 1, MASK]


def test_a_published_mask_beyond_the_vocabulary(tmp_path):
    refused(save("llada", tmp_path, mask_token_id=None), "126336 is outside the model's vocabulary of 64")


def test_a_chat_prompt_ends_where_the_answer_begins(tmp_path):
    folder = save("llada", tmp_path)
    with pytest.raises(CheckpointError, match="brings no chat template"):
        load_checkpoint(folder).chat_prompt("w20 w21")
    tokenizer_with(folder, "<|mdm_mask|>", MASK)
    assert load_checkpoint(folder).chat_prompt("w20 w21") == [7, 8, 20, 21, 9, 7, 6]


# ---------------------------------------------------------------- the probe


class Deaf(LlamaForCausalLM):
    """Sees everything, whatever its mask says."""

    def forward(self, attention_mask=None, **arguments):
        return super().forward(attention_mask=torch.ones_like(attention_mask), **arguments)


class Causal(LlamaForCausalLM):
    """Keeps a causal mask of its own, and honours what it is handed within that."""

    def forward(self, attention_mask=None, **arguments):
        return super().forward(attention_mask=attention_mask & torch.ones_like(attention_mask).tril(), **arguments)


class Padding(LlamaForCausalLM):
    """Reduces its 4-D mask to the padding mask that it expected, and attends causally."""

    def forward(self, attention_mask=None, **arguments):
        return super().forward(attention_mask=attention_mask[:, 0].any(dim=1), **arguments)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Deaf, "Deaf ignores its attention mask: a hidden row moves the logits"),
        (Causal, "Causal does not look at a later row that its attention mask shows"),
        (Padding, "Padding does not look at a later row"),
    ],
)
def test_a_model_that_ignores_its_mask(kind, message):
    model = kind(tiny_llama().config).eval()
    with pytest.raises(MaskIgnoredError, match=message):
        probe_mask(HuggingFaceDenoiser(model, MASK_ID))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_model_that_uses_its_mask(implementation, dtype, shift):
    model = tiny_llama().to(dtype)
    model.set_attn_implementation(implementation)
    probe_mask(HuggingFaceDenoiser(model, MASK_ID, shift))


def test_the_probe_runs_at_load(tmp_path, monkeypatch):
    monkeypatch.setattr("calibrate.models.families.loader.transformers.LlamaForCausalLM", Deaf)
    refused(save("llada", tmp_path), "Deaf ignores its attention mask")


@pytest.mark.parametrize("shift", [2, -1, "1"])
def test_shifts_that_mean_nothing(shift):
    with pytest.raises(ValueError, match="expected 0 or 1"):
        HuggingFaceDenoiser(tiny_llama(), MASK_ID, shift)
