"""``calibrate``: the whole path in one command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from studies.cli import options, printing
from studies.cli.guard import EXIT_BROKEN_PROMISE, command
from studies.cli.lists import parse_list
from studies.cli.outputs import draw

if TYPE_CHECKING:
    from figures.records.run import ResultRow, Run


@command(resumes=True, together=True)
def calibrate_command(
    out: Annotated[Path, typer.Option("--out", help="The run directory.")] = Path("runs/calibrate"),
    model: options.ModelOption = "bundled",
    prompts: options.PromptsOption = "bundled",
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            help="Prompts no search sees; by default the test split of --prompts, or half of a file.",
        ),
    ] = None,
    split_fraction: options.SplitFractionOption = None,
    chat: options.ChatOption = False,
    ignore_end_tokens: options.IgnoreEndOption = False,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", help="Unmasking policy, may come several times. [default: threshold:0.9]"),
    ] = None,
    temperature: options.TemperatureOption = None,
    top_p: options.TopPOption = None,
    top_k: options.TopKOption = None,
    block_length: options.BlockLengthOption = None,
    generation_length: options.GenerationLengthOption = 96,
    cache: options.CacheOption = None,
    backend: options.BackendOption = "packed",
    budgets: Annotated[str, typer.Option("--budgets", help="Draft nodes, as 0,3,5 or 0-16; 0: plain.")] = "0,3,5,8,10",
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Search methods, 'published' takes its best reading; 'informed': drafts that learn in the block. "
            "[default: chain,published,greedy,informed; the last only for policies that read top tokens]",
        ),
    ] = None,
    search_prompts: Annotated[
        int, typer.Option("--search-prompts", min=1, help="Prompts that the search counts.")
    ] = 64,
    test_prompts: Annotated[
        int, typer.Option("--test-prompts", min=1, help="Held-out prompts: every graph is replayed on them.")
    ] = 48,
    measured_prompts: Annotated[
        int, typer.Option("--measured-prompts", min=0, help="Of these, prompts that the verifier really decodes.")
    ] = 16,
    top_j: options.TopJOption = 8,
    seed: options.SeedOption = 0,
    batch_size: options.BatchSizeOption = 1,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
    overwrite: options.OverwriteRunOption = False,
    overwrite_traces: options.OverwriteTracesOption = False,
    certify: Annotated[
        bool, typer.Option("--certify/--no-certify", help="Bound every graph by the best possible of its size.")
    ] = True,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw the figures at the end.")] = True,
) -> None:
    """Record, search, predict, export and verify; the run directory holds everything.

    Started by torchrun, all processes record; then the first one goes on alone (docs/recording.md).
    """
    from calibrate.progress import RichReporter
    from calibrate.recording.workers import join_workers
    from studies.runs.calibration import calibrate
    from studies.runs.configuration import CalibrationConfig, default_methods
    from verify.policies.sampling import with_filters

    specs = tuple(with_filters(spec, top_p, top_k) for spec in policy or ["threshold:0.9"])
    config = CalibrationConfig(
        model=model,
        prompts=prompts,
        held_out=test,
        policies=specs,
        temperature=temperature,
        block_length=block_length,
        generation_length=generation_length,
        cache=cache,
        backend=backend,
        budgets=parse_list(budgets, int, "--budgets"),
        methods=default_methods(specs, temperature)
        if methods is None
        else parse_list(methods, str, "--methods", "chain,greedy"),
        top_j=top_j,
        seed=seed,
        dtype=dtype,
        device=device,
        search_prompts=search_prompts,
        test_prompts=test_prompts,
        measured_prompts=measured_prompts,
        mask_token_id=mask_token_id,
        certify=certify,
        chat=chat,
        revision=revision,
        batch_size=batch_size,
        ignore_end_tokens=ignore_end_tokens,
        split_fraction=split_fraction,
    )
    workers = join_workers()
    # A launcher that starts a failed job again means it to go on, not to delete what the first attempt recorded.
    first_attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    results = calibrate(
        config,
        out,
        overwrite=overwrite,
        overwrite_traces=overwrite_traces and first_attempt,
        reporter=RichReporter(printing.console),
        workers=workers,
    )
    if results is None:  # the leader of the workers reports
        return
    policies = results.config["policies"]
    for spec in policies:
        printing.show(results_table(results.rows, spec))
    if figures:
        for path in draw(out):
            if path.suffix == ".png":
                printing.say(f"figure  {path}")
    for spec in policies:
        printing.say(*verdict(results, spec, out))
    failed = [row for row in results.rows if not _holds(row)]
    if failed:
        printing.complain(
            printing.red(f"{len(failed)} rows break the promise"),
            " (tokens differ, or forwards counted are not those predicted); see results.json",
        )
        raise typer.Exit(EXIT_BROKEN_PROMISE)


def results_table(rows: Sequence[ResultRow], policy: str) -> Table:
    """One line per method and budget: predicted on the search split, predicted and measured on held-out prompts.

    A budget with a number behind it, "10 (6)", ran out of candidates: the graph has that many nodes.
    "gap" is what the graph can at most be short of the best graph of its size, on the search split.
    """
    test = [row for row in rows if row.policy == policy and row.split == "test"]
    search = {(r.method, r.budget): r for r in rows if r.policy == policy and r.split == "search"}
    cache = test[0].cache if test else ""
    prompts = test[0].prompts if test else 0
    run = test[0].measured_prompts if test else 0
    readings: dict[str, list[str]] = {}
    for row in test:
        if row.reading:
            readings.setdefault(row.reading, []).append(str(row.budget))
    caption = (
        "NFE: forward passes; red.: times fewer of them; drafted blocks: of rows, in the mean forward; gap: to the "
        "proved bound on the search prompts"
    )
    if readings:
        each = (f"{reading} (D = {', '.join(budgets)})" for reading, budgets in readings.items())
        caption += f"\npublished, the best readings on the search prompts: {'; '.join(each)}"
    columns = (
        "method", "D", "drafted\nblocks", "acc.\ndrafts", "gap", "red.\nsearch", "red.\nheld-out",
        "NFE\npred.", "NFE\nrun", "same\ntokens",
    )  # fmt: skip
    headings = dict.fromkeys(columns, "right")
    headings["method"] = "left"
    table = printing.plain_table(
        f"{policy}, {cache} cache, {prompts} held-out prompts, {run} of them run with every graph",
        headings,
        caption,
    )
    last = None
    for row in test:
        if last not in (None, row.method):
            table.add_section()
        last = row.method
        found = search[row.method, row.budget]
        table.add_row(
            row.method,
            str(row.budget) if row.nodes in (None, row.budget) else f"{row.budget} ({row.nodes})",
            "" if row.drafted_blocks is None else f"{row.drafted_blocks:.1f}",
            "" if row.accepted_drafts is None else f"{row.accepted_drafts:.2f}",
            "" if found.gap is None else f"{100 * found.gap:.1f} %",
            f"{found.nfe_reduction:.2f}",
            printing.bold(f"{row.nfe_reduction:.2f}"),
            str(row.forwards_predicted_measured or row.forwards_predicted),
            str(row.forwards_measured or ""),
            f"{100 * (row.tokens_identical or 0.0):.0f} %" if row.measured_prompts else "",
        )
    return table


def verdict(results: Run, policy: str, out: Path) -> list[str | Text]:
    """One sentence, in parts to print, that says what was won, and where the graph lies."""
    from figures.records.run import LEARNING
    from studies.report.advice import choose, pair_up
    from studies.statistics.intervals import FEW_PROMPTS

    # The graph is chosen on the search split; the held-out number is only reported.
    pairs = pair_up(results, policy)
    chosen = choose(pairs)
    if chosen is None:
        return [
            printing.bold(policy),
            ": no graph; either no budget above 0 was asked for, or no draft was ever possible.",
        ]
    held, plain = chosen.test, next((pair.test for pair in pairs if pair.test.budget == 0), None)
    prompts, counted = held.measured_prompts, held.forwards_measured
    if prompts:
        expected, same = held.forwards_predicted_measured, round((held.tokens_identical or 0.0) * prompts)
        needs = f"needs {counted} forward passes for {prompts} held-out prompts"
        if plain is not None:
            needs += f" where plain decoding needs {plain.forwards_measured}"
        source = "its state log" if held.method in LEARNING else "the traces"
        needs += f", as {source} predicted" if counted == expected else f", where {source} predicted {expected}"
        needs += f"; {same} of {prompts} answers are the same token by token."
    else:
        needs = "was not run (--measured-prompts 0); what follows is predicted from the traces."
    interval = ""
    if held.nfe_reduction_low is not None:
        interval = f", 95 % interval {held.nfe_reduction_low:.2f} to {held.nfe_reduction_high:.2f}"
    if (held.prompts or 0) < FEW_PROMPTS:
        interval += f" (too few prompts ({held.prompts}) to conclude)"
    promise = "" if held.exact else " This mode is near-lossless: identity is measured, not promised."
    return [
        printing.bold(policy),
        f": {held.method} with {held.budget if held.nodes is None else held.nodes} drafts {needs}{promise} On all "
        f"{held.prompts} held-out prompts: ",
        printing.bold(f"{held.nfe_reduction:.2f}"),
        f" times fewer forwards{interval}.\n",
        f"graph   {out / held.graph}"
        if held.graph is not None
        else f"use     --drafter informed --drafts {held.budget}",
    ]


def _holds(row: ResultRow) -> bool:
    if row.split != "test" or not row.exact or not row.measured_prompts:
        return True
    return row.tokens_identical == 1.0 and row.forwards_measured == row.forwards_predicted_measured
