"""``report``: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.cli import printing
from studies.cli.guard import command


@command()
def report_command(
    run: Annotated[Path, typer.Argument(help="A run directory of `draftgraph calibrate`.")],
    out: Annotated[Path | None, typer.Option("--out", help="Instead of RUN/report.html.")] = None,
) -> None:
    """Write a run as one self-contained HTML page: tables, figures, what to conclude and how sure."""
    from studies.report.report import write_report

    printing.say("report  ", printing.bold(write_report(run, out)))
