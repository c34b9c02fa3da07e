"""Prompts as a user's turn in a chat template."""

from __future__ import annotations

from typing import Any


def chat_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of ``text`` as a user's turn in the chat template of a transformers ``tokenizer``."""
    turns = [{"role": "user", "content": text}]
    # As text first: the template names its special tokens itself, so that the tokenizer must add none.
    written = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(written, add_special_tokens=False)["input_ids"])
