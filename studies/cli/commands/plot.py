"""``plot``: saved results are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.cli import printing
from studies.cli.guard import command
from studies.cli.outputs import draw


@command()
def plot_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run directories, graph files, files of ablate, quality, study, calibration-size, latency, budget, "
            "verify."
        ),
    ],
) -> None:
    """Draw every figure of saved results: PNG, SVG and the data as CSV."""
    for run in runs:
        for path in draw(run):
            printing.say(str(path))
