from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from figures.draw import draw_all
from figures.plots.divergence import draw_divergence, table_divergence
from figures.records.divergence import DivergenceFile, load_divergence
from figures.records.record import FigureDataError
from tests.figures.plots.test_ablation import by_gid, heading
from tests.support import saved_inputs
from tests.support.overlaps import assert_legible


def load(tmp_path: Path, payload: dict[str, Any]) -> DivergenceFile:
    return load_divergence(saved_inputs.write(tmp_path / "bf16.json", payload))


def test_shares_and_margins_are_those_of_the_file(tmp_path: Path) -> None:
    payload = saved_inputs.divergence()
    figure = draw_divergence(load(tmp_path, payload))
    left, right = figure.axes
    for place, item in enumerate(payload["arms"]):
        for field, gid, offset in (("tokens_differ", "tokens", -0.13), ("path_parts", "path", 0.13)):
            point = by_gid(left, f"{item['arm']}-{gid}")
            assert point.get_xdata()[0] == pytest.approx(100 * item[field] / 48)
            assert point.get_ydata()[0] == place + offset
    assert [label.get_text() for label in left.get_yticklabels()] == [item["label"] for item in payload["arms"]]
    margins = sorted(item["margin"] for item in payload["divergences"] if item["arm"] == "batch")
    line = by_gid(right, "batch-margins")
    assert list(line.get_xdata()) == [margins[0], *margins] and line.get_drawstyle() == "steps-post"
    assert list(line.get_ydata()) == pytest.approx(list(np.arange(10) / 9))
    everything = by_gid(right, "all")
    assert list(everything.get_xdata()) == payload["decision_margin_quantiles"]
    assert not [item for item in right.get_children() if item.get_gid() == "repeat-margins"]
    assert heading(figure).endswith("cannot be told from batching alone: other tokens in 2 against 2 of 48 prompts")
    assert "all 3,000 decisions" in figure.texts[1].get_text().replace("\n", " ")
    assert_legible(figure)


@pytest.mark.parametrize(
    ("drafts", "batch", "tokens", "verdict", "expected"),
    [
        (12, 1, 0, "more", "In bfloat16 neither changes a token; speculation changes more prompts than batching "
         "alone: another path in 12 against 1 of 48 prompts"),
        (0, 3, 0, "cannot be told apart", "In bfloat16 neither changes a token; speculation cannot be told from "
         "batching alone: another path in 0 against 3 of 48 prompts"),
        (1, 12, 3, "fewer", "In bfloat16 speculation changes fewer prompts than batching alone: other tokens in 1 "
         "against 3 of 48 prompts"),
        (0, 0, 0, "cannot be told apart", "In bfloat16 neither speculation nor batching changed any of 48 prompts"),
    ],
)  # fmt: skip
def test_the_headline(tmp_path: Path, drafts: int, batch: int, tokens: int, verdict: str, expected: str) -> None:
    payload = saved_inputs.divergence(drafts, batch, tokens)
    for comparison in payload["comparisons"]:
        comparison["verdict"] = verdict
    figure = draw_divergence(load(tmp_path, payload))
    assert heading(figure) == expected
    assert_legible(figure)


def test_speculation_alone_has_a_figure_too(tmp_path: Path) -> None:
    payload = saved_inputs.divergence()
    payload["arms"] = payload["arms"][-1:]
    payload["divergences"] = [item for item in payload["divergences"] if item["arm"] == "drafts"]
    payload["divergences"][0]["margin"] = None
    payload |= {"comparisons": [], "decision_margin_quantiles": [], "decisions": 0}
    found = load(tmp_path, payload)
    figure = draw_divergence(found)
    assert heading(figure).startswith("In bfloat16: which ways of decoding differ")
    assert len(found.margins("drafts")) == 5
    assert_legible(figure)


def test_every_point_is_in_the_table(tmp_path: Path) -> None:
    payload = saved_inputs.divergence()
    table = table_divergence(load(tmp_path, payload))
    assert len(table.rows) == 2 * 4 + len(payload["divergences"]) + 201
    assert ("prompts", "batch", "path parts", 9 / 48, 0.5 * 9 / 48, 9 / 48 + 0.1) in table.rows


def test_it_is_drawn_with_all_others(tmp_path: Path) -> None:
    saved_inputs.write(tmp_path / "bf16.json", saved_inputs.divergence())
    assert [path.name for path in draw_all(tmp_path)] == [f"divergence-bf16.{kind}" for kind in ("png", "svg", "csv")]


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (None, {"arms": []}, "arms: expected at least one way of decoding"),
        (None, {"version": 2}, "version: expected 1"),
        (None, {"decision_margin_quantiles": [0.2, 0.1]}, "ascending numbers"),
        ("arms", {"tokens_differ": 49}, r"arms\[1\].tokens_differ: expected at most 48 prompts"),
        ("arms", {"path_parts_low": None}, r"arms\[1\].path_parts_low: expected a finite number"),
        ("arms", {"arm": "repeat"}, "arms: expected each way once"),
        (
            "divergences",
            {"arm": "other"},
            r"divergences\[1\].arm: expected one of the ways repeat, batch, blank, drafts",
        ),
        ("divergences", {"margin": "wide"}, r"divergences\[1\].margin: expected a finite number"),
        ("comparisons", {"verdict": "better"}, r"comparisons\[1\].verdict: expected one of more, fewer"),
    ],
)
def test_broken_files_name_the_place(tmp_path: Path, place: str | None, change: dict[str, Any], message: str) -> None:
    payload = saved_inputs.divergence()
    (payload if place is None else payload[place][1]).update(change)
    with pytest.raises(FigureDataError, match=message):
        load(tmp_path, payload)
