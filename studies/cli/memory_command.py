"""``memory``: how much a decode needs at its peak, predicted from the model's sizes, and measured where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibrate.checkpoints import DTYPES
from calibrate.memory import GIB, MOST_DRAFTS, ModelSizes, device_memory
from calibrate.shapes import SHAPES
from studies.cli import app as cli
from studies.cli.latency_command import ShapedModelOption, parse_drafts, shaped_checkpoint
from studies.memory import MemoryStudy, save_memory, study_checkpoint, study_memory
from studies.progress import RichReporter


@cli.command("memory")
def memory_command(
    model: ShapedModelOption = "bundled",
    drafts: Annotated[str, typer.Option("--drafts", help="Numbers of drafts, 0-16 or 0,4,10.")] = "0,1,2,4,8,10,16",
    context_length: Annotated[str, typer.Option("--context-length", help="Frozen rows, one or several.")] = (
        "256,1024,4096"
    ),
    batch: Annotated[str, typer.Option("--batch", help="Sequences per forward, one or several.")] = "1",
    block_length: cli.BlockLengthOption = 32,
    available: Annotated[
        float | None, typer.Option("--available", min=0.0, help="GiB of the device. [default: what --device has]")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run the forwards and measure the peak too.")] = False,
    dtype: cli.DtypeOption = "float32",
    device: cli.DeviceOption = "cpu",
    revision: cli.RevisionOption = None,
    mask_token_id: cli.MaskOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the table as JSON.")] = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Predict the peak memory of a decode, and the largest budget that fits.

    A shape (--model llada-8b-shaped) is predicted without its weights, and for a GPU that is not here: --device cuda
    --available 80. With --measure the forwards are run on --device.
    """
    if out is not None:
        cli.check_output(out, overwrite)
    loads = {
        "drafts": parse_drafts(drafts),
        "context_lengths": cli.parse_list(context_length, int, "--context-length"),
        "batches": cli.parse_list(batch, int, "--batch"),
        "block_length": block_length,
        "reporter": RichReporter(cli.console),
    }
    if model in SHAPES and not measure:
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
        if available is None:
            available = device_memory(device) / GIB
        shape = SHAPES[model]
        kind = device.partition(":")[0]
        sizes = ModelSizes.of_config(shape.native(), shape.parameters(), DTYPES[dtype].itemsize, kind)
        context = "block_causal" if shape.attention == "block_causal" else "dual"
        study = study_memory(
            sizes, model=model, dtype=dtype, device=kind, context=context, available=round(available * GIB),
            **loads,  # type: ignore[arg-type]
        )  # fmt: skip
    else:
        checkpoint = shaped_checkpoint(model, dtype, device, mask_token_id, revision)
        budget = None if available is None else round(available * GIB)
        study = study_checkpoint(checkpoint, measure=measure, available=budget, **loads)
    _show(study)
    if out is not None:
        save_memory(study, out)
        cli.console.print(f"[bold]{out}[/]")


def _show(study: MemoryStudy) -> None:
    shown = cli.plain_table(
        f"{study.model}, {study.device}, {study.dtype}, block length {study.block_length}",
        {"context": "right", "batch": "right", "D": "right", "GiB predicted": "right", "measured": "right",
         "error": "right", "peak is made by": "left"},
        f"weights {study.weights / GIB:.2f} GiB; the device has {study.available / GIB:.1f} GiB",
    )  # fmt: skip
    for row in study.rows:
        measured = row.note or ("" if row.measured is None else f"{row.measured / GIB:.2f}")
        error = "" if row.error is None else f"{100 * row.error:+.1f} %"
        mark = "[yellow]" if row.predicted > study.available else ""
        shown.add_row(
            str(row.context_length), str(row.batch), str(row.drafts), f"{mark}{row.predicted / GIB:.2f}", measured,
            error, row.widest,
        )  # fmt: skip
    cli.console.print(shown)
    for length, batch, drafts in study.largest:
        fits = "not even plain decoding fits" if drafts is None else f"the largest budget that fits is D = {drafts}"
        if drafts == MOST_DRAFTS:
            fits += " or more"
        cli.console.print(f"context {length}, batch {batch}: {fits}", highlight=False)
