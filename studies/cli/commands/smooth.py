"""``smooth``: whether smoothing sparse counts helps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli import options, printing
from studies.cli import statistics as stats
from studies.cli.guard import command
from studies.cli.lists import parse_list

if TYPE_CHECKING:
    from studies.runs.splits import Splits


@command()
def smooth_command(
    traces: stats.TracesArgument,
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Traces that choose; by default a quarter of the prompts.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="Traces that judge; by default another quarter of the prompts.")
    ] = None,
    method: stats.MethodOption = "greedy",
    budgets: stats.BudgetsOption = "5,10,16,32",
    strengths: Annotated[
        str, typer.Option("--strengths", help="In anchors; raw counts are always tried.")
    ] = "1,4,16,64,256,1024",
    seed: stats.SeedOption = 0,
    out: stats.ResultOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Does smoothing sparse counts help? Chosen on validation prompts, judged on test prompts."""
    from studies.statistics.smoothing_study import smoothing_study

    stats.check_out(out, overwrite)
    split = _three_splits(traces, validation, test, seed)
    search, chooses, judges = split.tables
    study = smoothing_study(
        method, search, chooses, judges, parse_list(budgets, int, "--budgets"), block_length=split.block_length,
        step_size=split.step_size, strengths=parse_list(strengths, float, "--strengths", "1,10,100"), seed=seed,
    )  # fmt: skip
    drafts = list(study.test)
    headings = {"counts": "left", "strength": "right"} | {f"D = {budget}": "right" for budget in drafts}
    sizes = "/".join(str(len(table.prompt_indices())) for table in split.tables)
    table = printing.plain_table(
        f"{method}, {split.policy}, {sizes} search/validation/test prompts",
        headings | {"sum": "right"},
        "forwards on the validation prompts; the fewest, in bold, are chosen",
    )
    for trial in study.trials:
        style = "bold" if trial is study.chosen else None
        cells = [str(trial.validation_forwards[budget]) for budget in drafts]
        table.add_row(trial.model, f"{trial.strength:g}", *cells, str(trial.total), style=style)
    printing.show(table)
    printing.say(study.sentence())
    config = {"command": "smooth", "seed": seed, "traces": list(split.trace_hashes)}
    stats.write(out, config, study.rows(), sentence=study.sentence())


def _three_splits(traces: Path, validation: Path | None, test: Path | None, seed: int) -> Splits:
    from studies.runs.splits import cut_splits, read_splits

    if validation is None and test is None:
        return cut_splits(traces, (2, 1, 1), seed)
    if validation is None or test is None:
        raise ValueError("give both --validation and --test, or neither to cut the prompts of one recording")
    return read_splits([traces, validation, test])
