"""What commands print is what it is: nothing in a path or a name is read as a style, a picture or a command."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from calibrate.progress import RichReporter
from studies.cli import printing
from tests.support.command_line import run
from tests.support.paths import ROOT
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces


@pytest.mark.parametrize("name", ["a[bold]b.json", "a[", "[red]x[", ":smile:.json"])
def test_names_that_look_like_markup(name: str, tmp_path: Path) -> None:
    traces = write_folder(toy_traces(0, prompts=4, blocks=2, length=10), tmp_path / f"t-{name}")
    out = tmp_path / name
    assert str(out) in run("search", traces, "--budget", 2, "--out", out)
    table = run("evaluate", out, "--traces", traces)
    assert name in table
    assert name in run("evaluate", tmp_path / f"no{name}", "--traces", traces, code=1)


def test_a_closing_tag_in_a_path_is_no_error_after_the_work(tmp_path: Path) -> None:
    traces = write_folder(toy_traces(0, prompts=4, blocks=2, length=10), tmp_path / "traces")
    out = tmp_path / "a[" / "red]b"
    assert str(out) in run("search", traces, "--budget", 2, "--out", out)


def test_control_characters_are_shown_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing.console, "_file", io.StringIO())
    hostile = "a\x1b[2Jb"
    printing.say(hostile, " ", printing.bold(hostile))
    table = printing.plain_table(hostile, {hostile: "left"}, hostile)
    table.add_row(hostile)
    printing.show(table)
    said = printing.console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in said and said.count("\\x1b[2Jb") == 6


def test_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing.console, "_file", io.StringIO())
    reporter = RichReporter(printing.console)
    with reporter.task("verify a[/red]b", 1) as advance_to:
        advance_to(1)
    reporter.say("in a[/red]b")
    said = printing.console.file.getvalue()  # type: ignore[attr-defined]
    assert "verify a[/red]b" in said and "in a[/red]b" in said


def test_no_command_writes_markup_or_prints_by_itself() -> None:
    for path in (ROOT / "studies" / "cli").rglob("*.py"):
        if path.name == "printing.py":
            continue
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\[/\]|\[(bold|yellow|red)\b", source), path
        assert not re.search(r"console\.print|errors\.print|[^.\w]print\(", source.replace('print("stopped.', "")), path
