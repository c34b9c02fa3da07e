"""``search`` with the published rule: the reading that it chose, or that was asked for, is printed and kept."""

from pathlib import Path

import pytest

from tests.support.command_line import run
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.graph.file import load_graph


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    traces = toy_traces(1, prompts=12, blocks=2, length=10, noise=0.25)
    return write_folder(traces, tmp_path_factory.mktemp("searched") / "traces")


@pytest.mark.parametrize(
    ("method", "reading"),
    [
        ("published", "degree0, minimum count "),
        ("published:degree1/all", "degree1/all, minimum count 1"),
        ("published:degree0:5", "degree0, minimum count 5"),
    ],
)
def test_the_reading_is_printed_and_kept(method: str, reading: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "graph.json"
    said = " ".join(run("search", folder, "--method", method, "--budget", 8, "--out", out).split())
    assert f"{method} ({reading}" in said and "8 drafts" in said
    provenance = load_graph(out).provenance
    assert provenance["search"] == method and provenance["chosen"].startswith(reading)


def test_a_wrong_minimum_count_is_refused(folder: Path, tmp_path: Path) -> None:
    said = " ".join(run("search", folder, "--method", "published:degree0:0", "--out", tmp_path / "g", code=1).split())
    assert "the minimum count of 'published:degree0:0' must be at least 1, got 0" in said
    said = " ".join(run("search", folder, "--method", "swap", "--out", tmp_path / "g", code=1).split())
    assert "unknown method 'swap', expected one of chain, tree_greedy, sequoia, published," in said
