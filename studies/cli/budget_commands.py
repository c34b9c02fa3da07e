"""``latency`` and ``budget``: what a draft costs on this device, and how many pay."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from calibrate.checkpoints import load_checkpoint
from calibrate.files import write_json
from calibrate.traces import read_traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.trie import PrefixTrie
from studies.budget import BudgetChoice, choose_budget
from studies.cli import app as cli
from studies.cli.graph_commands import trace_validity
from studies.evaluation import predict
from studies.latency import LatencyError, load_latency, measure_latency, save_latency
from studies.methods import SearchInput, build_method
from studies.progress import RichReporter
from verify.graph_file import save_graph
from verify.policies import make_policy


def parse_drafts(text: str) -> tuple[int, ...]:
    """``0-16`` or ``0,1,2,4,8``; raises ``ValueError`` otherwise."""
    low, dash, high = text.partition("-")
    if dash and low.strip().isdigit() and high.strip().isdigit():
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
    mask_token_id: cli.MaskOption = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Measure forward time against the number of drafts on this device."""
    cli.check_output(out, overwrite)
    wanted = parse_drafts(drafts)
    checkpoint = load_checkpoint(model, dtype=dtype, device=device, mask_token_id=mask_token_id)
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
    cli.console.print(f"[bold]{out}[/]")


@cli.command("budget")
def budget_command(
    traces: Annotated[Path, typer.Argument(help="Traces to search, or a folder with 'search' and 'test' in it.")],
    latency: Annotated[Path, typer.Option("--latency", help="A latency file of `draftgraph latency`.")],
    held_out: Annotated[
        Path | None, typer.Option("--held-out", help="Traces that judge; by default TRACES/test.")
    ] = None,
    method: Annotated[str, typer.Option("--method", help="A search with nested graphs.")] = "greedy",
    out: Annotated[Path | None, typer.Option("--out", help="Write the best graph, latency table inside.")] = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Price every budget with this device's latency and take the best; 0 means: do not speculate."""
    if out is not None:
        cli.check_output(out, overwrite)
    table = load_latency(latency)
    search_folder = traces / "search" if (traces / "search").is_dir() else traces
    found = read_traces(search_folder)
    judged = read_traces(held_out or traces / "test")
    valid = trace_validity(found)
    wrong = valid.mismatches(trace_validity(judged))
    if wrong:
        raise ValueError("search and held-out traces differ: " + "; ".join(wrong))
    if table.block_length != valid.block_length:
        raise LatencyError(
            f"{latency} was measured for block length {table.block_length}, the traces have {valid.block_length}"
        )
    anchors = AnchorTable.from_traces(found, max_depth=None)
    largest = table.drafts[-1]
    trie = PrefixTrie.from_anchors(anchors)
    step_size = make_policy(valid.policy).step_size
    order = build_method(method, SearchInput(trie, largest, valid.block_length, step_size)).order
    test = AnchorTable.from_traces(judged, max_depth=None)
    choice = choose_budget(order, test, table)
    _show(choice, str(traces))
    if out is not None and choice.best.budget > 0:
        nodes = order[: choice.best.budget]
        values = {"search": predict(nodes, anchors).row(), "test": predict(nodes, test).row()}
        provenance = {
            "tool": "draftgraph",
            "tool_version": tool_version(),
            "search": method,
            "budget": choice.best.budget,
            "trace_hash": found.trace_hash(),
            "predicted_speedup": choice.best.speedup,
        }
        graph = DraftGraph.from_formulas(nodes, step_size)
        save_graph(graph.to_graph_file(valid, provenance, values, table.graph_section()), out)
        write_json(out.with_suffix(".budget.json"), {"rows": [asdict(row) for row in choice.rows]})
        cli.console.print(f"graph   [bold]{out}[/]")
    elif out is not None:
        cli.console.print("no graph is written: plain decoding is the best budget")


def _show(choice: BudgetChoice, title: str) -> None:
    shown = cli.plain_table(
        title, {"D": "right", "forwards": "right", "ms each": "right", "speed-up": "right", "95 % interval": "right"}
    )
    for row in choice.rows:
        mark = "[bold]" if row is choice.best else ""
        shown.add_row(
            f"{mark}{row.budget}", str(row.forwards), f"{row.latency:.2f}", f"{mark}{row.speedup:.2f}",
            f"{row.speedup_low:.2f}-{row.speedup_high:.2f}",
        )  # fmt: skip
    cli.console.print(shown)
    cli.console.print(choice.sentence)
