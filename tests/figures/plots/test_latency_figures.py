from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from figures.plots.latency_rows import draw_latency_rows, table_latency_rows
from figures.plots.speedup import draw_speedup, table_speedup
from figures.records.budget import load_budget
from figures.records.latency import load_latency
from figures.records.record import FigureDataError
from tests.figures.plots.test_ablation import by_gid, heading
from tests.support import saved_inputs
from tests.support.overlaps import assert_legible


def latency(tmp_path: Path, payload: dict[str, Any]) -> Any:
    return load_latency(saved_inputs.write(tmp_path / "latency.json", payload))


def speedup(tmp_path: Path, payload: dict[str, Any]) -> Any:
    return load_budget(saved_inputs.write(tmp_path / "best.budget.json", payload))


def test_every_median_and_quartile_is_a_point_of_a_line(tmp_path: Path) -> None:
    payload = saved_inputs.latency()
    figure = draw_latency_rows(latency(tmp_path, payload))
    axes, upper = figure.axes
    line = by_gid(axes, "median")
    assert (list(line.get_xdata()), list(line.get_ydata())) == (payload["query_tokens"], payload["latency"])
    assert line.get_drawstyle() == "default" and line.get_marker() == "o"  # no step that nobody measured
    band = by_gid(axes, "quartiles").get_paths()[0].get_extents()
    assert (band.x0, band.x1, band.y0, band.y1) == (32, 32 * 17, 9.5, 27.0)
    assert by_gid(axes, "plain").get_ydata()[0] == 10.0
    assert list(by_gid(axes, "separate").get_ydata()) == [10.0 * (1 + drafts) for drafts in payload["drafts"]]
    assert axes.get_ylim() == (0, pytest.approx(1.08 * 27))
    assert axes.get_xlabel() == "query tokens per forward pass, batch × L × (1 + D)"
    assert axes.get_ylabel() == "time of a forward pass (ms)"
    assert upper.get_xlim() == axes.get_xlim()
    assert sorted(upper.get_xticks()) == payload["query_tokens"]
    assert upper.xaxis.get_major_formatter()(32 * 5) == "4"
    assert heading(figure) == "16 drafts make a forward 2.60 times as long; up to 3 cost at most 10 %"
    assert "synthetic device, float32, batch 1, context 128" in figure.texts[1].get_text().replace("\n", " ")
    assert_legible(figure)
    rows = list(csv.DictReader(io.StringIO(table_latency_rows(latency(tmp_path, payload)).to_csv())))
    assert rows[4] == {
        "drafts": "4", "query_tokens": "160", "milliseconds": "14.0", "low": "13.5",
        "high": "15.0", "times_plain": "1.4",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("drafts", "change", "text"),
    [
        (0, {"device": "cpu, 1 thread"}, "A forward pass without drafts takes 10 ms"),
        (3, {}, "Up to 3 drafts make a forward at most 10 % longer"),
        (
            1,
            {"latency": [10.0, 19.0], "low": [9.0, 18.0], "high": [11.0, 20.0], "note": "2 drafts do not fit"},
            "1 drafts make a forward 1.90 times as long, and the first one 1.90 times",
        ),
    ],
)
def test_small_tables(tmp_path: Path, drafts: int, change: dict[str, Any], text: str) -> None:
    figure = draw_latency_rows(latency(tmp_path, saved_inputs.latency(drafts) | change))
    assert heading(figure) == text
    assert ("2 drafts do not fit." in figure.texts[1].get_text().replace("\n", " ")) == ("note" in change)
    assert ("cpu, 1 thread," in figure.texts[1].get_text()) == ("device" in change)
    assert_legible(figure)


def test_the_speed_up_and_what_it_is_made_of(tmp_path: Path) -> None:
    payload = saved_inputs.budget()
    payload["latency"]["device"] = "cpu x86_64, 1 thread"
    figure = draw_speedup(speedup(tmp_path, payload))
    left, right = figure.axes
    rows = payload["rows"]
    line = by_gid(left, "speedup")
    assert (list(line.get_xdata()), list(line.get_ydata())) == (list(range(9)), [row["speedup"] for row in rows])
    band = by_gid(left, "band").get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (
        pytest.approx(min(row["speedup_low"] for row in rows)),
        pytest.approx(max(row["speedup_high"] for row in rows)),
    )
    star = by_gid(left, "best")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (3, rows[3]["speedup"])
    assert f"D = 3: {rows[3]['speedup']:.2f}×" in [text.get_text() for text in left.texts]
    assert list(by_gid(right, "fewer").get_ydata()) == [1000 / row["forwards"] for row in rows]
    assert list(by_gid(right, "longer").get_ydata()) == pytest.approx(
        [rows[0]["forwards"] / row["forwards"] / row["speedup"] for row in rows]
    )
    assert left.get_ylabel() == "predicted speed-up (× plain decoding)"
    assert left.get_xlabel() == right.get_xlabel() == "draft budget D (draft nodes per forward)"
    assert heading(figure) == f"D = 3 is predicted to be {rows[3]['speedup']:.2f} times as fast as plain decoding"
    note = figure.texts[1].get_text().replace("\n", " ")
    assert "chosen on search prompts" in note
    assert "cpu x86_64, 1 thread, float32, batch 1, context 128" in note
    assert_legible(figure)
    table = list(csv.DictReader(io.StringIO(table_speedup(speedup(tmp_path, payload)).to_csv())))
    assert [row["chosen"] for row in table] == ["False"] * 3 + ["True"] + ["False"] * 5
    for row in table:  # what the right panel shows makes the left one
        fewer, longer = float(row["times_fewer_forwards"]), float(row["times_longer_mean_forward"])
        assert fewer / longer == pytest.approx(float(row["speedup"]))
    assert float(table[8]["times_longer_mean_forward"]) < float(table[8]["milliseconds_with_all_drafts"]) / 10 == 1.8


def test_do_not_speculate(tmp_path: Path) -> None:
    figure = draw_speedup(speedup(tmp_path, saved_inputs.budget(best=0)))
    assert heading(figure) == "Do not speculate here: no budget is predicted to be faster than plain decoding"
    assert by_gid(figure.axes[0], "best").get_xdata()[0] == 0
    assert_legible(figure)


def test_doubts_stand_in_the_headline(tmp_path: Path) -> None:
    payload = saved_inputs.budget(best=8) | {"at_edge": True}
    payload["rows"][8]["speedup_low"] = 0.99
    said = heading(draw_speedup(speedup(tmp_path, payload)))
    assert said.endswith("plain decoding, but the interval contains 1; a larger budget may be better still")
    payload["rows"][8] |= {"speedup": 0.9, "speedup_low": 0.8, "speedup_high": 0.95}
    figure = draw_speedup(speedup(tmp_path, payload))
    assert heading(figure).startswith("D = 8 was chosen, but on held-out prompts it is predicted to be 0.90 times")
    assert_legible(figure)


def test_a_budget_is_never_chosen_by_the_figure(tmp_path: Path) -> None:
    payload = saved_inputs.budget()
    del payload["budget"]
    with pytest.raises(FigureDataError, match='expected the field "budget"'):  # the rows are of held-out prompts
        speedup(tmp_path, payload)


def test_few_prompts_price_nothing(tmp_path: Path) -> None:
    payload = saved_inputs.budget()
    for row in payload["rows"]:
        row["milliseconds_per_prompt"] = row["milliseconds_per_forward"] * row["forwards"] / 5
    figure = draw_speedup(speedup(tmp_path, payload))
    assert heading(figure) == "Only 5 held-out (test) prompts: too few to conclude anything"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["rows"].pop(0), "rows: expected budgets that ascend from 0"),
        (lambda p: p.update(budget=77), "budget: expected one of the budgets of the rows"),
        (
            lambda p: p["rows"][2].update(forwards=0),
            r"rows\[2\].forwards: expected an integer of at least 1, found 0",
        ),
        (lambda p: p["rows"][2].update(speedup_low=9.0), r"rows\[2\].speedup_low: expected at most"),
        (lambda p: p.update(rows=[]), "rows: expected budgets that ascend from 0"),
    ],
)
def test_broken_budgets_name_the_place(tmp_path: Path, change: Any, message: str) -> None:
    payload = saved_inputs.budget()
    change(payload)
    with pytest.raises(FigureDataError, match=message):
        speedup(tmp_path, payload)
