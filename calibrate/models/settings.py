"""Which blocks and which cache a checkpoint is decoded with: as the user asks, else as fits checkpoint and policy.

Decoding a checkpoint with blocks or an attention that it was not trained for runs without an error and gives worse
texts, and a graph that was calibrated so is worth little. So both follow from checkpoint and policy, and one line says
what was chosen and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calibrate.models.checkpoint import Checkpoint, CheckpointError, check_attention
from verify.blocks import make_schedule
from verify.decoding import DecodeConfig
from verify.policies.specification import make_policy, stated_block_length

DEFAULT_BLOCK_LENGTH = 32
DEFAULT_CACHE = "dual"

#: In the place of the delimiters of a schedule: all tokens that end a line.
NEWLINE = "newline"


@dataclass(frozen=True)
class DecodeSettings:
    """How a checkpoint is decoded.

    Attributes:
        config: for the decode loop.
        note: one line that says which blocks and which cache were chosen, and why.
    """

    config: DecodeConfig
    note: str


def decode_settings(
    checkpoint: Checkpoint,
    policy: str | None = None,
    *,
    block_length: int | None = None,
    cache: str | None = None,
    generation_length: int = 96,
    ignore_end_tokens: bool = False,
    schedule: str | None = None,
    **options: Any,
) -> DecodeSettings:
    """Choose block length and cache mode where they are None, and check them where they are not.

    The cache is block-causal for a checkpoint that was trained with this attention alone, none for Dream's own rules,
    and dual (Fast-dLLM's) for all else. The blocks are those that the policy counts its steps for (``S/L``), the whole
    answer for Dream's own rules without a cache, those the checkpoint was trained for, or 32 positions.

    Args:
        checkpoint: the model.
        policy: specification or published name of the unmasking policy, as the user wrote it; None where none is used.
        block_length: positions per block; another one than the checkpoint's is taken only from here.
        cache: ``none``, ``prefix``, ``dual`` or ``block_causal``.
        generation_length: positions to generate.
        ignore_end_tokens: decode the whole length, also after an end token.
        schedule: how long each block is (``verify.blocks``), None for blocks of one length. Its delimiters may be the
            word ``newline``, which stands for :func:`newline_tokens`. The block length is then the most of a block.
        options: other fields of :class:`verify.decoding.DecodeConfig`, as they are.

    Raises:
        CheckpointError: a cache mode of another attention, a policy whose steps are counted for other blocks, a
            published rule that is another one in the checkpoint's family, or a schedule for block-causal attention.
        ScheduleError: the schedule cannot be read.
        PolicyError: the policy cannot be read.
    """
    _check_rule(checkpoint, policy)
    of_dream = policy is not None and make_policy(policy).spec.startswith("dream:")
    cache, why_cache = _cache(checkpoint, cache, of_dream)
    length, why_length = _block_length(checkpoint, policy, block_length)
    if length is None:
        length, why_length = DEFAULT_BLOCK_LENGTH, "the usual length, as the checkpoint names none"
        if of_dream and cache == "none":
            length, why_length = generation_length, "the whole answer, as in Dream's own loop"
    config = DecodeConfig(
        block_length=length,
        generation_length=generation_length,
        cache=cache,
        end_token_ids=() if ignore_end_tokens else checkpoint.end_token_ids,
        schedule=_with_delimiters(checkpoint, schedule) if schedule is not None else None,
        **options,
    )
    if config.schedule is not None and cache == "block_causal":
        raise CheckpointError(
            f"{checkpoint.name} is decoded with block-causal attention, so it has the blocks that it was trained with "
            f"and no schedule, got {schedule!r}; leave it out"
        )
    if config.schedule is not None:
        unknown, size = make_schedule(config.schedule, length).delimiters[-1], checkpoint.denoiser.vocabulary_size
        if unknown >= size:
            raise CheckpointError(
                f"delimiter {unknown} of {schedule!r} is outside the vocabulary of {size} tokens, so it would never "
                "end a block; give ids of tokens, or the word 'newline'"
            )
    blocks = f"blocks of {length} ({why_length})"
    if config.schedule is not None:
        blocks = f"blocks of at most {length} ({why_length}) under {config.schedule}"
    return DecodeSettings(config, f"{blocks}, cache {cache} ({why_cache})")


def newline_tokens(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The ids of all tokens whose text ends with a newline, ascending.

    AdaBlock's LLaDA loop takes the one newline token, its Dream loop 24 of those that end with one; give ids for these.

    Raises:
        CheckpointError: the checkpoint has no tokenizer, or no such token.
    """
    tokenizer = checkpoint.tokenizer
    if tokenizer is None:
        raise CheckpointError(
            f"{checkpoint.name} has no tokenizer that knows which tokens end a line; give their ids in the place of "
            f"{NEWLINE!r}, joined by '+'"
        )
    known = range(min(len(tokenizer), checkpoint.denoiser.vocabulary_size))
    found = tuple(token for token in known if tokenizer.decode([token]).endswith("\n"))
    if not found:
        raise CheckpointError(f"no token of {checkpoint.name} ends a line; give the ids of other delimiters")
    return found


def _with_delimiters(checkpoint: Checkpoint, schedule: str) -> str:
    """``schedule`` with ids in the place of the word ``newline``."""
    parts = schedule.split(":")
    if len(parts) > 2 and parts[2] == NEWLINE:
        parts[2] = "+".join(map(str, newline_tokens(checkpoint)))
    return ":".join(parts)


def _cache(checkpoint: Checkpoint, cache: str | None, of_dream: bool) -> tuple[str, str]:
    if cache is not None:
        check_attention(checkpoint, cache)
        return cache, "asked for"
    if checkpoint.attention == ("block_causal",):
        return "block_causal", f"the attention that {checkpoint.name} was trained with"
    if of_dream:
        return "none", "as in Dream's own loop; drafts are exact with --backend expanded, near-lossless with packed"
    return DEFAULT_CACHE, "Fast-dLLM's dual cache"


def _block_length(checkpoint: Checkpoint, policy: str | None, block_length: int | None) -> tuple[int | None, str]:
    trained = checkpoint.block_length
    stated = stated_block_length(policy) if policy is not None else None
    if block_length is not None:
        if stated not in (None, block_length):
            raise CheckpointError(
                f"policy {policy!r} counts its steps for blocks of {stated}, but blocks of {block_length} are asked "
                f"for (by --block-length, or by the graph); give the steps for blocks of {block_length}"
            )
        differs = trained not in (None, block_length)
        return block_length, f"asked for; {checkpoint.name} was trained for {trained}" if differs else "asked for"
    if stated is not None:
        if trained not in (None, stated):
            raise CheckpointError(
                f"policy {policy!r} counts its steps for blocks of {stated}, but {checkpoint.name} was trained for "
                f"blocks of {trained}; give the steps for blocks of {trained}, or --block-length {stated} if that is "
                "meant"
            )
        return stated, "the length that the policy counts its steps for"
    return trained, f"the length that {checkpoint.name} was trained for"


def _check_rule(checkpoint: Checkpoint, policy: str | None) -> None:
    name, _, tau = (policy or "").partition(":")
    if checkpoint.family == "Dream" and name == "confidence_threshold":
        raise CheckpointError(
            f"Fast-dLLM decodes Dream by another rule than LLaDA, and {policy!r} would give other texts than its loop "
            f"(docs/models.md); give --policy threshold:{tau} for the rule of Fast-dLLM's LLaDA loop, or one of "
            "Dream's own, for example maskgit_plus:96"
        )
