"""``compare``, ``cross-validate``, ``calibration-size`` and ``smooth``: what is known about prompts nobody has seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrate.files import write_json
from calibrate.traces.table import read_traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.methods import METHODS
from studies.cli import app as cli
from studies.cli.graph_commands import GraphArgument, read_graph, trace_validity
from studies.runs.run_directory import RESULTS_FORMAT, RESULTS_VERSION
from studies.runs.splits import Splits, cut_splits, read_splits
from studies.statistics.calibration_size import calibration_size_curve
from studies.statistics.crossval import CrossValidation, cross_validate
from studies.statistics.intervals import LEVEL, RESAMPLES, Comparison, Interval, PromptBootstrap
from studies.statistics.smoothing_study import STRENGTHS, smoothing_study

TracesArgument = Annotated[Path, typer.Argument(help="A trace folder written by `draftgraph record`.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of folds, draws and resamples.")]
BudgetsOption = Annotated[str, typer.Option("--budgets", help="Draft nodes, comma-separated.")]
MethodOption = Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")]
ResultOption = Annotated[Path | None, typer.Option("--out", help="A JSON file for the rows.")]


@cli.command("compare")
def compare_command(
    first: GraphArgument,
    second: GraphArgument,
    traces: Annotated[Path, typer.Option("--traces", help="A trace folder, best one that no search has seen.")],
    level: Annotated[float, typer.Option("--level", help="Coverage of the intervals.")] = LEVEL,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Draws of the bootstrap.")] = RESAMPLES,
    seed: SeedOption = 0,
    out: ResultOption = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Tell two graphs apart on the same prompts: paired difference, its interval, and one sentence."""
    _check_out(out, overwrite)
    recorded = read_traces(traces)
    valid = trace_validity(recorded)
    anchors = AnchorTable.from_traces(recorded, max_depth=None)
    counts, files = [], []
    for path in (first, second):
        file = read_graph(path)
        wrong = file.validity.mismatches(valid)
        if wrong:
            raise ValueError(f"{path} does not fit the traces in {traces}: " + "; ".join(wrong))
        files.append(file)
        counts.append(replay(file.nodes[1:], anchors))
    bootstrap = PromptBootstrap(counts[0].prompts, resamples=resamples, level=level, seed=seed)
    found = bootstrap.compare(*counts)
    names = _names(first, second)
    headings = {"": "left", names[0]: "right", names[1]: "right", "difference, paired": "right"}
    caption = f"{level:.0%} intervals over {counts[0].prompts} prompts"
    table = cli.plain_table(f"{valid.policy}, {valid.cache} cache", headings, caption)
    table.add_row("drafts", *(str(file.budget) for file in files), "")
    forwards = [count.forwards for count in counts]
    table.add_row("forwards", *map(str, forwards), f"{forwards[0] - forwards[1]:+d}")
    for name, own, gap in (
        ("nfe reduction", found.nfe_reduction, found.nfe_reduction_difference),
        ("accepted drafts", found.accepted_drafts, found.accepted_drafts_difference),
    ):
        table.add_row(name, *(f"{part.estimate:.2f} ({part.low:.2f}-{part.high:.2f})" for part in own), _signed(gap))
    cli.console.print(table)
    _say(found.sentence(*names))
    for name, file in zip(names, files, strict=True):
        if file.provenance.get("trace_hash") == recorded.trace_hash():
            _say(f"Note: {name} was found on these traces and looks too good here; give traces that no search saw.")
    row = {"first": str(first), "second": str(second), **comparison_fields(found), "sentence": found.sentence(*names)}
    _write(out, {"command": "compare", "seed": seed, "traces": [recorded.trace_hash()]}, [row])


def comparison_fields(found: Comparison) -> dict[str, Any]:
    """A comparison as one row: every estimate, and beside it its interval as ``[low, high]``."""
    intervals = {
        "nfe_reduction_first": found.nfe_reduction[0],
        "nfe_reduction_second": found.nfe_reduction[1],
        "accepted_drafts_first": found.accepted_drafts[0],
        "accepted_drafts_second": found.accepted_drafts[1],
        "nfe_reduction_difference": found.nfe_reduction_difference,
        "nfe_reduction_ratio": found.nfe_reduction_ratio,
        "accepted_drafts_difference": found.accepted_drafts_difference,
    }
    fields: dict[str, Any] = {}
    for name, interval in intervals.items():
        fields |= {name: interval.estimate, f"{name}_interval": interval.pair()}
    gap = found.nfe_reduction_difference
    settings = {"level": gap.level, "prompts": gap.prompts, "resamples": gap.resamples, "interval_method": gap.method}
    return {**fields, "distinguishable": found.distinguishable, **settings}


@cli.command("cross-validate")
def cross_validate_command(
    traces: TracesArgument,
    methods: Annotated[str, typer.Option("--methods", help=f"Of {', '.join(METHODS)}.")] = "chain,greedy",
    budgets: BudgetsOption = "3,5,8,10,16",
    folds: Annotated[int, typer.Option("--folds", min=2, help="Parts the prompts are cut into.")] = 5,
    seed: SeedOption = 0,
    out: ResultOption = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Value search methods on every prompt by graphs that have not seen it."""
    _check_out(out, overwrite)
    split = read_splits([traces])
    drafts = cli.parse_list(budgets, int, "--budgets")
    results: list[CrossValidation] = [
        cross_validate(
            name, split.tables[0], drafts, block_length=split.block_length, step_size=split.step_size, folds=folds,
            seed=seed,
        )
        for name in cli.parse_list(methods, str, "--methods", "chain,greedy")
    ]  # fmt: skip
    rows = [row for result in results for row in result.rows(seed)]
    headings = {
        "method": "left",
        "D": "right",
        "in-prompt_index": "right",
        "out of fold": "right",
        "accepted drafts": "right",
    }
    caption = f"nfe reduction with 95 % intervals; forwards counted by replay, {folds} folds by prompt"
    table = cli.plain_table(f"{split.policy}, {rows[0]['prompts']} prompts", headings, caption)
    for row in rows:
        table.add_row(
            row["method"],
            str(row["budget"]),
            f"{row['in_sample_nfe_reduction']:.3f}",
            _columns(row, "nfe_reduction"),
            _columns(row, "accepted_drafts"),
        )
    cli.console.print(table)
    best, *others = sorted(results, key=lambda result: result.budgets[-1].out_of_fold.forwards)
    for other in others:
        gap = best.difference(other, max(drafts), seed)
        told = "cannot be told apart: the interval contains zero" if gap.contains(0.0) else "differ"
        _say(
            f"Out of fold at D = {max(drafts)}, {best.method} and {other.method} {told} (nfe reduction {_signed(gap)})."
        )
    _write(out, {"command": "cross-validate", "seed": seed, "folds": folds, "traces": list(split.trace_hashes)}, rows)


@cli.command("calibration-size")
def calibration_size_command(
    traces: TracesArgument,
    held_out: Annotated[
        Path | None, typer.Option("--held-out", help="Traces of other prompts; by default a third is kept apart.")
    ] = None,
    method: MethodOption = "greedy",
    budgets: BudgetsOption = "10",
    sizes: Annotated[str | None, typer.Option("--sizes", help="Search prompts; default 5, 10, 20, ..., all.")] = None,
    draws: Annotated[int, typer.Option("--draws", min=2, help="Random draws per size.")] = 10,
    seed: SeedOption = 0,
    out: ResultOption = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Would more prompts help? Held-out value of graphs found on 5, 10, 20, ... prompts."""
    _check_out(out, overwrite)
    split = read_splits([traces, held_out]) if held_out is not None else cut_splits(traces, (2, 1), seed)
    drafts = cli.parse_list(budgets, int, "--budgets")
    search, others = split.tables
    curve = calibration_size_curve(
        method, search, others, drafts, block_length=split.block_length, step_size=split.step_size,
        sizes=cli.parse_list(sizes, int, "--sizes", "5,10,20") if sizes else None, draws=draws, seed=seed,
    )  # fmt: skip
    rows = curve.rows(seed)
    headings = dict.fromkeys(("D", "search prompts", "draws", "in-prompt_index", "held-out", "of the draws"), "right")
    caption = f"nfe reduction on {rows[0]['prompts']} held-out prompts, mean over draws, 95 % intervals over prompts"
    table = cli.plain_table(f"{method}, {split.policy}", headings, caption)
    for row in rows:
        table.add_row(
            str(row["budget"]),
            str(row["search_prompts"]),
            str(row["draws"]),
            f"{row['in_sample_nfe_reduction']:.3f}",
            _columns(row, "nfe_reduction"),
            f"{row['draws_low']:.3f}-{row['draws_high']:.3f}",
        )
    cli.console.print(table)
    answers = [curve.answer(budget, seed) for budget in sorted(set(drafts))]
    for answer in answers:
        _say(answer.sentence())
    said = [
        {
            "budget": answer.budget,
            "half": answer.half,
            "whole": answer.whole,
            "gain": answer.gain.estimate,
            "gain_interval": answer.gain.pair(),
            "more_would_help": answer.more_would_help,
            "sentence": answer.sentence(),
        }
        for answer in answers
    ]
    config = {"command": "calibration-size", "seed": seed, "draws": draws, "traces": list(split.trace_hashes)}
    _write(out, config, rows, answers=said)


@cli.command("smooth")
def smooth_command(
    traces: TracesArgument,
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Traces that choose; by default a quarter of the prompts.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="Traces that judge; by default another quarter of the prompts.")
    ] = None,
    method: MethodOption = "greedy",
    budgets: BudgetsOption = "5,10,16,32",
    strengths: Annotated[str, typer.Option("--strengths", help="In anchors; raw counts are always tried.")] = ",".join(
        f"{value:g}" for value in STRENGTHS
    ),
    seed: SeedOption = 0,
    out: ResultOption = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Does smoothing sparse counts help? Chosen on validation prompts, judged on test prompts."""
    _check_out(out, overwrite)
    split = _three_splits(traces, validation, test, seed)
    search, chooses, judges = split.tables
    study = smoothing_study(
        method, search, chooses, judges, cli.parse_list(budgets, int, "--budgets"), block_length=split.block_length,
        step_size=split.step_size, strengths=cli.parse_list(strengths, float, "--strengths", "1,10,100"), seed=seed,
    )  # fmt: skip
    drafts = list(study.test)
    headings = {"counts": "left", "strength": "right"} | {f"D = {budget}": "right" for budget in drafts}
    sizes = "/".join(str(len(table.prompt_indices())) for table in split.tables)
    table = cli.plain_table(
        f"{method}, {split.policy}, {sizes} search/validation/test prompts",
        headings | {"sum": "right"},
        "forwards on the validation prompts; the fewest, in bold, are chosen",
    )
    for trial in study.trials:
        style = "bold" if trial is study.chosen else None
        cells = [str(trial.validation_forwards[budget]) for budget in drafts]
        table.add_row(trial.model, f"{trial.strength:g}", *cells, str(trial.total), style=style)
    cli.console.print(table)
    _say(study.sentence())
    config = {"command": "smooth", "seed": seed, "traces": list(split.trace_hashes)}
    _write(out, config, study.rows(), sentence=study.sentence())


def _three_splits(traces: Path, validation: Path | None, test: Path | None, seed: int) -> Splits:
    if validation is None and test is None:
        return cut_splits(traces, (2, 1, 1), seed)
    if validation is None or test is None:
        raise ValueError("give both --validation and --test, or neither to cut the prompts of one recording")
    return read_splits([traces, validation, test])


def _names(*paths: Path) -> list[str]:
    """File names, or whole paths where the names are one."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _signed(value: Interval) -> str:
    return f"{value.estimate:+.3f} ({value.low:+.3f} to {value.high:+.3f})"


def _say(sentence: str) -> None:
    cli.console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def _columns(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f}-{row[f'{name}_high']:.3f})"


def _check_out(out: Path | None, overwrite: bool) -> None:
    if out is not None:
        cli.check_output(out, overwrite)


def _write(out: Path | None, config: dict[str, Any], rows: Sequence[dict[str, Any]], **more: Any) -> None:
    if out is None:
        return
    header = {
        "format": RESULTS_FORMAT,
        "version": RESULTS_VERSION,
        "config": {**config, "tool_version": tool_version()},
    }
    write_json(out, {**header, "rows": list(rows), **more})
    cli.console.print(f"[bold]{out}[/]")
