"""The folder of a checkpoint: which weight files are loaded from it, and a digest that tells models apart."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

FACTS_NAME = "draftgraph.json"

#: One file of weights or an index of several, in the order in which transformers looks for them.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
#: What is read beside the weights. ``generation_config.json`` is not: nothing here generates with transformers' loop.
_SMALL_FILES = (
    "config.json", FACTS_NAME, "tokenizer*.json", "tokenizer.model", "spiece.model", "added_tokens.json",
    "special_tokens_map.json", "vocab.*", "merges.txt", "chat_template*", "adapter_config.json", "adapter_model.*",
)  # fmt: skip
_DIGEST_WHOLE = 1 << 26  # weight files up to 64 MiB are digested whole
_DIGEST_PART = 1 << 16
_DIGEST_PARTS = 256


class WeightFilesError(ValueError):
    """A folder whose weight files are incomplete, or do not say which of them belong together."""


def weight_files(folder: Path) -> tuple[Path | None, list[Path]]:
    """The index of the weights (None where there is none) and the weight files that are loaded from ``folder``.

    ``config.json`` may name the file (``transformers_weights``). Otherwise ``model.safetensors`` comes first, then the
    files that ``model.safetensors.index.json`` names, wherever they lie, then the same for ``pytorch_model.bin``. Other
    files are not loaded. The one exception is a folder that has none of these, but a single ``*.safetensors``.

    Raises:
        WeightFilesError: no weights, an index that cannot be read or that names files which are not there, or several
            ``*.safetensors`` of which nothing says that they belong together.
    """
    stated = _json_object(folder / "config.json").get("transformers_weights")
    named = [stated] if isinstance(stated, str) else []
    for path in (folder / name for name in [*named, *_WEIGHTS]):
        if path.is_file():
            return (path, _indexed(path, folder)) if path.name.endswith(".index.json") else (None, [path])
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise WeightFilesError(
            f"no file named model.safetensors, and no model.safetensors.index.json, in {folder}; fetch the weights"
        )
    if len(found) > 1:
        raise WeightFilesError(
            f"{folder} holds {len(found)} *.safetensors (for example {found[0].name} and {found[1].name}), but neither "
            "model.safetensors nor model.safetensors.index.json, so nothing says which of them are the model; name "
            "the right file model.safetensors, or fetch the index"
        )
    return None, found


def _indexed(index: Path, folder: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [folder / name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightFilesError(f"{index.name} is not an index of weight files ({error!r}); fetch it again") from error
    if absent := [name for name, path in zip(names, paths, strict=True) if not path.is_file()]:
        raise WeightFilesError(f"{len(absent)} of {len(names)} weight files are missing, for example {absent[0]}")
    return paths


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # whoever needs the file says what is wrong with it
    return value if isinstance(value, dict) else {}


def folder_digest(folder: Path) -> str | None:
    """A digest of every file that decides an output, None where ``folder`` is not a folder.

    These are the configuration, ``draftgraph.json``, the tokenizer's files, the index of the weights and every weight
    file that is loaded, wherever the index says. Large weight files are read in part: 256 parts of 64 KiB spread over
    the file. The header alone would not do, as it is the same for every training of one architecture.

    Raises:
        WeightFilesError: as in :func:`weight_files`.
    """
    if not folder.is_dir():
        return None
    index, weights = weight_files(folder)
    small = {path for pattern in _SMALL_FILES for path in folder.glob(pattern) if path.is_file()}
    if index is not None:
        small.add(index)
    digest = hashlib.sha256()
    for path in [*sorted(small - set(weights)), *weights]:
        size = path.stat().st_size
        digest.update(f"{Path(os.path.relpath(path, folder)).as_posix()}:{size}:".encode())
        with path.open("rb") as stream:
            if size <= _DIGEST_WHOLE:
                digest.update(stream.read())
                continue
            for part in range(_DIGEST_PARTS):
                stream.seek((size - _DIGEST_PART) * part // (_DIGEST_PARTS - 1))
                digest.update(stream.read(_DIGEST_PART))
    return digest.hexdigest()[:16]
