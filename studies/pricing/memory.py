"""Predicted and measured peak memory of a decode, per context length and number of drafts.

On CUDA the measured peak is the allocator's own. On a CPU it is the running sum of what torch's profiler saw allocated
and freed, on top of the weights; temporaries inside kernels are in both.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from calibrate.files import write_json
from calibrate.measuring.latency import device_name
from calibrate.measuring.memory import (
    Load,
    ModelSizes,
    device_memory,
    is_out_of_memory,
    largest_drafts,
    predict_memory,
)
from calibrate.measuring.stage import Stage
from calibrate.models.checkpoint import Checkpoint
from calibrate.progress import Reporter, SilentReporter
from calibrate.version import tool_version

MEMORY_FORMAT = "draftgraph-memory"
MEMORY_VERSION = 1


@dataclass(frozen=True)
class MemoryRow:
    """One load.

    Attributes:
        context_length, batch, drafts: what is decoded at a time.
        predicted: bytes at the peak.
        held: predicted bytes held all the time.
        widest: which moment makes the predicted peak.
        measured: bytes at the peak, None where it was not measured.
        note: why not.
    """

    context_length: int
    batch: int
    drafts: int
    predicted: int
    held: int
    widest: str
    measured: int | None = None
    note: str = ""

    @property
    def error(self) -> float | None:
        """(predicted - measured) / measured."""
        return None if self.measured is None else self.predicted / self.measured - 1


@dataclass(frozen=True)
class MemoryStudy:
    """Rows and what they are of.

    Attributes:
        model, device, dtype, block_length, cache: what was predicted for and measured.
        weights: bytes.
        available: bytes that the device has, or the figure given instead; None where neither is known.
        rows: per context length, batch and number of drafts.
        largest: (context length, batch, the largest budget predicted to fit, None when none does); empty where
            ``available`` is None.
    """

    model: str
    device: str
    dtype: str
    block_length: int
    cache: str
    weights: int
    available: int | None
    rows: tuple[MemoryRow, ...]
    largest: tuple[tuple[int, int, int | None], ...]


def study_memory(
    sizes: ModelSizes,
    *,
    model: str,
    dtype: str,
    device: str,
    cache: str,
    available: int | None,
    drafts: Sequence[int] = (0, 1, 2, 4, 8, 16),
    context_lengths: Sequence[int] = (256, 1024, 4096),
    batches: Sequence[int] = (1,),
    block_length: int = 32,
    checkpoint: Checkpoint | None = None,
    reporter: Reporter | None = None,
) -> MemoryStudy:
    """Predict peaks, and measure them where there is a model.

    Args:
        sizes: of the model.
        model, dtype, device, cache: what to write of it.
        available: bytes that the device has; None says nothing about what fits.
        drafts, context_lengths, batches: loads, all combinations.
        block_length: ``L``.
        checkpoint: measures too; None predicts only.
        reporter: shows progress.

    Returns:
        the study; a load that runs out of memory has a note in place of a measured peak.
    """
    loads = [
        Load(batch, length, draft, block_length, cache)
        for length in context_lengths
        for batch in batches
        for draft in drafts
    ]
    rows = []
    with (reporter or SilentReporter()).task("measure memory" if checkpoint else "predict memory", len(loads)) as done:
        for number, load in enumerate(loads):
            plan = predict_memory(sizes, load)
            measured, note = None, ""
            if checkpoint is not None:
                measured, note = _measured(checkpoint, load)
            rows.append(
                MemoryRow(
                    load.context_length,
                    load.batch,
                    load.drafts,
                    plan.peak,
                    sum(plan.held.values()),
                    plan.widest,
                    measured,
                    note,
                )
            )
            done(number + 1)
    largest = tuple(
        (length, batch, largest_drafts(sizes, Load(batch, length, 0, block_length, cache), available))
        for length in context_lengths
        for batch in batches
        if available is not None
    )
    return MemoryStudy(
        model, device, dtype, block_length, cache, sizes.parameters * sizes.itemsize, available, tuple(rows), largest
    )


def study_checkpoint(
    checkpoint: Checkpoint, *, measure: bool = True, available: int | None = None, **options: Any
) -> MemoryStudy:
    """:func:`study_memory` of a model that is there, measured on its device unless ``measure`` is off."""
    device = checkpoint.denoiser.device
    cache = "block_causal" if checkpoint.attention == ("block_causal",) else "dual"
    return study_memory(
        ModelSizes.of_denoiser(checkpoint.denoiser), model=checkpoint.name, dtype=checkpoint.dtype,
        device=device_name(device), cache=cache, checkpoint=checkpoint if measure else None,
        available=device_memory(device) if available is None else available, **options,
    )  # fmt: skip


def _measured(checkpoint: Checkpoint, load: Load) -> tuple[int | None, str]:
    def decode() -> None:
        stage = Stage(checkpoint, load.block_length, load.context_length, load.batch, "packed", load.drafts, "slots")
        stage.refresh()
        stage.step(load.drafts, load.block_length)  # all positions masked: the step that needs most

    try:
        return peak_bytes(decode, checkpoint), ""
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, whose traceback holds the tensors of what did not fit.
    gc.collect()
    if checkpoint.denoiser.device.type == "cuda":
        torch.cuda.empty_cache()
    return None, "out of memory"


def peak_bytes(run: Callable[[], object], checkpoint: Checkpoint) -> int:
    """Bytes allocated at the peak of ``run``, the model's weights included."""
    device = checkpoint.denoiser.device
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    with _no_notes(), profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        run()
    running = peak = 0
    for event in sorted(_allocations(seen), key=lambda pair: pair[0]):
        running += event[1]
        peak = max(peak, running)
    weights = sum(weight.nbytes for weight in checkpoint.denoiser.model.parameters())
    return weights + peak


@contextmanager
def _no_notes() -> Iterator[None]:
    """Without the two lines that the profiler's library writes to stderr, whatever it is told."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _allocations(seen: Any) -> list[tuple[int, int]]:
    """(nanoseconds, bytes, negative when freed) of every allocation that a profile saw."""
    return [
        (event.start_ns(), event.nbytes())
        for event in seen.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU
    ]


def save_memory(study: MemoryStudy, path: str | Path) -> None:
    """Write a study as JSON."""
    facts = asdict(study)
    facts["largest"] = [
        {"context_length": length, "batch": batch, "drafts": drafts} for length, batch, drafts in study.largest
    ]
    write_json(
        path, {"format": MEMORY_FORMAT, "version": MEMORY_VERSION, "tool_version": tool_version(), "unit": "bytes"}
        | facts,
    )  # fmt: skip
