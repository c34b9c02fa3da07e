"""The model's shape, and the folder in Hugging Face layout that training writes."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from calibrate.bundled import ATTENTION_KINDS, BLOCK_LENGTH, GENERATION_LENGTH
from calibrate.files import write_json
from scripts.bundled_model.tokenizer import EOS_ID, MASK_ID, VOCABULARY, write_tokenizer
from verify.files.writing import write_atomically

HEAD_WIDTH = 32
#: Spread of the initial embeddings, and the final norm's initial weight, which keeps the first logits small all the
#: same. With transformers' 0.02 the steps that Adam takes in common for all names, or all things, soon hide what makes
#: them differ: a model did not tell the things of a prompt from others in 3,400 steps. So it does within 400.
EMBEDDING_SPREAD, FINAL_NORM = 0.6, 0.05


def build_model(layers: int, width: int) -> LlamaForCausalLM:
    """Build the model with random weights of torch's generator. Eager attention: nothing was faster on a CPU.

    Raises:
        ValueError: a width that is no multiple of the width of a head.
    """
    if width % HEAD_WIDTH:
        raise ValueError(f"the width must be a multiple of {HEAD_WIDTH}, the width of a head; got {width}")
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=width,
        intermediate_size=-(-8 * width // 3) // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        num_key_value_heads=width // HEAD_WIDTH,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=EOS_ID,
        attn_implementation="eager",
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(EMBEDDING_SPREAD / config.initializer_range)
        model.model.norm.weight.fill_(FINAL_NORM)
    return model


def export(model: LlamaForCausalLM, weights: list[Tensor], directory: Path, training: dict[str, Any]) -> None:
    """Write `weights` (in the order of the model's parameters) with all that loading needs; each file whole or not.

    The file holds float16: it has three more bits of mantissa than bfloat16, and weights of a trained model lie far
    inside its range. What is evaluated is always the file as it was written.

    Raises:
        ValueError: a weight that float16 cannot hold.
    """
    named = {}
    for (name, _), weight in zip(model.named_parameters(), weights, strict=True):
        named[name] = weight.detach().to("cpu", torch.float16).contiguous()
        if not named[name].isfinite().all():
            raise ValueError(f"{name} holds values that float16 cannot; the training has diverged")
    with write_atomically(directory / "model.safetensors") as temporary:
        save_file(named, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)
    settings = model.config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "float16", "use_cache": True}
    write_json(directory / "config.json", settings)
    facts = {
        "mask_token_id": MASK_ID,
        "end_token_ids": [EOS_ID],
        "bos_token_id": None,
        "block_length": BLOCK_LENGTH,
        "generation_length": GENERATION_LENGTH,
        "attention": list(ATTENTION_KINDS),
        "logits_shift": 0,
        "training": training,
    }
    write_json(directory / "draftgraph.json", facts)
    write_tokenizer(directory)
