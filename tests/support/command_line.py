"""``draftgraph`` in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from studies.cli.app import app
from studies.cli.printing import console

console.width = 160  # so that no message is cut


def run(*arguments: object, code: int = 0) -> str:
    """Run the command, which must exit with ``code``; returns its output as one line without wrapping."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())
