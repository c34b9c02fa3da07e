"""``ablate``: studies that vary one thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from studies.cli import options, printing
from studies.cli.guard import command
from studies.cli.lists import parse_list

if TYPE_CHECKING:
    from figures.records.ablation import AblationRow


@command(resumes=True)
def ablate_command(
    study: Annotated[
        str, typer.Argument(help="One of method, accumulation, domain, temperature, block-length, policy.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The run directory.")],
    model: options.ModelOption = "bundled",
    prompts: options.PromptsOption = "bundled",
    policy: options.PolicyOption = "static:1",
    temperature: options.TemperatureOption = None,
    block_length: options.BlockLengthOption = None,
    generation_length: options.GenerationLengthOption = 96,
    cache: options.CacheOption = None,
    backend: options.BackendOption = "packed",
    methods: Annotated[str | None, typer.Option("--methods", help="Instead of the study's own.")] = None,
    budgets: Annotated[str | None, typer.Option("--budgets", help="Instead of the study's own.")] = None,
    search_prompts: Annotated[int, typer.Option("--search-prompts", min=1)] = 64,
    test_prompts: Annotated[int, typer.Option("--test-prompts", min=1)] = 48,
    top_j: options.TopJOption = 8,
    seed: options.SeedOption = 0,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    mask_token_id: options.MaskOption = None,
    overwrite: options.OverwriteRunOption = False,
    overwrite_traces: options.OverwriteTracesOption = False,
) -> None:
    """Vary one thing (policy, block length, temperature, domain, ...) and hold the rest; held-out, with intervals."""
    from calibrate.progress import RichReporter
    from studies.runs.ablations import run_study
    from studies.runs.configuration import CalibrationConfig

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
        methods=parse_list(methods, str, "--methods", "chain,greedy") if methods else None,
        budgets=parse_list(budgets, int, "--budgets") if budgets else None,
        overwrite=overwrite,
        overwrite_traces=overwrite_traces,
        reporter=RichReporter(printing.console),
    )
    printing.show(study_table(study, rows))
    printing.say(printing.bold(out / "study.csv"))


def study_table(study: str, rows: Sequence[AblationRow]) -> Table:
    """Held-out nfe reduction: a line per setting and method, a column per budget."""
    from studies.runs.ablations import STUDIES

    test = [row for row in rows if row.split == "test"]
    budgets = sorted({row.budget for row in test})
    headings = {study: "left", "method": "left"} | {f"D = {budget}": "right" for budget in budgets}
    wide = len(budgets) > 3  # a terminal of 80 columns has no room for six intervals
    caption = "nfe reduction on held-out prompts" + ("; intervals in study.csv" if wide else ", 95 % intervals")
    table = printing.plain_table(STUDIES[study].question, headings, caption)
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in test:
        text = f"{row.nfe_reduction:.2f}"
        if row.nfe_reduction_low is not None and not wide:
            text += f" ({row.nfe_reduction_low:.2f}-{row.nfe_reduction_high:.2f})"
        cells.setdefault((row.setting, row.method), {})[row.budget] = text
    last = None
    for (setting, method), values in cells.items():
        if last not in (None, setting):
            table.add_section()
        table.add_row("" if setting == last else setting, method, *(values.get(budget, "") for budget in budgets))
        last = setting
    return table
