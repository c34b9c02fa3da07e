"""Qwen3-0.6B-diffusion of dLLM (mdlm and bd3lm): Qwen3 with its mask left open, logits not shifted.

The two trainings share ``model_type`` and weight names. mdlm is bidirectional, bd3lm block-causal with blocks of 32,
and nothing in config.json tells them apart, so both kinds are named here; choose the cache mode that fits.
"""

from calibrate.models.families.spec import FamilySpec

QWEN3_DIFFUSION = FamilySpec(
    name="Qwen3-diffusion",
    model_types=("a2d-qwen3",),
    native="Qwen3ForCausalLM",
    demands={"use_sliding_window": False, "hidden_act": "silu"},
    mask_token="<|mask|>",
    mask_token_id=None,  # added to Qwen3's tokenizer after training it; the tokenizer must say
    end_token_ids=(151643, 151645),  # <|endoftext|>, <|im_end|>
    attention=("bidirectional", "block_causal"),
    block_length=32,
)

QWEN2_DIFFUSION = FamilySpec(
    name="Qwen2-diffusion",
    model_types=("a2d-qwen2",),
    native="Qwen2ForCausalLM",
    demands={"use_sliding_window": False, "hidden_act": "silu"},
    mask_token="<|mask|>",
    mask_token_id=None,
    end_token_ids=(151643, 151645),
    attention=("bidirectional", "block_causal"),
    block_length=32,
)
