"""What a saved file says of itself, as a sentence and as a file name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def facts(found: Mapping[str, object], names: Iterable[str], **more: object) -> str:
    """ "Model: M, policy: P." of the texts and numbers that ``found`` has under ``names``, then ``more``."""
    chosen = {name: found.get(name) for name in names} | more
    parts = [f"{name}: {value}" for name, value in chosen.items() if isinstance(value, str | int | float)]
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def file_name(*parts: Any) -> str:
    """A file name from ``parts``: "threshold:0.9" becomes "threshold-0.9"."""
    text = "-".join(str(part) for part in parts if part not in (None, ""))
    return "".join(char if char.isalnum() or char in "-_.+" else "-" for char in text)
