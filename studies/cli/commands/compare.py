"""``compare``: two graphs on the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli import options, printing
from studies.cli import statistics as stats
from studies.cli.graphs import read_graph, short_names
from studies.cli.guard import command

if TYPE_CHECKING:
    from studies.statistics.intervals import GraphComparison


@command()
def compare_command(
    first: options.GraphArgument,
    second: options.GraphArgument,
    traces: Annotated[Path, typer.Option("--traces", help="A trace folder, best one that no search has seen.")],
    level: Annotated[float, typer.Option("--level", help="Coverage of the intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Draws of the bootstrap.")] = 10_000,
    seed: stats.SeedOption = 0,
    out: stats.ResultOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Tell two graphs apart on the same prompts: paired difference, its interval, and one sentence."""
    from calibrate.traces.table import read_traces
    from drafting.anchors import AnchorTable
    from drafting.provenance import trace_validity
    from drafting.replay import replay
    from studies.runs.splits import searched_note
    from studies.statistics.intervals import PromptBootstrap

    stats.check_out(out, overwrite)
    recorded = read_traces(traces)
    valid = trace_validity(recorded.metadata)
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
    found = bootstrap.compare_graphs(*counts)
    names = short_names(first, second)
    headings = {"": "left", names[0]: "right", names[1]: "right", "difference, paired": "right"}
    caption = f"{100 * level:.0f} % intervals over {counts[0].prompts} prompts"
    table = printing.plain_table(f"{valid.policy}, {valid.cache} cache", headings, caption)
    table.add_row("drafts", *(str(file.budget) for file in files), "")
    forwards = [count.forwards for count in counts]
    table.add_row("forwards", *map(str, forwards), f"{forwards[0] - forwards[1]:+d}")
    for name, own, gap in (
        ("nfe reduction", found.nfe_reduction, found.nfe_reduction_difference),
        ("accepted drafts", found.accepted_drafts, found.accepted_drafts_difference),
    ):
        table.add_row(
            name, *(f"{part.estimate:.2f} ({part.low:.2f}-{part.high:.2f})" for part in own), stats.signed(gap)
        )
    printing.show(table)
    stats.say_few(found.nfe_reduction_difference.prompts)
    printing.say(found.sentence(*names))
    for name, file in zip(names, files, strict=True):
        if note := searched_note(name, file.provenance, recorded):
            printing.say(note)
    row = {"first": str(first), "second": str(second), **comparison_fields(found), "sentence": found.sentence(*names)}
    stats.write(out, {"command": "compare", "seed": seed, "traces": [recorded.trace_hash()]}, [row])


def comparison_fields(found: GraphComparison) -> dict[str, Any]:
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
