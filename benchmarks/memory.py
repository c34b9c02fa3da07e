"""Predicted peaks of memory against measured ones, in bytes.

On CUDA the measured peak is the allocator's own. On a CPU it is the running sum of what torch's profiler saw allocated
and freed, on top of the weights; temporaries inside kernels are in both.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from calibrate.measuring.memory import Load, ModelSizes, is_out_of_memory, predict_memory
from calibrate.measuring.stage import Stage
from calibrate.models.checkpoint import Checkpoint


def peaks(checkpoint: Checkpoint, loads: Iterable[Load]) -> list[dict[str, Any]]:
    """One row per load: what is decoded at a time, ``predicted``, ``held`` and ``measured`` bytes, ``widest`` (the
    moment that makes the predicted peak) and ``error``, (predicted - measured) / measured. A load that runs out of
    memory has no measured peak, and a note."""
    sizes = ModelSizes.of_denoiser(checkpoint.denoiser)
    rows = []
    for load in loads:
        plan = predict_memory(sizes, load)
        measured = measured_peak(checkpoint, load)
        rows.append(
            {
                "context_length": load.context_length,
                "batch": load.batch,
                "drafts": load.drafts,
                "predicted": plan.peak,
                "held": sum(plan.held.values()),
                "widest": plan.widest,
                "measured": measured,
                "note": "out of memory" if measured is None else "",
                "error": None if measured is None else plan.peak / measured - 1,
            }
        )
    return rows


def measured_peak(checkpoint: Checkpoint, load: Load) -> int | None:
    """Bytes at the peak of the forwards of a load, the weights included; None when they run out of memory."""

    def decode() -> None:
        stage = Stage(checkpoint, load.block_length, load.context_length, load.batch, "packed", load.drafts, "slots")
        stage.refresh()
        stage.step(load.drafts, load.block_length)  # all positions masked: the step that needs most

    try:
        return peak_bytes(decode, checkpoint)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, whose traceback holds the tensors of what did not fit.
    gc.collect()
    if checkpoint.denoiser.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


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
