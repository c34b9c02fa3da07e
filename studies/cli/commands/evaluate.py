"""``evaluate``: graphs are replayed over recorded traces."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from studies.cli import printing
from studies.cli.graphs import read_graph, short_names
from studies.cli.guard import command


@command()
def evaluate_command(
    graphs: Annotated[list[Path], typer.Argument(help="Graph files.")],
    traces: Annotated[Path, typer.Option("--traces", help="A trace folder, best one that no search has seen.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Replay graphs over recorded traces: accepted drafts and forward passes, without a model."""
    from calibrate.traces.table import read_traces
    from drafting.anchors import AnchorTable
    from drafting.provenance import trace_validity
    from drafting.replay import replay
    from studies.runs.splits import searched_note

    found = read_traces(traces)
    run = trace_validity(found.metadata)
    anchors = AnchorTable.from_traces(found, max_depth=None)
    table = printing.plain_table(
        f"replay on {found.metadata['prompts']} prompts, {run.policy}, {run.cache} cache",
        {
            "graph": "left",
            "D": "right",
            "accepted\ndrafts": "right",
            "forwards\nplain": "right",
            "forwards\ngraph": "right",
            "nfe\nreduction": "right",
            "tokens per\nforward": "right",
        },
    )
    notes, rows = [], []
    for path, name in zip(graphs, short_names(*graphs), strict=True):
        file = read_graph(path)
        wrong = file.validity.mismatches(run)
        if wrong:
            raise ValueError(f"{path} does not fit the traces in {traces}: " + "; ".join(wrong))
        notes += [note] if (note := searched_note(str(path), file.provenance, found)) else []
        value = replay(file.nodes[1:], anchors)
        rows.append({"graph": str(path), "drafts": file.budget, **value.row()})
        table.add_row(
            name,
            str(file.budget),
            f"{value.accepted_drafts:.3f}",
            str(value.plain_forwards),
            str(value.forwards),
            f"{value.nfe_reduction:.3f}",
            f"{value.tokens_per_forward:.2f}",
        )
    if as_json:
        facts = {"traces": str(traces), "trace_hash": found.trace_hash(), "validity": asdict(run), "rows": rows}
        printing.say(json.dumps(facts, indent=2))
    else:
        printing.show(table)
    for note in notes:
        (printing.complain if as_json else printing.say)(note)
