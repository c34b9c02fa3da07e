from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread

from figures.canvas.output import save_figure
from figures.draw import FigureWarning, draw_all
from figures.plots.curves import table_nfe_vs_budget
from figures.plots.nfe_vs_budget import draw_nfe_vs_budget
from figures.records.run import FigureDataError, load_run
from tests.support.paths import ROOT

STEMS = [
    "nfe_vs_budget",
    "accepted_drafts_vs_budget",
    "graph-static-1",
    "graph-threshold-0.9",
    "accepted_histogram",
    "ranks-static-1",
    "ranks-threshold-0.9",
]


def test_every_figure_is_there_in_three_forms(run_directory: Path, drawn: list[Path]) -> None:
    assert [str(path.relative_to(run_directory / "figures")) for path in drawn] == [
        f"{stem}.{kind}" for stem in STEMS for kind in ("png", "svg", "csv")
    ]
    assert sorted(path.name for path in (run_directory / "figures").iterdir()) == sorted(p.name for p in drawn)


def test_pictures_are_not_trivial(drawn: list[Path]) -> None:
    for path in drawn:
        if path.suffix == ".png":
            pixels = imread(path)
            height, width = pixels.shape[:2]
            assert width >= 1600
            assert height >= 500
            inked = (pixels[..., :3].min(axis=2) < 0.9).mean()
            assert 0.01 < inked < 0.8, path.name
            border = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
            assert all((edge[..., :3] > 0.99).all() for edge in border), f"{path.name} is cut off"
        elif path.suffix == ".svg":
            root = ElementTree.parse(path).getroot()
            assert len(root.findall(".//{http://www.w3.org/2000/svg}path")) > 20
            assert "date" not in path.read_text()[:2000]
        else:
            assert len(path.read_text().splitlines()) > 5


def test_a_second_call_writes_the_same_bytes(drawn: list[Path], changed: Callable[..., Path], tmp_path: Path) -> None:
    # The path of the run is in no file, so a copy elsewhere gives the same figures.
    run = load_run(changed(lambda payload: None))
    again = save_figure(draw_nfe_vs_budget(run), tmp_path / "nfe_vs_budget", table_nfe_vs_budget(run))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn[:3]]


def test_what_a_run_lacks_is_left_out_with_a_warning(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = [row | {"graph": None} for row in payload["rows"] if row["policy"] == "static:1"]
        payload["rows"] = payload["rows"][:5]
        payload["histograms"] = []
        payload["rank_counts"] = []

    with pytest.warns(FigureWarning) as caught:
        paths = draw_all(changed(change))
    said = [str(warning.message) for warning in caught]
    assert len(said) == 3
    assert "has no saved graphs of policy static:1: no graph drawing drawn" in said[0]
    assert "has no histograms of a calibrated graph: no accepted-length histogram drawn" in said[1]
    assert "has no rank_counts of policy static:1: no rank heat maps drawn" in said[2]
    assert {path.stem for path in paths} == {"nfe_vs_budget", "accepted_drafts_vs_budget"}


def test_only_plain_decoding(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["rows"] = [row for row in payload["rows"] if row["method"] == "plain"]
        payload["rank_counts"] = []

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FigureWarning)
        assert draw_all(changed(change)) == []


def test_broken_runs_are_errors_not_warnings(changed: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FigureDataError, match="expected a run directory"):
        draw_all(tmp_path / "none")

    def change(payload: dict[str, Any]) -> None:
        for row in payload["rows"]:
            row["graph"] = row["graph"] and "graphs/lost.json"

    directory = changed(change)
    with pytest.raises(FigureDataError, match=r"graph of greedy with budget 32.*lost\.json"):
        draw_all(directory)
    assert not (directory / "figures").exists()  # found before anything is drawn


def test_importing_and_drawing_load_no_pyplot_torch_or_studies(run_directory: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys, figures\n"
        "light = sorted(sys.modules)\n"
        "from figures import draw_nfe_vs_budget, load_run\n"
        f"draw_nfe_vs_budget(load_run({str(run_directory)!r}))\n"
        "import figures.draw\n"
        "print(json.dumps([light, sorted(sys.modules)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    light, loaded = (set(names) for names in json.loads(done.stdout))
    assert not {"matplotlib", "networkx"} & light
    assert not {"matplotlib.pyplot", "torch", "studies", "seaborn", "pandas"} & loaded
