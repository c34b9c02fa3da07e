"""The example in README.md runs as it stands."""

from pathlib import Path

import pytest

from tests.support.paths import ROOT
from verify.graph.file import GraphFile, Validity, save_graph

README = ROOT / "README.md"


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a confidence chain in the place of the demo's graph, so that no demo need have run."""
    example = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    name = example.split('load_graph("')[1].split('"')[0]
    chain = [tuple((i, 1) for i in range(1, size + 1)) for size in range(1, 4)]
    graph = GraphFile.from_nodes(chain, Validity("bundled", None, "static:1", 32, "dual", 0.0, 8))
    (tmp_path / name).parent.mkdir(parents=True)
    save_graph(graph, tmp_path / name)
    monkeypatch.chdir(tmp_path)

    found: dict = {}
    exec(compile(example, str(README), "exec"), found)
    assert found["plain"].forwards == found["plain"].steps
    assert found["fast"].forwards < found["plain"].forwards
    assert capsys.readouterr().out.endswith(f"{found['plain'].forwards} -> {found['fast'].forwards}\n")
