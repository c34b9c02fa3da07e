"""Loading a model: the bundled one, a local folder or a hub id, with the facts that decoding needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from calibrate.bundled import MODEL_DIR
from calibrate.hugging_face import HuggingFaceDenoiser

BUNDLED = "bundled"
FACTS_NAME = "draftgraph.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded or used."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded model with what decoding must know of it.

    Attributes:
        name: the name it was asked for by.
        revision: hub commit, or a digest of a local folder's configuration and weights.
        denoiser: the model behind the runtime's protocol.
        tokenizer: transformers' tokenizer, or None when the checkpoint brings none.
        end_token_ids: ids that end an answer.
        block_length: the block length it was trained for, when known.
        attention: attention kinds it was trained for ("bidirectional", "block_causal"), when known.
    """

    name: str
    revision: str | None
    denoiser: HuggingFaceDenoiser
    tokenizer: Any | None
    end_token_ids: tuple[int, ...]
    block_length: int | None
    attention: tuple[str, ...]
    dtype: str

    @property
    def mask_token_id(self) -> int:
        return self.denoiser.mask_token_id

    def text(self, tokens: list[int]) -> str | None:
        return None if self.tokenizer is None else self.tokenizer.decode(tokens)


def load_checkpoint(
    source: str | Path,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    mask_token_id: int | None = None,
    end_token_ids: tuple[int, ...] | None = None,
) -> Checkpoint:
    """Load a model for decoding.

    Args:
        source: ``bundled``, a local folder in Hugging Face layout, or a hub id.
        dtype: ``float32``, ``bfloat16`` or ``float16``; exactness is a promise in float32 only.
        device: a torch device.
        mask_token_id: overrides what the checkpoint says (``draftgraph.json``, then its tokenizer).
        end_token_ids: overrides likewise (``draftgraph.json``, then tokenizer and configuration).

    Raises:
        CheckpointError: nothing there, a truncated or foreign weight file, weights that do not fit the configuration,
            no mask token known, an unknown dtype, or a device that is not there.
    """
    folder = MODEL_DIR if source == BUNDLED else Path(source).expanduser()
    where = str(folder) if folder.exists() else str(source)
    looks_local = source == BUNDLED or str(source).startswith((".", "/", "~")) or str(source).count("/") > 1
    if looks_local and not (folder / "config.json").is_file():
        raise CheckpointError(f"no checkpoint at {folder}: expected a folder with config.json and *.safetensors")
    if dtype not in DTYPES:
        raise CheckpointError(f"unknown dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
    _check_device(device)
    facts = _facts(folder)
    try:
        config = AutoConfig.from_pretrained(where)
        model, report = AutoModelForCausalLM.from_pretrained(
            where, dtype=DTYPES[dtype], attn_implementation="sdpa", output_loading_info=True
        )
    except Exception as error:  # transformers passes on whatever its parts raise, each with a class of its own
        raise CheckpointError(f"checkpoint {source} cannot be loaded: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"checkpoint {source} lacks {len(missing)} weights of {type(model).__name__}, for example {missing[0]!r}; "
            "the missing ones would be random"
        )
    tokenizer = _tokenizer(where)
    mask = mask_token_id if mask_token_id is not None else facts.get("mask_token_id")
    if mask is None and tokenizer is not None:
        mask = tokenizer.mask_token_id
    if mask is None:
        raise CheckpointError(f"checkpoint {source} names no mask token; give it with --mask-token-id")
    ends = end_token_ids if end_token_ids is not None else _end_tokens(facts, tokenizer, config)
    try:
        denoiser = HuggingFaceDenoiser(model.to(device), mask)
    except ValueError as error:
        raise CheckpointError(f"checkpoint {source}: {error}") from error
    return Checkpoint(
        name=str(source),
        revision=getattr(config, "_commit_hash", None) or _folder_digest(folder),
        denoiser=denoiser,
        tokenizer=tokenizer,
        end_token_ids=tuple(ends),
        block_length=facts.get("block_length"),
        attention=tuple(facts.get("attention", ())),
        dtype=dtype,
    )


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"device {device!r} is not there ({reason}); use --device cpu") from error
    if kind == "meta":
        raise CheckpointError("device 'meta' holds no numbers; use --device cpu")


#: What ``draftgraph.json`` may say of a checkpoint; keys that are not listed are ignored.
_FACT_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "mask_token_id": ("a token id", lambda value: _is_id(value)),
    "end_token_ids": ("a list of token ids", lambda value: isinstance(value, list) and all(map(_is_id, value))),
    "block_length": ("an integer of at least 1", lambda value: _is_id(value) and value >= 1),
    "attention": (
        'a list of "bidirectional" and "block_causal"',
        lambda value: isinstance(value, list) and set(map(str, value)) <= {"bidirectional", "block_causal"},
    ),
    "logits_shift": ("0, as a model that predicts the next token is not supported", lambda value: value == 0),
}


def _is_id(value: Any) -> bool:
    return type(value) is int and value >= 0


def _facts(folder: Path) -> dict[str, Any]:
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


def _tokenizer(where: str) -> Any | None:
    try:
        return AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a checkpoint without tokenizer still decodes prompts given as token ids


def _end_tokens(facts: dict[str, Any], tokenizer: Any, config: Any) -> tuple[int, ...]:
    if "end_token_ids" in facts:
        return tuple(facts["end_token_ids"])
    found: list[int] = []
    for candidate in (getattr(tokenizer, "eos_token_id", None), getattr(config, "eos_token_id", None)):
        found += candidate if isinstance(candidate, list) else [candidate] if candidate is not None else []
    return tuple(dict.fromkeys(found))


_DIGEST_WHOLE = 1 << 26  # weight files up to 64 MiB are digested whole
_DIGEST_PART = 1 << 16
_DIGEST_PARTS = 256


def _folder_digest(folder: Path) -> str | None:
    """A digest of the configuration and of the weights: whole small files, 256 parts of 64 KiB spread over a large one.

    The header alone would not do: it is the same for every training of one architecture.
    """
    if not folder.is_dir():
        return None
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as stream:
            if size <= _DIGEST_WHOLE:
                digest.update(stream.read())
                continue
            for part in range(_DIGEST_PARTS):
                stream.seek((size - _DIGEST_PART) * part // (_DIGEST_PARTS - 1))
                digest.update(stream.read(_DIGEST_PART))
    return digest.hexdigest()[:16]
