"""Prompts as the token ids that a checkpoint is to continue."""

from __future__ import annotations

from collections.abc import Sequence

from calibrate.checkpoints import Checkpoint, CheckpointError
from calibrate.prompts import Prompt, encode_prompts


def encode_for(checkpoint: Checkpoint, prompts: Sequence[Prompt], *, chat: bool = False) -> list[tuple[int, ...]]:
    """Token ids of ``prompts`` for ``checkpoint``; with ``chat`` as a user's turn in its chat template.

    Raises:
        PromptError: a prompt that cannot be encoded, see :func:`calibrate.prompts.encode_prompts`.
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
