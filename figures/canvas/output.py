"""Writing a figure: PNG, SVG and the data that it shows as CSV, side by side."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from figures.canvas.style import DPI
from verify.files.writing import write_atomically


@dataclass(frozen=True)
class Table:
    """The data of a figure, one row per drawn value.

    Attributes:
        columns: their names.
        rows: one tuple per row, as long as ``columns``; None is an empty cell.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(self.columns)} cells expected ({self.columns}), got {row!r}")

    def column(self, name: str) -> list[Any]:
        """All cells of one column."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def to_csv(self) -> str:
        """RFC 4180 text but for its line ends, which are ``\\n``; floats with all their digits."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


def save_figure(figure: Figure, path_stem: str | Path, table: Table) -> list[Path]:
    """Write ``path_stem`` + ``.png``, ``.svg`` and ``.csv``; folders are made, existing files replaced.

    All three are rendered before the first is written, and each is written whole or not at all. The same figure
    gives the same bytes on every call, so a rerun changes no file under version control.

    Returns:
        the three paths.

    Raises:
        OSError: a file cannot be written.
    """
    stem = Path(path_stem)
    contents = {".png": _render(figure, "png"), ".svg": _render(figure, "svg"), ".csv": table.to_csv().encode()}
    paths = []
    for suffix, data in contents.items():
        path = stem.with_name(stem.name + suffix)  # with_suffix would cut a name such as threshold-0.9
        with write_atomically(path) as temporary:
            temporary.write_bytes(data)
        paths.append(path)
    return paths


def _render(figure: Figure, kind: str) -> bytes:
    # The date and random element ids would make every SVG differ; the version would make every PNG differ.
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "draftgraph", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata, facecolor="white")
    return buffer.getvalue()
