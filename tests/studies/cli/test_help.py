"""``--help``: groups, words instead of types, and lines that are those of the commands."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from calibrate.models.shapes import SHAPES
from drafting.searches.methods import METHODS
from studies.cli import options
from studies.cli.app import COMMANDS
from tests.support.command_line import run
from tests.support.paths import ROOT


def test_every_command_has_its_module_and_its_line() -> None:
    files = {path.stem for path in (ROOT / "studies" / "cli" / "commands").glob("*.py")} - {"__init__"}
    assert files == {name.replace("-", "_") for name in COMMANDS}
    for name, entry in COMMANDS.items():
        own = name.replace("-", "_")
        function = getattr(import_module(f"studies.cli.commands.{own}"), f"{own}_command")
        assert inspect.getdoc(function).partition("\n")[0] == entry.line, name


def test_the_list_stands_in_groups() -> None:
    said = run("--help")
    places = [said.index(words) for words in ("Record and calibrate", "Search and judge", " Run ", " Look ")]
    assert places == sorted(places)
    assert "--install-completion" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_words_and_no_types(name: str) -> None:
    said = run(name, "--help")
    assert not re.search(r"\b(TEXT|INTEGER|FLOAT|BOOLEAN)\b|<(str|int|float|bool|text|number)>", said)


def test_brackets_in_help_are_shown() -> None:
    assert "[default: main]" in run("record", "--help")


def test_names_that_stand_twice_agree() -> None:
    assert set(options.METHOD_NAMES) == set(METHODS)
    assert set(options.SHAPE_NAMES) == set(SHAPES)


def test_a_name_that_is_nearly_right() -> None:
    assert "Did you mean 'evaluate'" in run("evalute", code=2)


def test_completion_knows_commands_and_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from studies.cli.app import app

    for words, found in (("draftgraph cal", "calibration-size"), ("draftgraph search --bud", "--budget")):
        environment = {
            "_DRAFTGRAPH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)
        }  # fmt: skip
        result = CliRunner().invoke(app, [], prog_name="draftgraph", env=environment)
        assert found in result.output
