"""``latency`` and ``budget``: what a draft costs on this device, and how many pay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrate.checkpoints import load_checkpoint
from calibrate.files import write_json
from calibrate.version import tool_version
from drafting.graph import DraftGraph
from drafting.trie import PrefixTrie
from studies.budget import BudgetChoice, choose_budget
from studies.cli import app as cli
from studies.evaluation import predict
from studies.latency import LatencyError, LatencyTable, load_latency, measure_latency, save_latency
from studies.methods import METHODS, SearchInput, check_method, find_graphs
from studies.progress import RichReporter
from studies.splits import read_splits
from verify.graph_file import save_graph

BUDGET_FORMAT = "draftgraph-budget"
BUDGET_VERSION = 1


def parse_drafts(text: str) -> tuple[int, ...]:
    """``0-16`` or ``0,1,2,4,8``; raises ``ValueError`` otherwise."""
    low, dash, high = text.partition("-")
    if dash and low.strip().isdigit() and high.strip().isdigit():
        if int(low) > int(high):
            raise ValueError(f"--drafts: {text!r} runs backwards; write {high.strip()}-{low.strip()}")
        return tuple(range(int(low), int(high) + 1))
    return cli.parse_list(text, int, "--drafts")


@cli.command("latency")
def latency_command(
    out: Annotated[Path, typer.Option("--out", help="The latency file to write.")],
    model: cli.ModelOption = "bundled",
    drafts: Annotated[str, typer.Option("--drafts", help="Numbers of drafts, 0-16 or 0,1,2,4,8.")] = "0-16",
    block_length: cli.BlockLengthOption = 32,
    context_length: Annotated[int, typer.Option("--context-length", min=1, help="Frozen rows.")] = 128,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Sequences per forward.")] = 1,
    backend: cli.BackendOption = "packed",
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="Timed forwards per entry.")] = 15,
    dtype: cli.DtypeOption = "float32",
    device: cli.DeviceOption = "cpu",
    revision: cli.RevisionOption = None,
    mask_token_id: cli.MaskOption = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Measure forward time against the number of drafts on this device."""
    cli.check_output(out, overwrite)
    wanted = parse_drafts(drafts)
    checkpoint = load_checkpoint(model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision)
    table = measure_latency(
        checkpoint, drafts=wanted, block_length=block_length, context_length=context_length, batch=batch,
        backend=backend, repeats=repeats, reporter=RichReporter(cli.console),
    )  # fmt: skip
    save_latency(table, out)
    shown = cli.plain_table(
        f"{table.device}, {table.dtype}, batch {batch}, context {context_length}, {backend}",
        {"D": "right", "rows": "right", "ms": "right", "quartiles": "right", "x plain": "right"},
        f"median of {repeats} forwards; a refresh forward takes {table.refresh:.2f} ms",
    )
    for entry, rows, median, low, high in zip(
        table.drafts, table.rows, table.latency, table.low, table.high, strict=True
    ):
        relative = f"{median / table.latency[0]:.2f}"
        shown.add_row(str(entry), str(rows), f"{median:.2f}", f"{low:.2f}-{high:.2f}", relative)
    cli.console.print(shown)
    if table.note:
        cli.console.print(f"[yellow]{table.note}[/]")
    cli.console.print(f"[bold]{out}[/]")


@cli.command("budget")
def budget_command(
    traces: Annotated[Path, typer.Argument(help="Traces to search, or a folder with 'search' and 'test' in it.")],
    latency: Annotated[Path, typer.Option("--latency", help="A latency file of `draftgraph latency`.")],
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Traces that choose the budget; by default those searched.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option("--held-out", help="Traces that judge the choice; by default TRACES/test.")
    ] = None,
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "greedy",
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.0, help="Seconds per budget for --method exact.")
    ] = 30.0,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Price with the latency of another model or dtype.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the best graph, latency table inside, and every budget beside it."),
    ] = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Price every budget with this device's latency and take the best; 0 means: do not speculate.

    The budget is chosen on the prompts searched (or on --validation), its speed-up is reported on --held-out. With
    --out, OUT.budget.json holds every budget's row and the verdict, also when that is not to speculate.
    """
    check_method(method)
    report = out.with_suffix(".budget.json") if out is not None else None
    for path in (out, report):
        if path is not None:
            cli.check_output(path, overwrite)
    table = load_latency(latency)
    search_folder = traces / "search" if (traces / "search").is_dir() else traces
    if held_out is None and not (traces / "test").is_dir():
        raise ValueError(f"{traces} holds no folder 'test'; give the traces of other prompts with --held-out")
    folders = [search_folder, *([validation] if validation is not None else []), held_out or traces / "test"]
    splits = read_splits(folders)
    valid = splits.validity
    check_prices(table, splits.run, str(latency), str(search_folder), any_model)
    search, chooser, judge = splits.tables[0], splits.tables[-2], splits.tables[-1]
    drafting = [drafts for drafts in table.drafts if drafts > 0]
    given = SearchInput(
        PrefixTrie.from_anchors(search), max(drafting, default=1), valid.block_length, splits.step_size, time_limit
    )
    found = find_graphs(method, given, drafting) if search.n_anchors else {}  # no anchor: nothing was ever to draft
    choice = choose_budget({budget: graph.nodes for budget, graph in found.items()}, chooser, judge, table)
    foreign = other_model(table, splits.run)
    sentence = choice.sentence + (f" But {foreign}." if foreign else "")
    _show(choice, f"{traces}, {method}, budget chosen on {'validation' if validation else 'search'} prompts")
    cli.console.print(sentence)
    if out is None or report is None:
        return
    best = choice.best
    facts = {
        "tool": "draftgraph",
        "tool_version": tool_version(),
        "search": method,
        "budget": best.budget,
        "trace_hash": splits.trace_hashes[0],
        "budget_chosen_on": "validation" if validation is not None else "search",
        "predicted_speedup": best.speedup,
        "predicted_speedup_interval": [best.speedup_low, best.speedup_high],
    }
    if best.budget > 0:
        nodes = found[best.budget].nodes
        names = ("search", "validation", "test") if validation is not None else ("search", "test")
        values = {name: predict(nodes, anchors).row() for name, anchors in zip(names, splits.tables, strict=True)}
        graph = DraftGraph.from_formulas(nodes, splits.step_size)
        save_graph(graph.to_graph_file(valid, facts, values, table.graph_section()), out)
        cli.console.print(f"graph   [bold]{out}[/]")
    else:
        out.unlink(missing_ok=True)  # there only with --overwrite: a graph beside a verdict against it misleads
        cli.console.print("no graph is written: plain decoding is the best budget")
    write_json(
        report,
        {
            "format": BUDGET_FORMAT,
            "version": BUDGET_VERSION,
            "sentence": sentence,
            "at_edge": choice.at_edge,
            **facts,
            "trace_hashes": list(splits.trace_hashes),
            "validity": asdict(valid),
            "latency": table.graph_section(),
            "rows": [asdict(row) for row in choice.rows],
        },
    )
    cli.console.print(f"budgets [bold]{report}[/]")


def other_model(table: LatencyTable, run: Mapping[str, Any]) -> str:
    """What differs between the model and dtype that were timed and those that were recorded; empty when nothing."""
    parts = [
        f"the latency was measured with {name} {measured!r}, the traces were recorded with {run.get(name)!r}"
        for name, measured in (("model", table.model), ("dtype", table.dtype))
        if measured != run.get(name)
    ]
    return " and ".join(parts)


def check_prices(
    table: LatencyTable, run: Mapping[str, Any], latency: str, traces: str, any_model: bool = False
) -> None:
    """Refuse a latency table that does not time the forwards of the recorded ``run``.

    Raises:
        LatencyError: another model or dtype (unless ``any_model``), another block length, or a context mode whose
            forwards have other rows than those that were timed.
    """
    if run["context"] in ("none", "prefix"):
        raise LatencyError(
            f"{traces} was recorded with context {run['context']!r}: there every forward computes the rows after the "
            "block anew, and with 'none' those before it too, but latency files time one block over a frozen context. "
            "Budgets are priced for traces recorded with --context dual or block_causal"
        )
    if table.block_length != run["block_length"]:
        raise LatencyError(
            f"{latency} was measured for block length {table.block_length}, the traces have {run['block_length']}; "
            f"measure with --block-length {run['block_length']}"
        )
    if not any_model and (different := other_model(table, run)):
        raise LatencyError(
            f"{latency} does not fit {traces}: {different}; measure that model, or give --any-model to price one "
            "model's drafts with another's latency"
        )


def _show(choice: BudgetChoice, title: str) -> None:
    shown = cli.plain_table(
        title,
        {"D": "right", "ms each": "right", "choice": "right", "forwards": "right", "speed-up": "right",
         "95 % interval": "right"},
        "choice: speed-up on the prompts that chose; the columns after it: on held-out prompts",
    )  # fmt: skip
    for row in choice.rows:
        mark = "[bold]" if row is choice.best else ""
        shown.add_row(
            f"{mark}{row.budget}", f"{row.latency:.2f}", f"{row.choice_speedup:.2f}", str(row.forwards),
            f"{mark}{row.speedup:.2f}", f"{row.speedup_low:.2f}-{row.speedup_high:.2f}",
        )  # fmt: skip
    cli.console.print(shown)
