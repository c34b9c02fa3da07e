"""``watch``: does a served graph still accept what its traces promised?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli import options, printing
from studies.cli import statistics as stats
from studies.cli.graphs import read_graph
from studies.cli.guard import EXIT_BROKEN_PROMISE, command

if TYPE_CHECKING:
    from studies.statistics.served import Promise, Watch
    from verify.counting import AcceptanceCounts
    from verify.graph.file import GraphFile

#: Columns of counts that are shown, those that matter most; a large graph has thousands.
SHOWN_COLUMNS = 12


@command()
def watch_command(
    counts: Annotated[Path, typer.Argument(help="Counts of served requests: `draftgraph decode --counts`.")],
    graph: options.GraphArgument,
    traces: Annotated[
        Path | None,
        typer.Option("--traces", help="A trace folder that makes the promise; by default the graph file states it."),
    ] = None,
    false_alarms: Annotated[
        float, typer.Option("--false-alarms", help="At most this share of watches without a drift raises an alarm.")
    ] = 0.01,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws that break ties.")] = 0,
    out: stats.ResultOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Test whether served requests still accept what the traces promised; exit code 3 says: calibrate again."""
    from studies.statistics.intervals import Interval
    from studies.statistics.served import Watch
    from verify.counting import load_counts

    stats.check_out(out, overwrite)
    file, served = read_graph(graph), load_counts(counts)
    _check(file, graph, served, counts)
    promise = _promise(file, graph, served, traces)
    found = Watch.of(promise, served, false_alarms=false_alarms, seed=seed)
    means = {"promised": found.promised(), "served": found.served()}
    _show(found)
    stats.say_few(min(len(promise.anchors), served.requests))
    printing.say(found.sentence())
    row: dict[str, Any] = {
        "counts": str(counts), "graph": str(graph), "promise": promise.source,
        "requests": served.requests, "forwards": int(served.forwards.sum()), "false_alarms": false_alarms,
        "alarm": found.alarm, "since": found.since, "forwards_to_alarm": found.forwards_to_alarm,
        "direction": found.drift.direction, "by_profile": found.by_profile,
        "capital": found.drift.capital.tolist(),
    }  # fmt: skip
    for name, mean in means.items():
        row[f"accepted_drafts_{name}"] = mean.estimate if isinstance(mean, Interval) else mean
        row[f"accepted_drafts_{name}_interval"] = mean.pair() if isinstance(mean, Interval) else None
    stats.write(out, {"command": "watch", "seed": seed}, [row | {"sentence": found.sentence()}])
    if found.alarm is not None:
        raise typer.Exit(EXIT_BROKEN_PROMISE)


def _check(file: GraphFile, path: Path, served: AcceptanceCounts, counts: Path) -> None:
    """Refuse counts that are not of this graph."""
    if served.validity is not None and (wrong := file.validity.mismatches(served.validity)):
        raise ValueError(f"{counts} is not of a decode that {path} is for: " + "; ".join(wrong))
    if served.nodes is not None and served.nodes != file.nodes:
        raise ValueError(f"{counts} is of another graph than {path}: its nodes differ; give the graph that was served")
    if served.by == "node" and served.requests and served.accepted.shape[1] != file.budget:
        raise ValueError(
            f"{counts} counts {served.accepted.shape[1]} nodes, but {path} has {file.budget}; give the graph that was "
            "served"
        )
    if served.validity is None and served.nodes is None:
        printing.say(f"Note: {counts} does not say what was served, so nobody can tell whether it is of {path}.")


def _promise(file: GraphFile, path: Path, served: AcceptanceCounts, traces: Path | None) -> Promise:
    """The promise of the traces, where given, and else of the graph file."""
    from drafting.anchors import AnchorTable
    from drafting.provenance import trace_validity
    from studies.runs.splits import searched_note
    from studies.statistics.served import Promise

    if traces is None:
        try:
            promise = Promise.of_file(file, served)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if promise.source.startswith("search"):
            printing.say(
                "Note: the promise is from the prompts that chose the graph, and so too good: false alarms are more "
                "frequent than stated; give --traces FOLDER of other prompts."
            )
        return promise
    from calibrate.traces.table import read_traces

    recorded = read_traces(traces)
    if wrong := file.validity.mismatches(trace_validity(recorded.metadata)):
        raise ValueError(f"{path} does not fit the traces in {traces}: " + "; ".join(wrong))
    if note := searched_note(path.name, file.provenance, recorded):
        printing.say(note)
    return Promise.of_traces(file, served, AnchorTable.from_traces(recorded, max_depth=None))


def _show(found: Watch) -> None:
    """Accepted drafts, and the columns that differ most."""
    from studies.statistics.intervals import Interval

    def shown(value: Interval | float | None) -> str:
        if isinstance(value, Interval):
            return f"{value.estimate:.3f} ({value.low:.3f}-{value.high:.3f})"
        return "" if value is None else f"{value:.3f}"

    counts, promise = found.counts, found.promise
    rest = "" if found.since is None else f" since request {found.since}"
    caption = f"95 % intervals over {len(promise.anchors)} reference prompts and {counts.requests} requests"
    headings = {"": "left", "promised": "right", "served": "right"}
    table = printing.plain_table(f"per anchor: {promise.source}, and requests{rest}", headings, caption)
    table.add_row("accepted drafts", shown(found.promised()), shown(found.served()))
    columns = found.columns()
    if len(columns) > SHOWN_COLUMNS and promise.columns is not None:
        columns = sorted(columns, key=lambda column: -abs((column[1] or 0.0) - column[2]))
    for name, promised, served in columns[:SHOWN_COLUMNS]:
        table.add_row(name, shown(promised), shown(served))
    printing.show(table)
    if len(columns) > SHOWN_COLUMNS:
        printing.say(f"{len(columns) - SHOWN_COLUMNS} further rows are left out.")
