"""``latency``: what a draft costs on this device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli import options, printing
from studies.cli.checkpoints import shaped_checkpoint
from studies.cli.drafters import GRAPH, INFORMED
from studies.cli.guard import command
from studies.cli.lists import parse_list
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from calibrate.measuring.latency_table import LatencyTable


@command()
def latency_command(
    out: Annotated[
        Path, typer.Option("--out", help="The latency file to write; for several tables the folder for them.")
    ],
    model: options.ShapedModelOption = "bundled",
    drafts: Annotated[str, typer.Option("--drafts", help="Numbers of drafts, 0-16 or 0,1,2,4,8.")] = "0-16",
    drafter: Annotated[
        str,
        typer.Option("--drafter", help="graph; or informed: also what their bridges can make of as many drafts."),
    ] = "graph",
    block_length: options.BlockLengthOption = None,
    context_length: Annotated[
        str, typer.Option("--context-length", help="Cached positions before the block; 256,1024 for two tables.")
    ] = ("128"),
    batch_size: Annotated[str, typer.Option("--batch-size", help="Sequences per forward; 1,4 for two tables.")] = "1",
    cache: Annotated[
        str | None,
        typer.Option("--cache", help="dual or block_causal, as the traces were recorded. [default: what it is for]"),
    ] = None,
    backend: options.BackendOption = "packed",
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="Timed forwards per entry.")] = 15,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
    compiled: options.CompileOption = False,
    cuda_graphs: options.GraphsOption = False,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Measure forward time against the number of drafts on this device.

    Several batches or context lengths give a table each, in OUT/batch-B-context-C.json; what does not fit into the
    device's memory is left out with a note that says what would fit. With --drafter informed and block_causal cache
    also forwards as wide as those whose every draft is a bridge, which takes two blocks of rows.
    """
    from calibrate.measuring.latency import measure_latency
    from calibrate.models.checkpoint import check_cuda_graphs
    from calibrate.models.settings import decode_settings
    from calibrate.progress import RichReporter
    from figures.records.record import save_record
    from verify.files.quoting import quoted

    if drafter not in (GRAPH, INFORMED):
        raise ValueError(f"unknown drafter {quoted(drafter)}, expected {GRAPH} or {INFORMED}")
    check_cuda_graphs(device, cuda_graphs)
    numbers = parse_list(drafts, int, "--drafts", least=0)
    batches = parse_list(batch_size, int, "--batch-size", "1,4,16", least=1)
    caches = parse_list(context_length, int, "--context-length", "256,1024", least=1)
    pairs = [(size, length) for size in batches for length in caches]
    paths = [out] if len(pairs) == 1 else [out / f"batch-{size}-context-{length}.json" for size, length in pairs]
    if len(pairs) > 1 and out.is_file():
        raise ValueError(f"{out} is a file, but {len(pairs)} tables need a folder; give another --out")
    for path in paths:
        check_output(path, overwrite)
    checkpoint = shaped_checkpoint(model, dtype, device, mask_token_id, revision)
    checkpoint.denoiser.compile_backend = "inductor" if compiled else None
    checkpoint.denoiser.cuda_graphs = cuda_graphs
    settings = decode_settings(checkpoint, block_length=block_length, cache=cache)
    printing.say(settings.note)
    if drafter == INFORMED and settings.config.cache == "block_causal":
        numbers = with_bridges(numbers)
    for (size, length), path in zip(pairs, paths, strict=True):
        try:
            table = measure_latency(
                checkpoint, drafts=numbers, block_length=settings.config.block_length, context_length=length,
                batch=size, cache=settings.config.cache, backend=backend, repeats=repeats,
                reporter=RichReporter(printing.console),
            )  # fmt: skip
        except MemoryError as error:
            if len(pairs) == 1:
                raise
            printing.say(printing.yellow(f"batch {size}, context {length} is left out: "), str(error))
            continue
        save_record(table, path)
        show_latency(table)
        printing.say(printing.bold(path))


def with_bridges(drafts: Sequence[int]) -> tuple[int, ...]:
    """``drafts``, and the widths that bridges lead to: two blocks each, and a finished block that is cached beside."""
    most = max(drafts)
    return tuple(sorted({*drafts, *range(most + 1, 2 * most + 2)}))


def show_latency(table: LatencyTable) -> None:
    """Print a table, with every time also as a multiple of the plain one."""
    shown = printing.plain_table(
        f"{table.model}, {table.device}, {table.dtype}, batch {table.batch}, context {table.context_length}, "
        f"{table.backend}",
        {"D": "right", "query tokens": "right", "ms": "right", "quartiles": "right", "x plain": "right"},
        f"median of {table.repeats} forwards; a refresh forward takes {table.refresh:.2f} ms",
    )
    for entry, tokens, median, low, high in zip(
        table.drafts, table.query_tokens, table.latency, table.low, table.high, strict=True
    ):
        relative = f"{median / table.latency[0]:.2f}"
        shown.add_row(str(entry), str(tokens), f"{median:.2f}", f"{low:.2f}-{high:.2f}", relative)
    printing.show(shown)
    if table.note:
        printing.say(printing.yellow(table.note))
