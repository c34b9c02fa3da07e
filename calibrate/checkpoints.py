"""Loading a model: the bundled one, a local folder or a hub id, with the facts that decoding needs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
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
        revision: hub commit, or a digest of a local folder's configuration and weight headers.
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
    folder = MODEL_DIR if source == BUNDLED else Path(source)
    where = str(folder) if folder.exists() else str(source)
    looks_local = source == BUNDLED or str(source).startswith((".", "/", "~")) or str(source).count("/") > 1
    if looks_local and not (folder / "config.json").is_file():
        raise CheckpointError(f"no checkpoint at {folder}: expected a folder with config.json and *.safetensors")
    if dtype not in DTYPES:
        raise CheckpointError(f"unknown dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise CheckpointError(f"device {device!r} was asked for, but torch finds no CUDA device; use --device cpu")
    try:
        config = AutoConfig.from_pretrained(where)
        model, report = AutoModelForCausalLM.from_pretrained(
            where, dtype=DTYPES[dtype], attn_implementation="sdpa", output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {source} cannot be loaded: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"checkpoint {source} lacks {len(missing)} weights of {type(model).__name__}, for example {missing[0]!r}; "
            "the missing ones would be random"
        )
    facts = _facts(folder)
    tokenizer = _tokenizer(where)
    mask = mask_token_id if mask_token_id is not None else facts.get("mask_token_id")
    if mask is None and tokenizer is not None:
        mask = tokenizer.mask_token_id
    if mask is None:
        raise CheckpointError(f"checkpoint {source} names no mask token; give it with --mask-token-id")
    ends = end_token_ids if end_token_ids is not None else _end_tokens(facts, tokenizer, config)
    try:
        denoiser = HuggingFaceDenoiser(model.to(device), int(mask))
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


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS_NAME
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(facts).__name__}")
    return facts


def _tokenizer(where: str) -> Any | None:
    try:
        return AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a checkpoint without tokenizer still decodes prompts given as token ids


def _end_tokens(facts: dict[str, Any], tokenizer: Any, config: Any) -> tuple[int, ...]:
    if "end_token_ids" in facts:
        return tuple(int(t) for t in facts["end_token_ids"])
    found: list[int] = []
    for candidate in (getattr(tokenizer, "eos_token_id", None), getattr(config, "eos_token_id", None)):
        found += candidate if isinstance(candidate, list) else [candidate] if candidate is not None else []
    return tuple(dict.fromkeys(found))


def _folder_digest(folder: Path) -> str | None:
    """A digest of configuration, file sizes and the first 64 KiB of each weight file (its header), not of all weights."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}:{path.stat().st_size}".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(65536))
    return digest.hexdigest()[:16]
