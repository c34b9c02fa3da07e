"""``memory``: how much a decode needs at its peak, predicted from the model's sizes before anything is run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli import options, printing
from studies.cli.checkpoints import shaped_checkpoint
from studies.cli.drafters import GRAPH, INFORMED
from studies.cli.guard import command
from studies.cli.lists import parse_list

if TYPE_CHECKING:
    from calibrate.measuring.memory import ModelSizes


@command()
def memory_command(
    model: options.ShapedModelOption = "bundled",
    drafter: Annotated[
        str,
        typer.Option(
            "--drafter", help="graph, or informed, which needs room for bridges where the cache is block_causal."
        ),
    ] = GRAPH,
    drafts: Annotated[str, typer.Option("--drafts", help="Numbers of drafts, 0-16 or 0,4,10.")] = "0,1,2,4,8,10,16",
    context_length: Annotated[
        str, typer.Option("--context-length", help="Cached positions before the block, one or several.")
    ] = ("256,1024,4096"),
    batch_size: Annotated[str, typer.Option("--batch-size", help="Sequences per forward, one or several.")] = "1",
    block_length: options.BlockLengthOption = None,
    available: Annotated[
        float | None, typer.Option("--available", help="GiB of the device. [default: what --device has, if it is here]")
    ] = None,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
) -> None:
    """Predict the peak memory of a decode, and the largest budget that fits.

    Nothing is run, and no GPU is needed: --device cuda --available 80 predicts for one that is not here, and a shape
    (--model llada-8b-shaped) without its weights.
    """
    import torch

    from calibrate.measuring.memory import GIB, MOST_DRAFTS, Load, largest_drafts, predict_memory
    from verify.files.quoting import quoted

    if drafter not in (GRAPH, INFORMED):
        raise ValueError(f"unknown drafter {quoted(drafter)}, expected {GRAPH} or {INFORMED}")
    batches = parse_list(batch_size, int, "--batch-size", "1,4,16", least=1)
    lengths = parse_list(context_length, int, "--context-length", "256,1024", least=1)
    numbers = parse_list(drafts, int, "--drafts", least=0)
    if available is not None and not available > 0:
        raise ValueError(f"--available must be above 0 GiB, got {available:g}")
    room = round(available * GIB) if available is not None else _device_memory(device)
    kind = torch.device(device).type
    name, sizes, trained, cache = _sizes(model, dtype, kind, mask_token_id, revision)
    block_length = block_length or trained
    bridges = drafter == INFORMED and cache == "block_causal"
    loads = [Load(size, length, 0, block_length, cache, bridges=bridges) for length in lengths for size in batches]
    has = "" if room is None else f"; the device has {room / GIB:.1f} GiB"
    shown = printing.plain_table(
        f"{name}, predicted for a {kind.upper()}{' device' if kind == 'cuda' else ''}, {dtype}, "
        f"block length {block_length}",
        {"cache": "right", "batch": "right", "D": "right", "GiB\npredicted": "right", "peak is made by": "left"},
        f"weights {sizes.parameters * sizes.itemsize / GIB:.2f} GiB{has}",
    )
    shown.columns[-1].no_wrap = True
    for load in loads:
        for number in numbers:
            plan = predict_memory(sizes, replace(load, drafts=number))
            mark = printing.yellow if room is not None and plan.peak > room else str
            cells = str(load.context_length), str(load.batch), str(number), mark(f"{plan.peak / GIB:.2f}")
            shown.add_row(*cells, plan.widest)
    printing.show(shown)
    if kind == "cpu":
        printing.say("This is predicted for a CPU; --device cuda predicts for a GPU, also where there is none.")
    if room is None:
        printing.say(
            f"No {kind.upper()} device is here to ask for its memory; give --available GIB to see what fits.",
        )
        return
    for load in loads:
        most = largest_drafts(sizes, load, room)
        fits = "not even plain decoding fits" if most is None else f"the largest budget that fits is D = {most}"
        or_more = " or more" if most == MOST_DRAFTS else ""
        printing.say(f"context {load.context_length}, batch {load.batch}: {fits}{or_more}")


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


def _sizes(
    model: str, dtype: str, kind: str, mask_token_id: int | None, revision: str | None
) -> tuple[str, ModelSizes, int, str]:
    """Name, sizes, block length and cache mode of a model; a checkpoint is read on the CPU, whatever the device."""
    from calibrate.measuring.memory import ModelSizes
    from calibrate.models.checkpoint import DTYPES
    from calibrate.models.settings import DEFAULT_BLOCK_LENGTH, DEFAULT_CACHE, decode_settings
    from calibrate.models.shapes import SHAPES

    if model in SHAPES:
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
        shape = SHAPES[model]
        sizes = ModelSizes.of_config(shape.native(), shape.parameters(), DTYPES[dtype].itemsize, kind)
        cache = "block_causal" if shape.attention == "block_causal" else DEFAULT_CACHE
        return model, sizes, DEFAULT_BLOCK_LENGTH, cache
    checkpoint = shaped_checkpoint(model, dtype, "cpu", mask_token_id, revision)
    config = decode_settings(checkpoint).config
    sizes = replace(ModelSizes.of_denoiser(checkpoint.denoiser), device=kind)
    return checkpoint.name, sizes, config.block_length, config.cache
