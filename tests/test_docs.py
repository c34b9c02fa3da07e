"""The documents name what is there."""

import re

from studies.cli.app import app, load_commands
from tests.support.paths import DOCS


def test_the_command_table_holds_every_command() -> None:
    load_commands()
    text = (DOCS / "cli.md").read_text(encoding="utf-8").partition("\n## ")[0]
    table = re.findall(r"^\| `([a-z-]+)` \|", text, flags=re.MULTILINE)
    commands = {command.name for command in app.registered_commands}
    assert commands and set(table) == commands
