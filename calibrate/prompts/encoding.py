"""Prompts as the token ids that a checkpoint is to continue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from calibrate.models.checkpoint import Checkpoint, CheckpointError
from calibrate.prompts.prompt import Prompt, PromptError
from verify.files.quoting import quoted


def encode_for(checkpoint: Checkpoint, prompts: Sequence[Prompt], *, chat: bool = False) -> list[tuple[int, ...]]:
    """Token ids of ``prompts`` for ``checkpoint``; with ``chat`` as a user's turn in its chat template.

    Raises:
        PromptError: a prompt that cannot be encoded, see :func:`calibrate.prompts.encoding.encode_prompts`.
        CheckpointError: ``chat`` for a checkpoint without a chat template, as base models are.
    """
    if chat:
        try:  # once beforehand, so that no prompt is blamed for what the checkpoint lacks
            checkpoint.chat_prompt("?")
        except CheckpointError as error:
            raise CheckpointError(f"{error} (without --chat)") from error
    denoiser = checkpoint.denoiser
    return encode_prompts(
        prompts,
        checkpoint.tokenizer,
        denoiser.vocabulary_size,
        denoiser.mask_token_id,
        chat=checkpoint.chat_prompt if chat else None,
    )


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: Any,
    vocabulary_size: int,
    mask_token_id: int | None = None,
    *,
    chat: Callable[[str], Sequence[int]] | None = None,
) -> list[tuple[int, ...]]:
    """Token ids of every prompt; texts go through ``tokenizer``, given ids are checked against the vocabulary.

    Args:
        prompts: the prompts.
        tokenizer: of the model; None where it has none.
        vocabulary_size: ids are below it.
        mask_token_id: which no prompt may hold.
        chat: makes the ids of a text by a chat template, in the place of ``tokenizer``.

    Raises:
        PromptError: a text without a tokenizer, a text that gives no tokens, an id outside the vocabulary, or token
            ids where a chat template needs a text.
    """
    encoded = []
    for prompt in prompts:
        if chat is not None:
            if prompt.text is None:
                raise PromptError(
                    f"prompt {quoted(prompt.id)} is given as token ids, which no chat template can be put around; give "
                    "'prompt' (text), or leave out --chat"
                )
            ids = tuple(chat(prompt.text))
        elif prompt.tokens is not None:
            ids = prompt.tokens
        elif tokenizer is None:
            raise PromptError(
                f"prompt {quoted(prompt.id)} is a text, but the model has no tokenizer; give 'tokens' instead"
            )
        else:
            try:
                ids = tuple(tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
            except Exception as error:  # tokenizers raises its own, of no class in particular
                raise PromptError(
                    f"prompt {quoted(prompt.id)} cannot be tokenized ({quoted(error, 200)}): {quoted(prompt.text)}"
                ) from error
        if not ids:
            raise PromptError(f"prompt {quoted(prompt.id)} gives no tokens; it needs at least one")
        if max(ids) >= vocabulary_size:
            raise PromptError(
                f"prompt {quoted(prompt.id)} holds token id {max(ids)}; the vocabulary has {vocabulary_size}"
            )
        if mask_token_id in ids:
            raise PromptError(
                f"prompt {quoted(prompt.id)} holds the mask token {mask_token_id} at index {ids.index(mask_token_id)}; "
                "a prompt is given, only what follows is decoded"
            )
        encoded.append(ids)
    return encoded


def prompt_hash(ids: Sequence[int]) -> str:
    """The first 16 hex digits (64 bits) of SHA-256 over the token ids of one prompt: equal prompts have equal hashes.

    Short, as manifests and graph files hold one per prompt: among a million prompts two meet by chance with a
    probability of 3e-8.
    """
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:16]


def prompt_set_hash(encoded: Sequence[Sequence[int]]) -> str:
    """SHA-256 of the token ids in order, as hex: two recordings with one hash decoded the same prompts."""
    return hashlib.sha256(json.dumps([list(ids) for ids in encoded]).encode()).hexdigest()
