"""The examples of docs/runtimes.md run as they stand."""

from pathlib import Path

import pytest

from tests.support.command_line import run
from tests.support.paths import DOCS
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.graph.file import GraphFile, save_graph
from verify.graph.validity import Validity

PAGE = (DOCS / "runtimes.md").read_text(encoding="utf-8")
EXAMPLES = [part.split("```")[0] for part in PAGE.split("```python\n")[1:]]


def example(words: str) -> str:
    """The one example that holds ``words``."""
    (found,) = [text for text in EXAMPLES if words in text]
    return found


def bundled_graph() -> GraphFile:
    chain = [tuple((i, 1) for i in range(1, size + 1)) for size in range(1, 4)]
    return GraphFile.from_nodes(chain, Validity("bundled", None, "static:1", 32, "dual", 0.0, 8))


def test_from_a_graph_to_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a confidence chain in the place of a calibrated graph."""
    save_graph(bundled_graph(), tmp_path / "graph.json")
    monkeypatch.chdir(tmp_path)
    text = example("custom_generate=draftgraph_generate")
    assert len([line for line in text.splitlines() if line]) <= 10
    names: dict = {}
    exec(compile(text, "runtimes.md", "exec"), names)
    assert names["found"].forwards.item() < names["found"].steps.item()
    assert capsys.readouterr().out.endswith("forward passes\n")


def test_into_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_graph(bundled_graph(), tmp_path / "graph.json")
    monkeypatch.chdir(tmp_path)
    exec(compile(example("save_recipe"), "runtimes.md", "exec"), {})
    assert (tmp_path / "my-checkpoint/custom_generate/generate.py").is_file()


def test_what_a_server_will_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(toy_traces(0, prompts=12, blocks=2, length=10), tmp_path / "traces" / "test")
    monkeypatch.chdir(tmp_path)
    run("search", "traces/test", "--method", "exact", "--budget", 4, "--out", "graph.json")
    names: dict = {}
    exec(compile(example("runtime_count"), "runtimes.md", "exec"), names)
    assert capsys.readouterr().out == f"{names['count'].plain_forwards} -> {names['count'].forwards}\n"
