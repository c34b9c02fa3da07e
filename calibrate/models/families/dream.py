"""Dream-7B: Qwen2 under its own names, bidirectional; made from Qwen2.5, so row r still predicts the token after it."""

from calibrate.models.families.spec import FamilySpec

DREAM = FamilySpec(
    name="Dream",
    model_types=("dream",),
    native="Qwen2ForCausalLM",
    demands={"use_sliding_window": False, "use_mrope": False, "hidden_act": "silu"},
    mask_token="<|mask|>",
    mask_token_id=151666,
    end_token_ids=(151643, 151645),  # <|endoftext|>, <|im_end|>
    logits_shift=1,
    attention=("bidirectional",),
    tokenizer="Qwen2Tokenizer",
)
