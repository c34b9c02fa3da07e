"""The documents name what is there."""

import re

from studies.cli.app import COMMANDS
from tests.support.paths import DOCS


def test_the_command_table_holds_every_command() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8").partition("\n## ")[0]
    table = re.findall(r"^\| `([a-z-]+)` \|", text, flags=re.MULTILINE)
    assert set(table) == set(COMMANDS)
