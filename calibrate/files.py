"""Writing JSON and CSV files whole (:mod:`verify.files.writing`)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from verify.files.writing import write_atomically


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON; NaN and infinity are refused, as JSON has no word for them."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with write_atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[object]) -> None:
    """Write the attributes ``columns`` of ``rows`` as CSV; floats with six significant digits, nothing for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [getattr(row, column) for column in columns]
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
    with write_atomically(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
