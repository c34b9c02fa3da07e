"""``search``: a draft graph is found in recorded traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.cli import options, printing
from studies.cli.guard import command
from studies.cli.outputs import check_output


@command()
def search_command(
    traces: Annotated[Path, typer.Argument(help="A trace folder written by `draftgraph record`.")],
    out: Annotated[Path, typer.Option("--out", help="The graph file to write.")],
    method: Annotated[str, typer.Option("--method", help=options.METHOD_HELP)] = "greedy",
    budget: Annotated[int, typer.Option("--budget", min=1, help="Draft nodes.")] = 10,
    time_limit: Annotated[float, typer.Option("--time-limit", min=0.0, help="Seconds for --method exact.")] = 30.0,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Find a draft graph for a budget in recorded traces."""
    from calibrate.traces.table import read_traces
    from drafting.replay import per_prompt, replay
    from drafting.searching import NothingToDraftError, search
    from studies.statistics.intervals import interval_fields
    from verify.graph.file import save_graph

    check_output(out, overwrite)
    try:
        graph = search(read_traces(traces), method, budget, time_limit=time_limit)
    except NothingToDraftError as error:
        raise ValueError(f"{traces}: {error}") from None
    value = replay(graph, graph.graph["trie"].anchors)
    prompts = per_prompt(graph.draft_nodes(), graph.graph["trie"].anchors)
    worth = value.row() | interval_fields(value) | {"per_prompt": prompts}
    save_graph(graph.to_graph_file(values={"search": worth}), out)
    chosen = graph.graph["search"].chosen
    assert graph.gap is not None  # a searched graph carries its bound
    proof = "proved optimal" if graph.gap == 0 else f"NOT proved optimal: gap {100 * graph.gap:.2f} %"
    if graph.budget < budget:
        printing.say(
            printing.yellow(f"only {graph.budget} of {budget} draft nodes:"), " the traces hold no further candidates"
        )
    printing.say(
        f"{method}{f' ({chosen})' if chosen else ''}, {graph.budget} drafts, {proof}: accepted drafts "
        f"{value.accepted_drafts:.3f}, nfe reduction {value.nfe_reduction:.2f} on the traces searched (value it on "
        "other prompts with `draftgraph evaluate`)\n",
        printing.bold(out),
    )
