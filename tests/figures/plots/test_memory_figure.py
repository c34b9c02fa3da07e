from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from figures import draw_all
from figures.plots.memory import draw_memory, load_memory, table_memory
from figures.records.fields import FigureDataError
from tests.figures.plots.test_ablation import by_gid, heading
from tests.support import saved_inputs
from tests.support.overlaps import assert_legible

GIB = 2**30


def payload(measured: bool = True, available: int = 24 * GIB) -> dict[str, Any]:
    rows = [
        {
            "context_length": context, "batch": batch, "drafts": drafts, "held": 15 * GIB, "widest": "a layer",
            "predicted": (16 + drafts // 4 + context // 1024) * GIB,
            "measured": (16 + drafts // 4 + context // 1024) * GIB * 100 // 102 if measured and drafts < 16 else None,
            "note": "" if measured and drafts < 16 else "out of memory",
        }
        for context in (256, 4096) for batch in (1, 4) for drafts in (0, 8, 16)
    ]  # fmt: skip
    return {
        "format": "draftgraph-memory", "version": 1, "unit": "bytes", "model": "made-up", "device": "synthetic device",
        "dtype": "bfloat16", "block_length": 32, "cache": "dual", "weights": 15 * GIB, "available": available,
        "rows": rows, "largest": [],
    }  # fmt: skip


def read(tmp_path: Path, content: dict[str, Any]) -> Any:
    return load_memory(saved_inputs.write(tmp_path / "memory.json", content))


def test_every_prediction_and_measurement_is_drawn(tmp_path: Path) -> None:
    memory = read(tmp_path, payload())
    figure = draw_memory(memory)
    (axes,) = figure.axes
    assert list(by_gid(axes, "predicted-4096-1").get_ydata()) == [20.0, 22.0, 24.0]
    markers = by_gid(axes, "measured-256-4")
    assert list(markers.get_xdata()) == [0, 8]  # the third ran out of memory
    assert list(markers.get_ydata()) == pytest.approx([16 / 1.02, 18 / 1.02])
    assert by_gid(axes, "weights").get_ydata()[0] == 15.0 and by_gid(axes, "available").get_ydata()[0] == 24.0
    assert heading(figure) == "Predicted peaks are +2.0 % to +2.0 % off the measured ones"
    assert axes.get_ylabel() == "peak memory (GiB)"
    # Lines of one context share a colour, lines of one batch their dashes; both are in the legend.
    drawn = {key: by_gid(axes, f"predicted-{key[0]}-{key[1]}") for key in memory.lines()}
    looks = {key: (line.get_color(), line.get_linestyle()) for key, line in drawn.items()}
    assert looks[256, 1][0] == looks[256, 4][0] != looks[4096, 1][0] == looks[4096, 4][0]
    assert looks[256, 1][1] == looks[4096, 1][1] != looks[256, 4][1] == looks[4096, 4][1]
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["context 256", "context 4096", "batch 1", "batch 4", "weights", "memory of the device"]
    assert_legible(figure)
    rows = list(csv.DictReader(io.StringIO(table_memory(memory).to_csv())))
    assert len(rows) == 12 and rows[2]["measured_bytes"] == "" and float(rows[0]["error"]) == pytest.approx(0.02)


def test_predictions_alone(tmp_path: Path) -> None:
    figure = draw_memory(read(tmp_path, payload(measured=False, available=999 * GIB)))
    assert heading(figure) == (
        "16 drafts at context 4096 and batch 1 are predicted to need 24 GiB, of which 15 GiB are weights"
    )
    assert all(line.get_gid() != "available" for line in figure.axes[0].lines)
    assert_legible(figure)


def test_it_is_drawn_with_everything_else(tmp_path: Path) -> None:
    saved_inputs.write(tmp_path / "memory.json", payload())
    assert {path.name for path in draw_all(tmp_path)} == {"memory.png", "memory.svg", "memory.csv"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "GiB"}, 'file.unit: expected "bytes", found "GiB"'),
        ({"rows": []}, "at least one result row"),
        ({"version": 2}, "version: expected 1"),
        ({"weights": -1}, "file.weights"),
    ],
)
def test_broken_files_name_the_place(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(FigureDataError, match=message):
        read(tmp_path, payload() | change)
