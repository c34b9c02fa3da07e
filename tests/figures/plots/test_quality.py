from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from figures.draw import draw_all
from figures.plots.quality import STEP, draw_quality, headline, table_quality
from figures.records.quality import Quality, load_quality
from figures.records.record import FigureDataError
from tests.figures.plots.test_ablation import by_gid, heading
from tests.support import saved_inputs
from tests.support.overlaps import assert_legible


def load(tmp_path: Path, payload: dict[str, Any]) -> Quality:
    return load_quality(saved_inputs.write(tmp_path / "quality.json", payload))


def test_drafts_move_every_point_to_the_left_and_none_down(tmp_path: Path) -> None:
    quality = load(tmp_path, saved_inputs.quality())
    figure = draw_quality(quality)
    for axes, domain in zip(figure.axes, ("lists", "lines"), strict=True):
        assert axes.get_title(loc="left") == domain and axes.get_xscale() == "log"
        for row in quality.select(domain=domain):
            point = by_gid(axes, f"{row.policy}-{row.method}-{row.budget}")
            assert list(point.get_xdata()) == [row.forwards] and list(point.get_ydata()) == [100 * row.share]
        for policy in quality.policies():
            line = by_gid(axes, f"{policy}-line")
            own = sorted((row.forwards for row in quality.select(domain=domain, policy=policy)), reverse=True)
            assert list(line.get_xdata()) == own and len(set(line.get_ydata())) == 1
    assert heading(figure) == (
        "Drafts need up to 2.7× fewer forward passes for the same answers; bolder rules lose up to 71 points of valid "
        "ones (lines, threshold:0.5)"
    )
    note = figure.texts[1].get_text().replace("\n", " ")
    assert "over 48 held-out (test) prompts per task" in note and "192 of 192 answers" in note
    assert "Left out: 3 prompts" in note
    assert_legible(figure)


def test_the_shade_is_what_only_drafts_reach(tmp_path: Path) -> None:
    payload = saved_inputs.quality(1)
    payload["rows"] = payload["rows"][:5]  # static:1, at one height
    axes = draw_quality(load(tmp_path, payload)).axes[0]
    corners = by_gid(axes, "won").get_paths()[0].get_extents()
    best = min(row["forwards"] for row in payload["rows"])
    assert (corners.x0, corners.x1) == (pytest.approx(best), pytest.approx(60.0))


def test_rules_of_one_share_lie_below_each_other_only_where_they_would_overlap(tmp_path: Path) -> None:
    figure = draw_quality(load(tmp_path, saved_inputs.quality(1)))  # all rules at one height
    axes = figure.axes[0]
    lines = {policy: by_gid(axes, f"{policy}-line") for policy in ("threshold:0.5", "static:4", "static:2", "static:1")}
    heights = {policy: line.get_transform().transform(line.get_xydata()[0])[1] for policy, line in lines.items()}
    assert heights["threshold:0.5"] == heights["static:4"] == heights["static:2"]
    step = STEP * figure.dpi / 72
    assert heights["static:1"] == pytest.approx(heights["static:2"] - step)  # which begins left of where this ends


@pytest.mark.parametrize("domains", [1, 5])
def test_every_number_of_tasks_can_be_read(tmp_path: Path, domains: int) -> None:
    figure = draw_quality(load(tmp_path, saved_inputs.quality(domains)))
    assert_legible(figure)
    names = [text.get_gid() for text in figure.axes[0].texts]
    assert "static:1-name" in names and "threshold:0.5-name" in names


def test_rules_that_cannot_be_told_apart_lose_nothing(tmp_path: Path) -> None:
    assert headline(load(tmp_path, saved_inputs.quality(1))).endswith(
        "; no rule can be told from the slowest one by its valid answers"
    )


def test_tokens_that_differ_stand_in_the_headline(tmp_path: Path) -> None:
    payload = saved_inputs.quality(1)
    payload["rows"][1]["measured_identical"] = 3
    assert "for answers with other tokens in 1 of 96 answers;" in headline(load(tmp_path, payload))
    payload = saved_inputs.quality(1)
    for row in payload["rows"]:
        row["exact"] = False
    assert "for answers with other tokens in 0 of 96 answers;" in headline(load(tmp_path, payload))


def test_every_row_is_in_the_table_and_it_is_drawn_with_all_others(tmp_path: Path) -> None:
    quality = load(tmp_path, saved_inputs.quality())
    table = table_quality(quality)
    assert len(table.rows) == len(quality.rows) == 60
    assert table.column("share") == [row.valid / 48 for row in quality.rows]
    assert [path.name for path in draw_all(tmp_path)] == [f"quality.{kind}" for kind in ("png", "svg", "csv")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": 49}, r"rows\[1\].valid: expected at most prompts = 48"),
        ({"measured_prompts": 2}, r"rows\[1\].measured_identical: expected at most measured_prompts = 2"),
        ({"forwards": 0}, r"rows\[1\].forwards: expected"),
        ({"forwards_high": None}, r"forwards_low and _high: expected both ends"),
        ({"valid_low": 0.99, "valid_high": 1.0}, r"rows\[1\].valid_low: expected an interval that holds the share"),
        ({"method": "plain", "budget": 0}, "expected every cell once"),
        ({"policy": "static:9"}, r"rows\[1\]: expected a row of method plain and budget 0 before it, found none"),
        ({"replayed": "yes"}, r"rows\[1\].replayed: expected"),
    ],
)
def test_broken_files_name_the_place(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    payload = saved_inputs.quality()
    payload["rows"][1].update(change)
    with pytest.raises(FigureDataError, match=message):
        load(tmp_path, payload)
    with pytest.raises(FigureDataError, match="at least one result row"):
        load(tmp_path, {**payload, "rows": []})
