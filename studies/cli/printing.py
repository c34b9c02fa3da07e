"""The two consoles, and tables for terminals."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

console = Console()
errors = Console(stderr=True)


def plain_table(title: str, headings: dict[str, str], caption: str | None = None) -> Table:
    """A table for terminals of 80 columns; ``headings`` maps each heading to "left" or "right"."""
    table = Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for heading, side in headings.items():
        table.add_column(heading, justify="left" if side == "left" else "right", overflow="fold")
    return table
