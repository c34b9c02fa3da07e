"""``latency``: what a draft costs on this device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibrate.measuring.latency import measure_latency
from calibrate.measuring.latency_table import LatencyTable
from calibrate.models.checkpoint import Checkpoint, check_cuda_graphs, load_checkpoint
from calibrate.models.shapes import SHAPES, shape
from calibrate.progress import RichReporter
from studies.cli import app as cli
from studies.pricing.latency import save_latency


def parse_drafts(text: str) -> tuple[int, ...]:
    """``0-16`` or ``0,1,2,4,8``, none below 0; raises ``ValueError`` otherwise."""
    low, dash, high = text.partition("-")
    if dash and low.strip().isdigit() and high.strip().isdigit():
        if int(low) > int(high):
            raise ValueError(f"--drafts: {text!r} runs backwards; write {high.strip()}-{low.strip()}")
        return tuple(range(int(low), int(high) + 1))
    return cli.parse_list(text, int, "--drafts", "0-16 or 0,4,10", least=0)


def parse_loads(batch: str, context_length: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The lists of ``--batch`` and ``--context-length``, none below 1; raises ``ValueError`` otherwise."""
    return (
        cli.parse_list(batch, int, "--batch", "1,4,16", least=1),
        cli.parse_list(context_length, int, "--context-length", "256,1024", least=1),
    )


ShapedModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="'bundled', a local folder in Hugging Face layout, a hub id, or a shape with random weights: "
        f"{', '.join(SHAPES)}.",
    ),
]


def shaped_checkpoint(
    model: str, dtype: str, device: str, mask_token_id: int | None = None, revision: str | None = None
) -> Checkpoint:
    """A checkpoint, or random weights of the shape called ``model``; errors as those of loading.

    Raises:
        calibrate.models.shapes.ShapeError: ``model`` is called like a shape (``...-shaped``), and there is none.
    """
    if model in SHAPES or (model.endswith("-shaped") and "/" not in model and not Path(model).is_dir()):
        return shape(model).make(dtype=dtype, device=device)
    return load_checkpoint(model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision)


@cli.command("latency")
def latency_command(
    out: Annotated[
        Path, typer.Option("--out", help="The latency file to write; for several tables the folder for them.")
    ],
    model: ShapedModelOption = "bundled",
    drafts: Annotated[str, typer.Option("--drafts", help="Numbers of drafts, 0-16 or 0,1,2,4,8.")] = "0-16",
    block_length: cli.BlockLengthOption = 32,
    context_length: Annotated[str, typer.Option("--context-length", help="Cached rows; 256,1024 for two tables.")] = (
        "128"
    ),
    batch: Annotated[str, typer.Option("--batch", help="Sequences per forward; 1,4 for two tables.")] = "1",
    cache: Annotated[
        str | None,
        typer.Option("--cache", help="dual or block_causal, as the traces were recorded. [default: what it is for]"),
    ] = None,
    backend: cli.BackendOption = "packed",
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="Timed forwards per entry.")] = 15,
    dtype: cli.DtypeOption = "float32",
    device: cli.DeviceOption = "cpu",
    revision: cli.RevisionOption = None,
    mask_token_id: cli.MaskOption = None,
    compiled: cli.CompileOption = False,
    cuda_graphs: cli.GraphsOption = False,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Measure forward time against the number of drafts on this device.

    Several batches or context lengths give a table each, in OUT/batch-B-context-C.json; what does not fit into the
    device's memory is left out with a note that says what would fit.
    """
    check_cuda_graphs(device, cuda_graphs)
    wanted = parse_drafts(drafts)
    batches, caches = parse_loads(batch, context_length)
    pairs = [(size, length) for size in batches for length in caches]
    paths = [out] if len(pairs) == 1 else [out / f"batch-{size}-context-{length}.json" for size, length in pairs]
    if len(pairs) > 1 and out.is_file():
        raise ValueError(f"{out} is a file, but {len(pairs)} tables need a folder; give another --out")
    for path in paths:
        cli.check_output(path, overwrite)
    checkpoint = shaped_checkpoint(model, dtype, device, mask_token_id, revision)
    checkpoint.denoiser.compile_backend = "inductor" if compiled else None
    checkpoint.denoiser.cuda_graphs = cuda_graphs
    for (size, length), path in zip(pairs, paths, strict=True):
        try:
            table = measure_latency(
                checkpoint, drafts=wanted, block_length=block_length, context_length=length, batch=size,
                cache=cache, backend=backend, repeats=repeats, reporter=RichReporter(cli.console),
            )  # fmt: skip
        except MemoryError as error:
            if len(pairs) == 1:
                raise
            cli.console.print(f"[yellow]batch {size}, context {length} is left out:[/] {error}", highlight=False)
            continue
        save_latency(table, path)
        show_latency(table)
        cli.console.print(f"[bold]{path}[/]")


def show_latency(table: LatencyTable) -> None:
    """Print a table, with every time also as a multiple of the plain one."""
    shown = cli.plain_table(
        f"{table.model}, {table.device}, {table.dtype}, batch {table.batch}, context {table.context_length}, "
        f"{table.backend}",
        {"D": "right", "rows": "right", "ms": "right", "quartiles": "right", "x plain": "right"},
        f"median of {table.repeats} forwards; a refresh forward takes {table.refresh:.2f} ms",
    )
    for entry, rows, median, low, high in zip(
        table.drafts, table.query_tokens, table.latency, table.low, table.high, strict=True
    ):
        relative = f"{median / table.latency[0]:.2f}"
        shown.add_row(str(entry), str(rows), f"{median:.2f}", f"{low:.2f}-{high:.2f}", relative)
    cli.console.print(shown)
    if table.note:
        cli.console.print(f"[yellow]{table.note}[/]")
