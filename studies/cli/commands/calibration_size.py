"""``calibration-size``: whether more prompts would help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.cli import options, printing
from studies.cli import statistics as stats
from studies.cli.guard import command
from studies.cli.lists import parse_list


@command()
def calibration_size_command(
    traces: stats.TracesArgument,
    test: Annotated[
        Path | None, typer.Option("--test", help="Traces of other prompts; by default a third is kept apart.")
    ] = None,
    method: stats.MethodOption = "greedy",
    budgets: stats.BudgetsOption = "10",
    sizes: Annotated[str | None, typer.Option("--sizes", help="Search prompts; default 5, 10, 20, ..., all.")] = None,
    draws: Annotated[int, typer.Option("--draws", min=2, help="Random draws per size.")] = 10,
    seed: stats.SeedOption = 0,
    out: stats.ResultOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Would more prompts help? Held-out value of graphs found on 5, 10, 20, ... prompts."""
    from figures.records.calibration_size import CalibrationSize
    from figures.records.record import save_record
    from studies.runs.splits import cut_splits, read_splits
    from studies.statistics.calibration_size import calibration_size_curve

    stats.check_out(out, overwrite)
    split = read_splits([traces, test]) if test is not None else cut_splits(traces, (2, 1), seed)
    stats.say_repeated(split.repeated)
    drafts = parse_list(budgets, int, "--budgets")
    search, others = split.tables
    curve = calibration_size_curve(
        method, search, others, drafts, block_length=split.block_length, step_size=split.step_size,
        sizes=parse_list(sizes, int, "--sizes", "5,10,20") if sizes else None, draws=draws, seed=seed,
    )  # fmt: skip
    rows = curve.rows(seed)
    headings = dict.fromkeys(("D", "search prompts", "draws", "in-sample", "held-out", "of the draws"), "right")
    caption = f"nfe reduction on {rows[0].prompts} held-out prompts, mean over draws, 95 % intervals over prompts"
    table = printing.plain_table(f"{method}, {split.policy}", headings, caption)
    for row in rows:
        table.add_row(
            str(row.budget),
            str(row.search_prompts),
            str(row.draws),
            f"{row.in_sample_nfe_reduction:.3f}",
            stats.columns(vars(row), "nfe_reduction"),
            f"{row.draws_low:.3f}-{row.draws_high:.3f}",
        )
    printing.show(table)
    stats.say_few(rows[0].prompts)
    answers = [curve.answer(budget, seed) for budget in sorted(set(drafts))]
    for answer in answers:
        printing.say(answer.sentence())
    config = {"seed": seed, "draws": draws, "traces": list(split.trace_hashes)}
    if out is not None:
        records = tuple(answer.record() for answer in answers)
        save_record(CalibrationSize(tuple(rows), records, config), out)
        printing.say(printing.bold(out))
