"""Values as JSON text: numbers of numpy become plain ones, and long lists stand one item a line."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np


def plain_json(value: Any) -> Any:
    """``value`` with numpy's numbers and arrays as plain ones, mappings as dicts and tuples as lists."""
    if isinstance(value, np.generic | np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, Mapping):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return value


def format_json(payload: Mapping[str, Any], by_row: Collection[str] = ()) -> str:
    """The text of an object, one field below the other.

    Args:
        payload: plain values, see :func:`plain_json`.
        by_row: fields with a list that is written one item a line.

    Raises:
        ValueError: a number that is not finite.
    """
    lines = []
    for name, value in payload.items():
        if name in by_row and value:
            rows = ",\n    ".join(json.dumps(row, separators=(",", ":")) for row in value)
            text = f"[\n    {rows}\n  ]"
        elif isinstance(value, dict):
            text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).replace("\n", "\n  ")
        else:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        lines.append(f'  "{name}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"
