"""LLaDA-8B and LLaDA-1.5: Llama under other names (no biases, no grouped keys), bidirectional, logits not shifted."""

from calibrate.models.families.spec import FamilySpec

_BLOCK = r"model\.transformer\.blocks\.(\d+)\."

LLADA = FamilySpec(
    name="LLaDA",
    model_types=("llada",),
    native="LlamaForCausalLM",
    fields={
        "hidden_size": ("d_model",),
        "num_hidden_layers": ("n_layers",),
        "num_attention_heads": ("n_heads",),
        "num_key_value_heads": ("n_kv_heads", "n_heads"),
        "intermediate_size": ("mlp_hidden_size",),
        # The output has embedding_size columns: the vocabulary, padded. Ids beyond vocab_size never occur.
        "vocab_size": ("embedding_size", "vocab_size"),
        "max_position_embeddings": ("max_sequence_length",),
        "rms_norm_eps": ("rms_norm_eps",),
        "rope_theta": ("rope_theta",),
        "tie_word_embeddings": ("weight_tying",),
    },
    fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    demands={
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
        "alibi": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "bias_for_layer_norm": False,
        "attention_layer_norm": False,
        "input_emb_norm": False,
        "scale_logits": False,
    },
    renames=(
        (r"model\.transformer\.wte\.weight", "model.embed_tokens.weight"),
        (r"model\.transformer\.ln_f\.weight", "model.norm.weight"),
        (r"model\.transformer\.ff_out\.weight", "lm_head.weight"),
        (_BLOCK + r"attn_norm\.weight", r"model.layers.\1.input_layernorm.weight"),
        (_BLOCK + r"ff_norm\.weight", r"model.layers.\1.post_attention_layernorm.weight"),
        (_BLOCK + r"([qkv])_proj\.weight", r"model.layers.\1.self_attn.\2_proj.weight"),
        (_BLOCK + r"attn_out\.weight", r"model.layers.\1.self_attn.o_proj.weight"),
        (_BLOCK + r"ff_proj\.weight", r"model.layers.\1.mlp.gate_proj.weight"),
        (_BLOCK + r"up_proj\.weight", r"model.layers.\1.mlp.up_proj.weight"),
        (_BLOCK + r"ff_out\.weight", r"model.layers.\1.mlp.down_proj.weight"),
    ),
    mask_token="<|mdm_mask|>",
    mask_token_id=126336,
    end_token_ids=(126081, 126348),  # <|endoftext|>, <|eot_id|>
    attention=("bidirectional",),
)
