"""Writing JSON files whole (:mod:`verify.files.writing`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from verify.files.writing import write_atomically


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON; NaN and infinity are refused, as JSON has no word for them."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with write_atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
