"""Files and pictures that commands write."""

from __future__ import annotations

import warnings
from pathlib import Path

from studies.cli import printing


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse to write over a file that is there, and make its folder, before any work is done.

    Raises:
        ValueError: the file exists and ``overwrite`` is off.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; give another --out, or --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)


def draw(run: Path, folder: Path | None = None) -> list[Path]:
    """Draw every figure of ``run`` (into ``folder``); what cannot be drawn is said in one line each."""
    from figures import draw_all

    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        drawn = draw_all(run, folder)
    for warning in left_out:
        printing.complain(printing.yellow("note: "), str(warning.message))
    return drawn
