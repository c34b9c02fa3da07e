"""Measuring latency tables: every number of drafts, in rounds, through the engine that decodes."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from calibrate.measuring.latency_table import LatencyError, LatencyTable
from calibrate.measuring.memory import Load, ModelSizes, device_memory, is_out_of_memory, out_of_memory_message
from calibrate.measuring.stage import Stage
from calibrate.models.checkpoint import Checkpoint
from calibrate.progress import Reporter, SilentReporter
from verify.layout import BACKENDS

#: A refresh takes long and is needed less exactly than a step: it is timed in so many rounds at most.
_REFRESH_ROUNDS = 5


def measure_latency(
    checkpoint: Checkpoint,
    *,
    drafts: Sequence[int] = tuple(range(17)),
    block_length: int = 32,
    context_length: int = 128,
    batch: int = 1,
    backend: str = "packed",
    engine: str | None = None,
    warmup: int = 3,
    repeats: int = 15,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
    cache: str | None = None,
    reporter: Reporter | None = None,
) -> LatencyTable:
    """Measure forward time against the number of drafts on the checkpoint's device.

    Args:
        checkpoint: the model; its dtype and device are those measured.
        drafts: numbers of drafts; 0 is always measured.
        block_length: rows per block.
        context_length: cached rows, for example prompt and finished blocks; under block-causal attention brought up to
            whole blocks.
        batch: sequences per forward; each has its own drafts, all share one shape.
        backend: ``packed`` or ``expanded``.
        engine: ``slots`` or ``rows``; by default the one that decodes.
        warmup: untimed rounds (compilation, caches).
        repeats: timed forwards per entry.
        seconds: stop after the round that passes this, at least 3 timed rounds done; None does all.
        cache: ``dual`` or ``block_causal``; by default block-causal for a model that is nothing else.
        clock: seconds; on a CPU that others use too, ``time.process_time`` is steadier.
        reporter: shows progress.

    Returns:
        the table. When the device runs out of memory it holds the numbers of drafts that fitted, and a note names
        the first that did not.

    Raises:
        LatencyError: a number below its least value, or a back-end or engine that is not known.
        MemoryError: not even the context and one block without drafts fit; says what would.
    """
    for name, value, least in (
        ("block length", block_length, 1), ("context length", context_length, 1), ("batch", batch, 1),
        ("repeats", repeats, 3), ("warmup", warmup, 0), ("drafts", min(drafts, default=-1), 0),
    ):  # fmt: skip
        if value < least:
            raise LatencyError(f"{name} must be at least {least}, got {value}")
    for name, chosen, known in (("back-end", backend, BACKENDS), ("engine", engine or "slots", ("slots", "rows"))):
        if chosen not in known:
            raise LatencyError(f"unknown {name} {chosen!r}, expected one of {', '.join(known)}")
    reporter = reporter or SilentReporter()
    where = f"batch {batch}, context {context_length}, block length {block_length}"
    numbers = sorted({0, *drafts})
    stage, entries = _stage(checkpoint, block_length, context_length, batch, backend, numbers, engine, clock, cache)
    note = _note(numbers, entries, where)
    times: dict[int, list[float]] = {entry: [] for entry in entries}
    refresh: list[float] = []
    begin = time.perf_counter()
    with reporter.task("measure latency", warmup + repeats) as advance_to:
        for turn in range(warmup + repeats):
            late = seconds is not None and time.perf_counter() - begin > seconds / 2
            if turn < 2 or (turn < warmup + _REFRESH_ROUNDS and not late):
                refresh.append(stage.refresh())
            for entry in entries:
                try:
                    times[entry].append(stage.step(entry))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    if entry == 0:
                        raise _nothing_fits(checkpoint, block_length, context_length, batch) from error
                    # What fits is worth keeping; a table that ends earlier still prices every budget in it.
                    entries = [smaller for smaller in entries if smaller < entry]
                    note = _note(numbers, entries, where)
                    _free(checkpoint)
                    break
            advance_to(turn + 1)
            if seconds is not None and turn >= warmup + 2 and time.perf_counter() - begin > seconds:
                break
    kept = {entry: times[entry][min(warmup, len(times[entry]) - 3) :] for entry in entries}
    quartiles = {entry: statistics.quantiles(kept[entry], n=4) for entry in entries}
    return LatencyTable(
        device=device_name(checkpoint.denoiser.device),
        dtype=checkpoint.dtype,
        model=checkpoint.name,
        backend=backend,
        block_length=block_length,
        context_length=stage.context_length,
        batch=batch,
        drafts=tuple(entries),
        query_tokens=tuple(batch * block_length * (1 + entry) for entry in entries),
        latency=tuple(statistics.median(kept[entry]) for entry in entries),
        low=tuple(quartiles[entry][0] for entry in entries),
        high=tuple(quartiles[entry][2] for entry in entries),
        refresh=statistics.median(refresh[min(warmup, len(refresh) - 1) :]),
        repeats=len(kept[0]),
        note=note,
        cache=stage.cache,
        engine=stage.engine_name,
    )


def _stage(
    checkpoint: Checkpoint,
    block_length: int,
    context_length: int,
    batch: int,
    backend: str,
    entries: list[int],
    engine: str | None,
    clock: Callable[[], float],
    cache: str | None,
) -> tuple[Stage, list[int]]:
    """A stage with room for as many of ``entries`` as the device takes, and these.

    Raises:
        MemoryError: not even 0 drafts fit.
    """
    fits, fails = 0, len(entries) + 1  # how many entries are known to fit, and the fewest known not to
    count = len(entries)
    while True:
        try:
            stage = Stage(
                checkpoint, block_length, context_length, batch, backend, entries[count - 1], engine, clock, cache
            )
            stage.refresh()
            fits = count
            if fits + 1 == fails or count == len(entries):
                return stage, entries[:count]
            del stage
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if count == 1:
                raise _nothing_fits(checkpoint, block_length, context_length, batch) from error
            fails = count
        _free(checkpoint)  # outside the handler, whose traceback holds the tensors of what did not fit
        count = max(1, (fits + fails) // 2) if fits + 1 < fails else fits


def _note(numbers: Sequence[int], entries: Sequence[int], where: str) -> str:
    if len(entries) == len(numbers):
        return ""
    return (
        f"{numbers[len(entries)]} drafts do not fit into the device's memory at {where}; the largest measured number "
        f"that fits is {entries[-1]}"
    )


def _nothing_fits(checkpoint: Checkpoint, block_length: int, context_length: int, batch: int) -> MemoryError:
    sizes = ModelSizes.of_denoiser(checkpoint.denoiser)
    load = Load(batch, context_length, 0, block_length)
    message = out_of_memory_message(sizes, load, device_memory(checkpoint.denoiser.device))
    return MemoryError(f"not even plain decoding fits into the device's memory: {message}")


def _free(checkpoint: Checkpoint) -> None:
    """Give back what a forward that did not fit left in the allocator."""
    if checkpoint.denoiser.device.type == "cuda":
        torch.cuda.empty_cache()


def device_name(device: torch.device) -> str:
    """What to call a device in a table: the GPU's own name, or the processor with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{device.type} {processor}, {threads} thread{'s' if threads > 1 else ''}"
