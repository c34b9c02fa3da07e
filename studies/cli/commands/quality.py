"""``quality``: valid answers against forward passes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from studies.cli import options, printing
from studies.cli.guard import EXIT_BROKEN_PROMISE, command
from studies.cli.lists import parse_list
from studies.cli.outputs import draw

if TYPE_CHECKING:
    from figures.records.quality import Quality


@command(resumes=True)
def quality_command(
    out: Annotated[Path, typer.Option("--out", help="The run directory.")],
    model: options.ModelOption = "bundled",
    prompts: options.PromptsOption = "bundled",
    test: Annotated[str | None, typer.Option("--test", help="Held-out prompts of another source.")] = None,
    policies: Annotated[
        str | None,
        typer.Option("--policies", help="Unmasking rules, for example static:1,threshold:0.9. [default: one of each]"),
    ] = None,
    methods: Annotated[
        str, typer.Option("--methods", help="Search methods, and 'informed': drafts that learn in the block.")
    ] = "greedy,informed",
    budgets: Annotated[str, typer.Option("--budgets", help="Drafts per forward.")] = "5,10",
    temperature: options.TemperatureOption = None,
    block_length: options.BlockLengthOption = None,
    generation_length: options.GenerationLengthOption = 96,
    cache: options.CacheOption = None,
    backend: options.BackendOption = "packed",
    search_prompts: Annotated[
        int, typer.Option("--search-prompts", min=1, help="Prompts that the search of graphs counts.")
    ] = 64,
    test_prompts: Annotated[
        int, typer.Option("--test-prompts", min=1, help="Held-out prompts, of all tasks together.")
    ] = 48,
    measured_prompts: Annotated[
        int,
        typer.Option(
            "--measured-prompts",
            min=0,
            help="Of these, prompts that are decoded again with every drafter; all where no identity is promised.",
        ),
    ] = 8,
    run_code: Annotated[
        bool,
        typer.Option("--run-code", help="Run programs that the model writes, with limits but on this machine."),
    ] = False,
    top_j: options.TopJOption = 8,
    seed: options.SeedOption = 0,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    batch_size: options.BatchSizeOption = 1,
    chat: options.ChatOption = False,
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
    ignore_end_tokens: options.IgnoreEndOption = False,
    split_fraction: options.SplitFractionOption = None,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw the figure.")] = True,
    overwrite: options.OverwriteRunOption = False,
    overwrite_traces: options.OverwriteTracesOption = False,
) -> None:
    """Set valid answers against forward passes: every unmasking rule, without drafts and with each drafter.

    Needs prompts with a checker or with reference answers (docs/cli.md); others are left out, and that is said.
    """
    from calibrate.progress import RichReporter
    from studies.runs.configuration import CalibrationConfig
    from studies.runs.quality import measure_quality

    config = CalibrationConfig(
        model=model,
        prompts=prompts,
        held_out=test,
        policies=parse_list(policies, str, "--policies", "static:1,threshold:0.9") if policies else (),
        temperature=temperature,
        block_length=block_length,
        generation_length=generation_length,
        cache=cache,
        backend=backend,
        budgets=parse_list(budgets, int, "--budgets"),
        methods=parse_list(methods, str, "--methods", "greedy,informed"),
        top_j=top_j,
        seed=seed,
        dtype=dtype,
        device=device,
        search_prompts=search_prompts,
        test_prompts=test_prompts,
        measured_prompts=measured_prompts,
        mask_token_id=mask_token_id,
        chat=chat,
        revision=revision,
        batch_size=batch_size,
        ignore_end_tokens=ignore_end_tokens,
        split_fraction=split_fraction,
    )
    quality = measure_quality(
        config, out, run_code=run_code, overwrite=overwrite, overwrite_traces=overwrite_traces,
        reporter=RichReporter(printing.console),
    )  # fmt: skip
    for domain in quality.domains():
        printing.show(quality_table(quality, domain))
    if figures:
        for path in draw(out):
            if path.suffix == ".png":
                printing.say(f"figure  {path}")
    printing.say(printing.bold(out / "quality.csv"))
    failed = [row for row in quality.rows if not row.holds]
    if failed:
        printing.complain(
            printing.red(f"{len(failed)} rows break the promise"),
            " (tokens differ, or forwards counted are not those predicted); see quality.json",
        )
        raise typer.Exit(EXIT_BROKEN_PROMISE)


def quality_table(quality: Quality, domain: str) -> Table:
    """One task: a line per rule, valid answers with their interval, forward passes per answer for every drafter."""
    from figures.records.quality import PLAIN

    drafters = [(PLAIN, 0), *quality.drafters()]
    rows = quality.select(domain=domain)
    decoded = min((row.measured_prompts for row in rows if row.method != PLAIN), default=0)
    headings = {"policy": "left", "valid (95 %)": "right"}
    headings |= {method if method == PLAIN else f"{method}\nD = {budget}": "right" for method, budget in drafters}
    table = printing.plain_table(
        f"{domain}: valid answers, and forward passes per answer",
        headings,
        f"{rows[0].prompts} held-out prompts, {decoded} of them decoded again with every drafter",
    )
    for plain in quality.select(domain=domain, method=PLAIN):
        own = {(row.method, row.budget): row for row in rows if row.policy == plain.policy}
        table.add_row(
            plain.policy,
            f"{100 * plain.share:.0f} % ({100 * plain.valid_low:.0f}-{100 * plain.valid_high:.0f})",
            *(f"{own[drafter].forwards:.1f}" if drafter in own else "" for drafter in drafters),
        )
    return table
