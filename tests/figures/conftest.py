from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from figures.draw import draw_all
from figures.records.run import Run, load_run
from tests.support.synthetic_run import write_run


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("figures") / "run", anchors=300)


@pytest.fixture(scope="session")
def run(run_directory: Path) -> Run:
    return load_run(run_directory)


@pytest.fixture(scope="session")
def drawn(run_directory: Path) -> list[Path]:
    return draw_all(run_directory)


Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def changed(run_directory: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """A copy of the run directory with ``results.json`` changed in place by the function given."""

    def make(change: Change) -> Path:
        copy = tmp_path / "changed"
        copy.mkdir()
        shutil.copytree(run_directory / "graphs", copy / "graphs")
        payload = json.loads((run_directory / "results.json").read_text())
        change(payload)
        (copy / "results.json").write_text(json.dumps(payload))
        return copy

    return make
