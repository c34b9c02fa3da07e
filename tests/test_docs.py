"""The documents name what is there, and their examples run."""

import doctest
import re
from pathlib import Path

import pytest

import calibrate.models.checkpoint
import calibrate.recording.recorder
import drafting.graph
import drafting.searching
import verify.decoding
import verify.drafters.file
import verify.graph.file
import verify.policies.specification
import verify.verifier
from studies.cli.app import COMMANDS
from tests.support.paths import DOCS

#: Modules whose docstrings hold examples of what users import first.
EXAMPLES = (
    calibrate.models.checkpoint,
    calibrate.recording.recorder,
    drafting.graph,
    drafting.searching,
    verify.decoding,
    verify.drafters.file,
    verify.graph.file,
    verify.policies.specification,
    verify.verifier,
)


def test_the_command_tables_are_those_of_the_help() -> None:
    """Every command, in its group, in the order of ``draftgraph --help``."""
    text = (DOCS / "cli.md").read_text(encoding="utf-8").partition("\n## Commands\n")[2].partition("\n## ")[0]
    found = re.findall(r"^(?:### (.+)|\| `([a-z-]+)` \|)", text, flags=re.MULTILINE)
    tables: dict[str, list[str]] = {}
    for heading, command in found:
        if heading:
            tables[heading] = group = []
        else:
            group.append(command)
    expected: dict[str, list[str]] = {}
    for name, entry in COMMANDS.items():
        expected.setdefault(entry.group, []).append(name)
    assert list(tables.items()) == list(expected.items())


def test_the_page_on_networkx_says_what_comes_out() -> None:
    found = doctest.testfile(str(DOCS / "graph.md"), module_relative=False)
    assert found.attempted >= 10 and found.failed == 0


@pytest.mark.parametrize("module", EXAMPLES, ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted and found.failed == 0


def test_the_script_of_the_library_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = (DOCS / "library.md").read_text(encoding="utf-8").split("```python\n")[1:]
    script = "\n".join(part.split("```")[0] for part in parts)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(script, "docs/library.md", "exec"), found)
    assert found["graph"].gap == 0.0 and found["graph"].budget == 10
    assert found["fast"].forwards < found["plain"].forwards
    assert found["informed"].tokens and found["informed"].forwards < found["informed"].steps
    assert (tmp_path / "graph.png").stat().st_size > 10_000
    assert "forward passes\n" in capsys.readouterr().out
    assert {name.partition(".")[0] for name in re.findall(r"^from (\S+)", script, flags=re.MULTILINE)} == {
        "calibrate", "drafting", "figures", "verify",
    }  # fmt: skip
    assert not re.search(r"^from \w+\.", script, flags=re.MULTILINE)
