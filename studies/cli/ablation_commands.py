"""``ablate``: the studies that vary one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from calibrate.progress import RichReporter
from studies.cli import app as cli
from studies.runs.ablations import STUDIES, run_study
from studies.runs.configuration import CalibrationConfig


@cli.command("ablate", resumes=True)
def ablate_command(
    study: Annotated[str, typer.Argument(help=f"One of {', '.join(STUDIES)}.")],
    out: Annotated[Path, typer.Option("--out", help="The run directory.")],
    model: cli.ModelOption = "bundled",
    prompts: cli.PromptsOption = "bundled",
    policy: cli.PolicyOption = "static:1",
    temperature: cli.TemperatureOption = 0.0,
    block_length: cli.BlockLengthOption = 32,
    generation_length: cli.GenerationLengthOption = 96,
    cache: cli.CacheOption = "dual",
    backend: cli.BackendOption = "packed",
    methods: Annotated[str | None, typer.Option("--methods", help="Instead of the study's own.")] = None,
    budgets: Annotated[str | None, typer.Option("--budgets", help="Instead of the study's own.")] = None,
    search_prompts: Annotated[int, typer.Option("--search-prompts", min=1)] = 64,
    test_prompts: Annotated[int, typer.Option("--test-prompts", min=1)] = 48,
    top_j: cli.TopJOption = 8,
    seed: cli.SeedOption = 0,
    dtype: cli.DtypeOption = "float32",
    device: cli.DeviceOption = "cpu",
    mask_token_id: cli.MaskOption = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Vary one thing (policy, block length, temperature, domain, ...) and hold the rest; held-out, with intervals."""
    base = CalibrationConfig(
        model=model,
        prompts=prompts,
        policies=(policy,),
        temperature=temperature,
        block_length=block_length,
        generation_length=generation_length,
        cache=cache,
        backend=backend,
        top_j=top_j,
        seed=seed,
        dtype=dtype,
        device=device,
        search_prompts=search_prompts,
        test_prompts=test_prompts,
        mask_token_id=mask_token_id,
    )
    rows = run_study(
        study,
        base,
        out,
        methods=cli.parse_list(methods, str, "--methods", "chain,greedy") if methods else None,
        budgets=cli.parse_list(budgets, int, "--budgets") if budgets else None,
        overwrite=overwrite,
        reporter=RichReporter(cli.console),
    )
    cli.console.print(study_table(study, rows))
    cli.console.print(f"[bold]{out / 'study.csv'}[/]")


def study_table(study: str, rows: list[dict[str, Any]]) -> Table:
    """Held-out nfe reduction: a line per setting and method, a column per budget."""
    test = [row for row in rows if row["split"] == "test"]
    budgets = sorted({row["budget"] for row in test})
    headings = {study: "left", "method": "left"} | {f"D = {budget}": "right" for budget in budgets}
    wide = len(budgets) > 3  # a terminal of 80 columns has no room for six intervals
    caption = "nfe reduction on held-out prompts" + ("; intervals in study.csv" if wide else ", 95 % intervals")
    table = cli.plain_table(STUDIES[study].question, headings, caption)
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in test:
        text = f"{row['nfe_reduction']:.2f}"
        if row["nfe_reduction_low"] is not None and not wide:
            text += f" ({row['nfe_reduction_low']:.2f}-{row['nfe_reduction_high']:.2f})"
        cells.setdefault((row["setting"], row["method"]), {})[row["budget"]] = text
    last = None
    for (setting, method), values in cells.items():
        if last not in (None, setting):
            table.add_section()
        table.add_row("" if setting == last else setting, method, *(values.get(budget, "") for budget in budgets))
        last = setting
    return table
