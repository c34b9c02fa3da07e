from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from figures.plots.rank_heatmaps import draw_rank_heatmaps, rank_counts, table_rank_heatmaps
from figures.records.run import FigureDataError, Run, load_run
from tests.support.overlaps import assert_legible

KINDS = ("position_by_vocabulary", "position_by_depth")


@pytest.mark.parametrize("policy", ["static:1", "threshold:0.9"])
def test_images_carry_the_counts_on_one_log_scale(run: Run, policy: str) -> None:
    figure = draw_rank_heatmaps(run, policy)
    item = rank_counts(run, policy)
    norms = []
    for axes, kind in zip(figure.axes[:2], KINDS, strict=True):
        whole = np.array(getattr(item, kind))
        image = axes.get_images()[0]
        shown = image.get_array()
        rows, columns = shown.shape
        np.testing.assert_array_equal(np.ma.filled(shown, 0), whole[:rows, :columns])
        assert np.ma.filled(shown, 0).sum() == whole.sum()  # what is cut off is zeros
        np.testing.assert_array_equal(np.ma.getmaskarray(shown), whole[:rows, :columns] == 0)
        assert tuple(image.get_extent()) == (0.5, columns + 0.5, rows + 0.5, 0.5)
        norms.append(image.norm)
    assert isinstance(norms[0], LogNorm)
    assert norms[0] is norms[1]
    assert (norms[0].vmin, norms[0].vmax) == (1, max(np.max(getattr(item, kind)) for kind in KINDS))


def test_axes_are_named_and_rank_one_is_on_top(run: Run) -> None:
    figure = draw_rank_heatmaps(run, "static:1")
    left, right, bar = figure.axes
    assert left.get_ylabel() == "position rank i (1 = most confident)"
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["next step", "next and further steps"]
    assert left.get_xlabel() == "vocabulary rank j"
    assert right.get_xlabel() == "denoising steps ahead"
    assert bar.get_ylabel() == "committed pairs (count, log scale)"
    low, high = left.get_ylim()
    assert low > high == 0.5
    assert left.get_ylim() == right.get_ylim()
    assert left.get_yticks()[0] == 1


@pytest.mark.parametrize("policy", ["static:1", "threshold:0.9"])
def test_numbers_in_cells_are_shares(run: Run, policy: str) -> None:
    figure = draw_rank_heatmaps(run, policy)
    item = rank_counts(run, policy)
    first, ahead = (np.array(getattr(item, kind), dtype=float) for kind in KINDS)
    whole = (np.full_like(first, first.sum()), np.broadcast_to(np.maximum(ahead.sum(axis=0), 1), ahead.shape))
    for axes, table, total, least in zip(figure.axes, (first, ahead), whole, (0.01, 0.1), strict=False):
        written = {tuple(int(v) for v in text.get_position()): int(text.get_text()) for text in axes.texts}
        assert written == {
            (column + 1, row + 1): round(100 * count / total[row, column])
            for (row, column), count in np.ndenumerate(table)
            if count >= max(10, least * total[row, column])
        }
    assert_legible(figure)


def test_the_headline_is_right(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rank_counts"][0]["position_by_vocabulary"] = [[50, 10], [20, 0], [10, 0], [5, 5]]

    text = draw_rank_heatmaps(load_run(changed(change)), "static:1").texts[0].get_text()
    assert text.replace("\n", " ").replace("\u00a0", " ") == (
        "static:1: 90 % of the next commits are among the 3 most confident positions, 85 % take the best token"
    )


def test_the_table_holds_every_cell(run: Run) -> None:
    lines = list(csv.DictReader(io.StringIO(table_rank_heatmaps(run, "static:1").to_csv())))
    item = rank_counts(run, "static:1")
    for kind in KINDS:
        whole = np.zeros_like(np.array(getattr(item, kind)))
        own = [line for line in lines if line["table"] == kind]
        assert len(own) == whole.size
        for line in own:
            whole[int(line["position_rank"]) - 1, int(line["other_rank"]) - 1] = int(line["pairs"])
        assert whole.tolist() == [list(row) for row in getattr(item, kind)]


def test_a_full_block_and_the_smallest_table_are_legible(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        full = np.outer(2 ** np.arange(32, 0, -1), np.ones(31, dtype=int))
        payload["rank_counts"][0] |= {
            "position_by_vocabulary": full[:, :8].tolist(),
            "position_by_depth": full.tolist(),
        }
        payload["rank_counts"][1] |= {"position_by_vocabulary": [[3]], "position_by_depth": [[3, 1]]}

    run = load_run(changed(change))
    assert_legible(draw_rank_heatmaps(run, "static:1"))
    assert_legible(draw_rank_heatmaps(run, "threshold:0.9"))


def test_search_counts_come_first_and_none_is_an_error(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        first = payload["rank_counts"][0]
        payload["rank_counts"] = [
            first | {"split": "test", "position_by_vocabulary": [[7]]},
            first,
            first | {"policy": "static:4", "position_by_vocabulary": [[0, 0]], "position_by_depth": [[0, 0]]},
        ]

    run = load_run(changed(change))
    assert rank_counts(run, "static:1").split == "search"
    with pytest.raises(FigureDataError, match=r"no committed pairs in rank_counts of policy static:2 .*static:1\)"):
        draw_rank_heatmaps(run, "static:2")
    with pytest.raises(FigureDataError, match="no committed pairs in rank_counts of policy static:4"):
        draw_rank_heatmaps(run, "static:4")
