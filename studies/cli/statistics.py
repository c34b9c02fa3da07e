"""What the commands of statistics share: options, words, and the file of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli import options, printing
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from studies.statistics.intervals import Interval


SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of folds, draws and resamples.")]
BudgetsOption = Annotated[str, typer.Option("--budgets", help="Draft nodes, 3,5,10 or 0-16.")]
MethodOption = Annotated[str, typer.Option("--method", help=options.METHOD_HELP)]
ResultOption = Annotated[Path | None, typer.Option("--out", help="A JSON file for the rows.")]
TracesArgument = Annotated[Path, typer.Argument(help="A trace folder written by `draftgraph record`.")]


def signed(value: Interval) -> str:
    """An estimate with its sign, and its interval."""
    return f"{value.estimate:+.3f} ({value.low:+.3f} to {value.high:+.3f})"


def say_few(prompts: int) -> None:
    """Warn beside intervals from too few prompts."""
    from studies.statistics.intervals import few_prompts_note

    if note := few_prompts_note(prompts):
        printing.say(note)


def say_repeated(prompts: int) -> None:
    """Say how many prompts a cut left out because they stand in the recording already."""
    if prompts:
        printing.say(f"{prompts} prompts were left out: the recording holds the same token ids twice.")


def columns(row: dict[str, Any], name: str) -> str:
    """The estimate and the interval called ``name`` in a row."""
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f}-{row[f'{name}_high']:.3f})"


def check_out(out: Path | None, overwrite: bool) -> None:
    """Refuse an ``--out`` that is there, before any work is done; raises as :func:`check_output`."""
    if out is not None:
        check_output(out, overwrite)


def write(out: Path | None, config: dict[str, Any], rows: Sequence[dict[str, Any]], **more: Any) -> None:
    """Write rows under a header that names the command and its settings, where ``--out`` asks for a file."""
    from calibrate.files import write_json
    from calibrate.version import tool_version

    if out is None:
        return
    header = {
        "format": f"draftgraph-{config['command']}",
        "version": 1,
        "config": {**config, "tool_version": tool_version()},
    }
    write_json(out, {**header, "rows": list(rows), **more})
    printing.say(printing.bold(out))
