"""``memory``: how much a decode needs at its peak, predicted from the model's sizes, and measured where asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli import options, printing
from studies.cli.checkpoints import shaped_checkpoint
from studies.cli.guard import command
from studies.cli.lists import parse_drafts, parse_loads
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from studies.pricing.memory import MemoryStudy


@command()
def memory_command(
    model: options.ShapedModelOption = "bundled",
    drafts: Annotated[str, typer.Option("--drafts", help="Numbers of drafts, 0-16 or 0,4,10.")] = "0,1,2,4,8,10,16",
    context_length: Annotated[str, typer.Option("--context-length", help="Cached rows, one or several.")] = (
        "256,1024,4096"
    ),
    batch: Annotated[str, typer.Option("--batch", help="Sequences per forward, one or several.")] = "1",
    block_length: options.BlockLengthOption = 32,
    available: Annotated[
        float | None, typer.Option("--available", help="GiB of the device. [default: what --device has, if it is here]")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run the forwards and measure the peak too.")] = False,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the table as JSON.")] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Predict the peak memory of a decode, and the largest budget that fits.

    A prediction needs no GPU: --device cuda --available 80 predicts for one that is not here, and a shape (--model
    llada-8b-shaped) without its weights. With --measure the forwards are run on --device.
    """
    import torch

    from calibrate.measuring.memory import GIB
    from calibrate.progress import RichReporter
    from studies.pricing.memory import save_memory, study_checkpoint

    batches, lengths = parse_loads(batch, context_length)
    loads: dict[str, Any] = {
        "drafts": parse_drafts(drafts), "context_lengths": lengths, "batches": batches, "block_length": block_length,
    }  # fmt: skip
    if available is not None and not available > 0:
        raise ValueError(f"--available must be above 0 GiB, got {available:g}")
    budget = round(available * GIB) if available is not None else None
    if budget is None and not measure:
        budget = _device_memory(device)
        if budget is None and out is not None:
            raise ValueError(f"there is no device {device!r} here to ask for its memory; --out needs --available GIB")
    if out is not None:
        check_output(out, overwrite)
    if measure:
        checkpoint = shaped_checkpoint(model, dtype, device, mask_token_id, revision)
        study = study_checkpoint(checkpoint, available=budget, reporter=RichReporter(printing.console), **loads)
    else:
        study = _predict(model, dtype, device, mask_token_id, revision, available=budget, **loads)
    _show(study, torch.device(device).type)
    if out is not None:
        save_memory(study, out)
        printing.console.print(f"[bold]{out}[/]")


def _device_memory(device: str) -> int | None:
    """Bytes of memory of a device; None for a CUDA device that is not here.

    Raises:
        ValueError: no name of a device.
    """
    import torch

    from calibrate.measuring.memory import device_memory

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}, expected for example cpu or cuda") from error
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        return None
    return device_memory(device)


def _predict(
    model: str, dtype: str, device: str, mask_token_id: int | None, revision: str | None, **options: Any
) -> MemoryStudy:
    """The study of a model from its sizes alone; a checkpoint is read on the CPU, whatever the device."""
    import torch

    from calibrate.measuring.memory import ModelSizes
    from calibrate.models.checkpoint import DTYPES
    from calibrate.models.shapes import SHAPES
    from studies.pricing.memory import study_memory

    kind = torch.device(device).type
    if model in SHAPES:
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
        shape = SHAPES[model]
        sizes = ModelSizes.of_config(shape.native(), shape.parameters(), DTYPES[dtype].itemsize, kind)
        attention: tuple[str, ...] = (shape.attention,)
    else:
        checkpoint = shaped_checkpoint(model, dtype, "cpu", mask_token_id, revision)
        sizes = replace(ModelSizes.of_denoiser(checkpoint.denoiser), device=kind)
        model, attention = checkpoint.name, checkpoint.attention
    cache = "block_causal" if attention == ("block_causal",) else "dual"
    return study_memory(sizes, model=model, dtype=dtype, device=kind, cache=cache, **options)


def _show(study: MemoryStudy, kind: str) -> None:
    """Print the table; ``kind`` is that of the device, as torch calls it."""
    from calibrate.measuring.memory import GIB, MOST_DRAFTS

    measured = any(row.measured is not None or row.note for row in study.rows)
    headings = {"cache": "right", "batch": "right", "D": "right", "GiB\npredicted": "right"}
    if measured:
        headings |= {"measured": "right", "error": "right"}
    has = "" if study.available is None else f"; the device has {study.available / GIB:.1f} GiB"
    device = study.device if measured else f"predicted for a {kind.upper()}{' device' if kind == 'cuda' else ''}"
    shown = printing.plain_table(
        f"{study.model}, {device}, {study.dtype}, block length {study.block_length}",
        {**headings, "peak is made by": "left"},
        f"weights {study.weights / GIB:.2f} GiB{has}",
    )
    shown.columns[-1].no_wrap = True
    for row in study.rows:
        cells = [str(row.context_length), str(row.batch), str(row.drafts), f"{row.predicted / GIB:.2f}"]
        if study.available is not None and row.predicted > study.available:
            cells[-1] = f"[yellow]{cells[-1]}[/]"
        if measured:
            cells.append(row.note or ("" if row.measured is None else f"{row.measured / GIB:.2f}"))
            cells.append("" if row.error is None else f"{100 * row.error:+.1f} %")
        shown.add_row(*cells, row.widest)
    printing.console.print(shown)
    if not measured and kind == "cpu":
        printing.console.print(
            "This is predicted for a CPU; --device cuda predicts for a GPU, also where there is none.", highlight=False
        )
    if study.available is None:
        printing.console.print(
            f"No {kind.upper()} device is here to ask for its memory; give --available GIB to see what fits.",
            highlight=False,
        )
    for length, batch, drafts in study.largest:
        fits = "not even plain decoding fits" if drafts is None else f"the largest budget that fits is D = {drafts}"
        if drafts == MOST_DRAFTS:
            fits += " or more"
        printing.console.print(f"context {length}, batch {batch}: {fits}", highlight=False)
