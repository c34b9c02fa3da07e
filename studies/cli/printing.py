"""What commands print. A string is shown as it is: nothing in a path or a model's name is read as a style.

Rich reads ``[bold]`` in a string as markup and ``:smile:`` as a picture; both are switched off, so that no command has
to remember to escape. What is to stand out is a :class:`~rich.text.Text`, as :func:`bold` makes one.
"""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console(markup=False, emoji=False, highlight=False)
errors = Console(markup=False, emoji=False, highlight=False, stderr=True)


def bold(value: object) -> Text:
    """``value`` in bold."""
    return Text(_harmless(str(value)), style="bold")


def yellow(value: object) -> Text:
    """``value`` in yellow: what needs attention and stops nothing."""
    return Text(_harmless(str(value)), style="yellow")


def red(value: object) -> Text:
    """``value`` in bold red: what went wrong."""
    return Text(_harmless(str(value)), style="bold red")


def say(*parts: str | Text) -> None:
    """Print ``parts``, joined, as one line of the standard output."""
    _print(console, parts)


def complain(*parts: str | Text) -> None:
    """Print ``parts``, joined, as one line of the standard error output."""
    _print(errors, parts)


def show(table: Table) -> None:
    """Print a table, its title as a line above it: rich would break a title at the width of the table."""
    title, table.title = table.title, None
    if title:
        console.print(title, soft_wrap=True)
    console.print(table)


class PlainTable(Table):
    """A table whose cells are shown as they are; a cell that is to stand out is a ``Text``."""

    def add_row(self, *cells: Any, **settings: Any) -> None:
        """Add a row; see :meth:`rich.table.Table.add_row`."""
        super().add_row(*(_harmless(cell) if isinstance(cell, str) else cell for cell in cells), **settings)


def plain_table(title: str, headings: dict[str, str], caption: str | None = None) -> PlainTable:
    """A table for terminals of 80 columns; ``headings`` maps each heading to "left" or "right"."""
    table = PlainTable(
        title=_harmless(title),
        caption=None if caption is None else _harmless(caption),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for heading, side in headings.items():
        # Names of methods are short and are looked for: other columns give way first.
        table.add_column(
            _harmless(heading),
            justify="left" if side == "left" else "right",
            overflow="fold",
            no_wrap=heading == "method",
        )
    return table


def _print(where: Console, parts: tuple[str | Text, ...]) -> None:
    whole = Text.assemble(*(_harmless(part) if isinstance(part, str) else part for part in parts))
    where.print(whole, soft_wrap=True)  # a terminal wraps a long line itself, and a path in it can be copied


def _harmless(text: str) -> str:
    """``text`` without control characters: in a path they could move the cursor or clear the screen."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
