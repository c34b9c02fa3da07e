"""What decoding must know of a checkpoint besides its weights: mask token, end tokens, block length, attention.

``draftgraph.json`` beside the weights says it for any model; for a family its own files and its
:class:`~calibrate.models.families.spec.FamilySpec` do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibrate.models.families.spec import FamilySpec
from calibrate.models.folder import FACTS_NAME


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded or used."""


#: What ``draftgraph.json`` may say of a checkpoint; keys that are not listed are ignored.
_FACT_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "mask_token_id": ("a token id", lambda value: _is_id(value)),
    "end_token_ids": ("a list of token ids", lambda value: isinstance(value, list) and all(map(_is_id, value))),
    "block_length": ("an integer of at least 1", lambda value: _is_id(value) and value >= 1),
    "attention": (
        'a list of "bidirectional" and "block_causal"',
        lambda value: isinstance(value, list) and set(map(str, value)) <= {"bidirectional", "block_causal"},
    ),
    "logits_shift": (
        "0, or 1 for a model whose row r predicts the token after it",
        lambda value: _is_id(value) and value <= 1,
    ),
}


def _is_id(value: Any) -> bool:
    return type(value) is int and value >= 0


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``draftgraph.json`` in ``folder`` says, an empty dictionary where there is none.

    Raises:
        CheckpointError: it is not a JSON object, or a value is of another kind than expected.
    """
    path = folder / FACTS_NAME
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(facts).__name__}")
    for key, (expected, fits) in _FACT_CHECKS.items():
        if key in facts and not fits(facts[key]):
            raise CheckpointError(f"{path}: {key} must be {expected}, found {facts[key]!r}")
    return facts


def mask_token(
    source: str | Path,
    override: int | None,
    facts: dict[str, Any],
    stated: dict[str, Any],
    tokenizer: Any,
    family: FamilySpec | None,
) -> int:
    """The mask id: ``override``, else as draftgraph.json, config.json, the tokenizer or the family says.

    Raises:
        CheckpointError: nothing says which it is, or a family's own files say another one than was asked for.
    """
    by_name = None
    if family is not None and tokenizer is not None:
        by_name = tokenizer.get_vocab().get(family.mask_token)
    sources = {
        FACTS_NAME: facts.get("mask_token_id"),
        "config.json": stated.get("mask_token_id") if family is not None else None,
        "the tokenizer": by_name if by_name is not None else getattr(tokenizer, "mask_token_id", None),
    }
    agreed = {where: value for where, value in sources.items() if value is not None}
    default = family.mask_token_id if family is not None and not agreed else None
    mask = next((value for value in (override, *agreed.values(), default) if value is not None), None)
    if mask is None:
        raise CheckpointError(f"checkpoint {source} names no mask token; give it with --mask-token-id")
    if family is not None and (other := {where: value for where, value in agreed.items() if value != mask}):
        # A family's mask token is a fact of its training; any other id would be denoised as an ordinary word.
        listed = ", ".join(f"{where} says {value}" for where, value in other.items())
        raise CheckpointError(
            f"checkpoint {source}: mask token id {mask} is wrong for {family.name}: {listed}; leave out --mask-token-id"
        )
    return mask


def end_tokens(
    facts: dict[str, Any], tokenizer: Any, stated: dict[str, Any], family: FamilySpec | None
) -> tuple[int, ...]:
    """Ids that end an answer: those of draftgraph.json, else of tokenizer, config.json and family together."""
    if "end_token_ids" in facts:
        return tuple(facts["end_token_ids"])
    found: list[int] = []
    for candidate in (getattr(tokenizer, "eos_token_id", None), stated.get("eos_token_id")):
        found += candidate if isinstance(candidate, list) else [candidate] if candidate is not None else []
    if family is not None:
        size = int(stated.get("embedding_size") or stated.get("vocab_size") or 0)
        found += [token for token in family.end_token_ids if token < size]
    return tuple(dict.fromkeys(found))


def trained_block_length(family: FamilySpec | None, stated: dict[str, Any], name: str) -> int | None:
    """The block length that a family's checkpoint was trained for: as config.json, its name or the family says."""
    if family is None:
        return None
    for key in family.block_length_keys:
        if _is_id(stated.get(key)) and stated[key] >= 1:
            return int(stated[key])
    if family.block_length_in_name and (match := re.search(family.block_length_in_name, name)):
        return int(match[1])
    return family.block_length
