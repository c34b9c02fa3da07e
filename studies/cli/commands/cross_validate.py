"""``cross-validate``: methods are judged on prompts that their graphs have not seen."""

from __future__ import annotations

from typing import Annotated

import typer

from studies.cli import options, printing
from studies.cli import statistics as stats
from studies.cli.guard import command
from studies.cli.lists import parse_list


@command()
def cross_validate_command(
    traces: stats.TracesArgument,
    methods: Annotated[str, typer.Option("--methods", help=options.METHODS_HELP)] = "chain,greedy",
    budgets: stats.BudgetsOption = "3,5,8,10,16",
    folds: Annotated[int, typer.Option("--folds", min=2, help="Parts the prompts are cut into.")] = 5,
    seed: stats.SeedOption = 0,
    out: stats.ResultOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Value search methods on every prompt by graphs that have not seen it."""
    from studies.runs.splits import cut_splits
    from studies.statistics.crossval import CrossValidation, cross_validate

    stats.check_out(out, overwrite)
    split = cut_splits(traces, (1,))
    stats.say_repeated(split.repeated)
    drafts = parse_list(budgets, int, "--budgets")
    results: list[CrossValidation] = [
        cross_validate(
            name, split.tables[0], drafts, block_length=split.block_length, step_size=split.step_size, folds=folds,
            seed=seed,
        )
        for name in parse_list(methods, str, "--methods", "chain,greedy")
    ]  # fmt: skip
    rows = [row for result in results for row in result.rows(seed)]
    headings = {
        "method": "left",
        "D": "right",
        "in-sample": "right",
        "out of fold": "right",
        "accepted drafts": "right",
    }
    caption = f"nfe reduction with 95 % intervals; forwards counted by replay, {folds} folds by prompt"
    table = printing.plain_table(f"{split.policy}, {rows[0]['prompts']} prompts", headings, caption)
    for row in rows:
        table.add_row(
            row["method"],
            str(row["budget"]),
            f"{row['in_sample_nfe_reduction']:.3f}",
            stats.columns(row, "nfe_reduction"),
            stats.columns(row, "accepted_drafts"),
        )
    printing.show(table)
    stats.say_few(rows[0]["prompts"])
    best, *others = sorted(results, key=lambda result: result.budgets[-1].out_of_fold.forwards)
    for other in others:
        gap = best.difference(other, max(drafts), seed)
        verdict = "cannot be told apart: the interval contains zero" if gap.contains(0.0) else "differ"
        if not gap.conclusive:
            verdict = f"are not compared: too few prompts ({gap.prompts}) to conclude"
        printing.say(
            f"Out of fold at D = {max(drafts)}, {best.method} and {other.method} {verdict} "
            f"(nfe reduction {stats.signed(gap)})."
        )
    config = {"command": "cross-validate", "seed": seed, "folds": folds, "traces": list(split.trace_hashes)}
    stats.write(out, config, rows)
