from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from figures.plots.calibration_size import draw_calibration_size, table_calibration_size
from figures.records.calibration_size import load_calibration_size
from figures.records.record import FigureDataError
from tests.figures.plots.test_ablation import by_gid, heading
from tests.support import saved_inputs
from tests.support.overlaps import assert_legible


def load(tmp_path: Path, change: Any = None) -> Any:
    payload = saved_inputs.calibration_size()
    if change is not None:
        change(payload)
    return load_calibration_size(saved_inputs.write(tmp_path / "size.json", payload))


def test_every_value_is_drawn(tmp_path: Path) -> None:
    figure = draw_calibration_size(load(tmp_path))
    rows = saved_inputs.calibration_size()["rows"]
    for axes, budget in zip(figure.axes, (10, 32), strict=True):
        own = [row for row in rows if row["budget"] == budget]
        sizes = [row["search_prompts"] for row in own]
        line = by_gid(axes, "held_out")
        assert (list(line.get_xdata()), list(line.get_ydata())) == (sizes, [row["nfe_reduction"] for row in own])
        assert list(by_gid(axes, "in_sample").get_ydata()) == [row["in_sample_nfe_reduction"] for row in own]
        spread = [segment.tolist() for segment in by_gid(axes, "draws").get_segments()]
        assert spread == [[[r["search_prompts"], r["draws_low"]], [r["search_prompts"], r["draws_high"]]] for r in own]
        band = by_gid(axes, "band").get_paths()[0].get_extents()
        assert (band.y0, band.y1) == (
            pytest.approx(min(row["nfe_reduction_low"] for row in own)),
            pytest.approx(max(row["nfe_reduction_high"] for row in own)),
        )
        assert axes.get_xscale() == "log"
        assert axes.get_xlabel() == "search prompts (log scale)"
        assert [int(tick) for tick in sorted(axes.get_xticks())] == [5, 10, 22, 43]
    assert figure.axes[0].get_ylabel() == "NFE reduction (× fewer forwards)"
    assert figure.axes[0].get_title(loc="left") == "D = 10\n22 to 43 prompts: −0.010 [−0.040, +0.020]"
    assert_legible(figure)


@pytest.mark.parametrize(
    ("helps", "text"),
    [
        ((False, True), "More than 43 search prompts are likely to help the greedy graph at D = 32, not elsewhere"),
        ((False, False), "No sign that more than 43 search prompts would help the greedy graph"),
        ((True, True), "More than 43 search prompts are likely to help the greedy graph"),
    ],
)
def test_the_headline_is_the_answer(tmp_path: Path, helps: tuple[bool, bool], text: str) -> None:
    def change(payload: dict[str, Any]) -> None:
        for answer, value in zip(payload["answers"], helps, strict=True):
            answer["more_would_help"] = value

    assert heading(draw_calibration_size(load(tmp_path, change))) == text


def test_one_budget_without_an_answer_or_interval(tmp_path: Path) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = payload["rows"][:6]
        del payload["answers"]
        for row in payload["rows"]:
            row |= {"nfe_reduction_low": None, "nfe_reduction_high": None}

    figure = draw_calibration_size(load(tmp_path, change))
    assert len(figure.axes) == 1
    assert heading(figure) == "Held-out NFE reduction of greedy graphs against the number of search prompts"
    assert_legible(figure)


def test_the_table_holds_the_rows(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(table_calibration_size(load(tmp_path)).to_csv())))
    assert len(rows) == 12
    wanted = saved_inputs.calibration_size()["rows"][8]
    assert float(rows[8]["nfe_reduction"]) == wanted["nfe_reduction"]
    assert float(rows[8]["draws_low"]) == wanted["draws_low"]
    assert (rows[8]["search_prompts"], rows[8]["held_out_prompts"]) == ("20", "21")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["rows"][1].update(search_prompts=5), "every size once, found 5 prompts at budget 10 twice"),
        (
            lambda p: p["rows"][1].update(search_prompts=0),
            r"rows\[1\].search_prompts: expected an integer of at least 1",
        ),
        (lambda p: p["rows"][1].pop("draws_low"), r'rows\[1\]: expected the field "draws_low"'),
        (lambda p: p["answers"][0].update(gain_interval=[2, 1]), r"answers\[0\].gain_interval: expected an interval"),
        (lambda p: p["answers"][0].update(more_would_help=1), r"answers\[0\].more_would_help: expected true or false"),
        (lambda p: p["answers"][0].pop("half"), r'answers\[0\]: expected the field "half"'),
    ],
)
def test_broken_files_name_the_place(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(FigureDataError, match=message):
        load(tmp_path, change)
