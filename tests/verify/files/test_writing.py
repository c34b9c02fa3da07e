"""Files are whole or absent, wherever they are to stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibrate.files import write_json
from drafting.export import export_static_buffers
from tests.verify.graph.test_file import DIAMOND
from verify.files.writing import write_atomically
from verify.graph.file import load_graph, save_graph


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_every_writer_makes_the_folders_on_its_way(tmp_path: Path) -> None:
    save_graph(DIAMOND, tmp_path / "a" / "b" / "graph.json")
    assert load_graph(tmp_path / "a" / "b" / "graph.json") == DIAMOND
    export_static_buffers(DIAMOND, tmp_path / "c" / "d" / "graph.safetensors")
    write_json(tmp_path / "e" / "f" / "x.json", [1])
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["a/b/graph.json", "c/d/graph.safetensors", "e/f/x.json"]
