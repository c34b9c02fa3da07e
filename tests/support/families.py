"""Tiny random checkpoints in the layouts that the published ones have: config.json keys and weight names by hand.

Written from the published files, not from the adapters' specs, so that a wrong spec does not agree with itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

VOCABULARY = 64
MASK = 63
END = 2
WIDTH, INNER, HEADS, KEY_HEADS, HEAD_WIDTH, LAYERS = 32, 48, 4, 2, 8, 2

_QWEN = {
    "attention_dropout": 0.0, "bos_token_id": END, "eos_token_id": END, "hidden_act": "silu", "hidden_size": WIDTH,
    "initializer_range": 0.02, "intermediate_size": INNER, "max_position_embeddings": 256, "max_window_layers": 28,
    "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "num_key_value_heads": KEY_HEADS, "rms_norm_eps": 1e-6,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": False,
    "torch_dtype": "float32", "use_cache": False, "use_sliding_window": False, "vocab_size": VOCABULARY,
    "mask_token_id": MASK,
}  # fmt: skip

CONFIGS: dict[str, dict[str, Any]] = {
    "llada": {
        "activation_type": "silu", "alibi": False, "alibi_bias_max": 8.0, "architectures": ["LLaDAModelLM"],
        "attention_dropout": 0.0, "attention_layer_norm": False, "attention_layer_norm_with_affine": True,
        "auto_map": {"AutoModel": "modeling_llada.LLaDAModelLM"}, "bias_for_layer_norm": False, "block_group_size": 1,
        "block_type": "llama", "d_model": WIDTH, "embedding_dropout": 0.0, "embedding_size": VOCABULARY,
        "eos_token_id": END, "flash_attention": False, "include_bias": False, "include_qkv_bias": False,
        "init_device": "meta", "input_emb_norm": False, "layer_norm_type": "rms", "layer_norm_with_affine": True,
        "mask_token_id": MASK, "max_sequence_length": 256, "mlp_hidden_size": INNER, "mlp_ratio": 4,
        "model_type": "llada", "n_heads": HEADS, "n_kv_heads": HEADS, "n_layers": LAYERS, "pad_token_id": END,
        "rms_norm_eps": 1e-5, "rope": True, "rope_full_precision": True, "rope_theta": 500000.0, "scale_logits": False,
        "use_cache": False, "vocab_size": VOCABULARY - 1, "weight_tying": False,
    },
    "dream": {
        **_QWEN, "architectures": ["DreamModel"], "model_type": "Dream", "use_mrope": False, "pad_token_id": END,
        "auto_map": {"AutoModel": "modeling_dream.DreamModel"},
    },
    "sdar": {
        **_QWEN, "architectures": ["SDARForCausalLM"], "model_type": "sdar", "head_dim": HEAD_WIDTH, "block_size": 4,
        "attention_bias": False, "attn_implementation": "flex_attention", "fuse_cross_entropy": True,
        "auto_map": {"AutoModelForCausalLM": "modeling_sdar.SDARForCausalLM"},
    },
    "llada2": {
        "architectures": ["LLaDA2MoeModelLM"], "attention_dropout": 0.0, "embedding_dropout": 0.0,
        "first_k_dense_replace": 1, "head_dim": HEAD_WIDTH, "hidden_act": "silu", "hidden_size": WIDTH,
        "intermediate_size": INNER, "max_position_embeddings": 256, "max_window_layers": 28,
        "model_type": "llada2_moe", "moe_intermediate_size": 16, "moe_router_enable_expert_bias": True, "n_group": 4,
        "norm_head": False, "norm_topk_prob": True, "num_attention_heads": HEADS, "num_experts": 8,
        "num_experts_per_tok": 2, "num_hidden_layers": LAYERS, "num_key_value_heads": KEY_HEADS,
        "num_shared_experts": 1, "pad_token_id": END, "eos_token_id": END, "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 600000, "rotary_dim": 4,
        "routed_scaling_factor": 2.5, "score_function": "sigmoid", "sliding_window": 4096,
        "tie_word_embeddings": False, "topk_group": 2, "torch_dtype": "bfloat16", "use_bias": False,
        "use_qk_norm": True, "use_qkv_bias": False, "use_sliding_window": False, "vocab_size": VOCABULARY,
        "mask_token_id": MASK,
    },
    "qwen3": {
        **_QWEN, "architectures": ["A2DQwen3LMHeadModel"], "model_type": "a2d-qwen3", "head_dim": HEAD_WIDTH,
        "attention_bias": False, "tie_word_embeddings": True,
    },
}  # fmt: skip

#: The transformers class each one must arrive in, and whether its logits are shifted.
NATIVE = {
    "llada": ("LlamaForCausalLM", 0),
    "dream": ("Qwen2ForCausalLM", 1),
    "sdar": ("Qwen3ForCausalLM", 0),
    "llada2": ("Glm4MoeForCausalLM", 0),
    "qwen3": ("Qwen3ForCausalLM", 0),
}


def shapes(family: str) -> dict[str, tuple[int, ...]]:
    """Weight names and shapes as the family's checkpoints have them."""
    if family == "llada":
        found: dict[str, tuple[int, ...]] = {
            "model.transformer.wte.weight": (VOCABULARY, WIDTH),
            "model.transformer.ln_f.weight": (WIDTH,),
            "model.transformer.ff_out.weight": (VOCABULARY, WIDTH),
        }
        for layer in range(LAYERS):
            block = f"model.transformer.blocks.{layer}."
            for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
                found[f"{block}{name}.weight"] = (WIDTH, WIDTH)
            for name in ("attn_norm", "ff_norm"):
                found[f"{block}{name}.weight"] = (WIDTH,)
            for name in ("ff_proj", "up_proj"):
                found[f"{block}{name}.weight"] = (INNER, WIDTH)
            found[f"{block}ff_out.weight"] = (WIDTH, INNER)
        return found
    embedding = "model.word_embeddings.weight" if family == "llada2" else "model.embed_tokens.weight"
    found = {embedding: (VOCABULARY, WIDTH), "model.norm.weight": (WIDTH,)}
    if family != "qwen3":
        found["lm_head.weight"] = (VOCABULARY, WIDTH)
    queries, keys = HEADS * HEAD_WIDTH, KEY_HEADS * HEAD_WIDTH
    for layer in range(LAYERS):
        block = f"model.layers.{layer}."
        found[f"{block}input_layernorm.weight"] = found[f"{block}post_attention_layernorm.weight"] = (WIDTH,)
        if family == "llada2":
            found[f"{block}attention.query_key_value.weight"] = (queries + 2 * keys, WIDTH)
            found[f"{block}attention.dense.weight"] = (WIDTH, queries)
            found[f"{block}attention.query_layernorm.weight"] = (HEAD_WIDTH,)
            found[f"{block}attention.key_layernorm.weight"] = (HEAD_WIDTH,)
        else:
            for letter, rows in (("q", queries), ("k", keys), ("v", keys)):
                found[f"{block}self_attn.{letter}_proj.weight"] = (rows, WIDTH)
                if family == "dream":
                    found[f"{block}self_attn.{letter}_proj.bias"] = (rows,)
                elif letter != "v":
                    found[f"{block}self_attn.{letter}_norm.weight"] = (HEAD_WIDTH,)
            found[f"{block}self_attn.o_proj.weight"] = (WIDTH, queries)
        if family == "llada2" and layer > 0:
            found[f"{block}mlp.gate.weight"], found[f"{block}mlp.gate.expert_bias"] = (8, WIDTH), (8,)
            for expert in [*(f"experts.{e}" for e in range(8)), "shared_experts"]:
                found[f"{block}mlp.{expert}.gate_proj.weight"] = found[f"{block}mlp.{expert}.up_proj.weight"] = (16, 32)
                found[f"{block}mlp.{expert}.down_proj.weight"] = (32, 16)
        else:
            found[f"{block}mlp.gate_proj.weight"] = found[f"{block}mlp.up_proj.weight"] = (INNER, WIDTH)
            found[f"{block}mlp.down_proj.weight"] = (WIDTH, INNER)
    return found


def weights(family: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights, large enough that neighbours matter, under which the mask token is never predicted.

    Trained models never predict their mask and the published loops rely on it, so here it holds by construction: one
    coordinate of the hidden state is the same for every token, no layer writes to it, and the mask's output row reads
    it alone. (Not where input and output share their weights.)
    """
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes(family).items():
        drawn = torch.randn(shape, generator=generator)
        if "wte" in name or "embed" in name:
            made[name] = drawn
            made[name][:, 0] = 2.0
            made[name][MASK, 1:] *= 0.1  # so that masked rows differ by what they see, not alike by what they are
        elif name.endswith(("norm.weight", "ln_f.weight")):
            made[name] = 1 + 0.1 * drawn
        else:
            made[name] = (0.5 if name in _HEADS else 0.3) * drawn
            if name.endswith(_WRITERS) and name not in _HEADS:
                made[name][0] = 0.0
    for head in (made[name] for name in _HEADS if name in made):
        head[MASK] = head[:, 0] = 0.0
        head[MASK, 0] = -60.0
    return made


_HEADS = ("lm_head.weight", "model.transformer.ff_out.weight")
_WRITERS = ("attn_out.weight", "ff_out.weight", "o_proj.weight", "dense.weight", "down_proj.weight")


def save(family: str, folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Write a checkpoint; ``changes`` go into config.json, None removes a key. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in {**CONFIGS[family], **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    made = {name: weight.to(dtype).contiguous() for name, weight in weights(family, seed).items()}
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
