"""SDAR, dense sizes (1.7B, 4B, 8B): Qwen3 under its own names, block-causal, logits not shifted."""

from calibrate.models.families.spec import FamilySpec

SDAR = FamilySpec(
    name="SDAR",
    model_types=("sdar",),
    native="Qwen3ForCausalLM",
    demands={"use_sliding_window": False, "hidden_act": "silu"},
    mask_token="<|MASK|>",
    mask_token_id=151669,
    end_token_ids=(151643, 151645),  # <|endoftext|>, <|im_end|>
    attention=("block_causal",),
    block_length=4,
    block_length_in_name=r"-b(\d+)$",  # SDAR-8B-Chat-b32 and the like were trained for that length
    tokenizer="Qwen2Tokenizer",
)
