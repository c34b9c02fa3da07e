"""Writing JSON files whole (:mod:`verify.files.writing`), and telling checkpoint folders apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from verify.files.writing import write_atomically

__all__ = ["folder_digest", "write_atomically", "write_json"]

_DIGEST_WHOLE = 1 << 26  # weight files up to 64 MiB are digested whole
_DIGEST_PART = 1 << 16
_DIGEST_PARTS = 256


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON; NaN and infinity are refused, as JSON has no word for them."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with write_atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def folder_digest(folder: Path) -> str | None:
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
