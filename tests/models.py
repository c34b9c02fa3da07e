"""Tiny random models of real architectures, for tests that need a model but no competence."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

MASK_ID = 1
END_ID = 2


def tiny_llama(seed: int = 0, vocabulary: int = 48) -> LlamaForCausalLM:
    """Two layers, width 32, grouped keys; large random weights, so that neighbours matter and confidences spread."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3, pad_token_id=None,
        bos_token_id=None, eos_token_id=END_ID, attn_implementation="sdpa",
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()
