"""What a forward pass costs on this device, against the number of draft blocks in it.

Latency against rows is a staircase: a device computes tiles, and a few more rows are free until they are not. So every
number of drafts is measured, never extrapolated. The measured forward is the runtime's own (``verify.packing``): the
block and its drafts as live rows over a frozen context, with random tokens, for no number depends on what they say.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from calibrate.checkpoints import Checkpoint
from calibrate.files import write_json
from calibrate.version import tool_version
from studies.progress import Reporter, SilentReporter
from studies.run_directory import read_json
from verify.packing import FORWARDS, Frame

LATENCY_FORMAT = "draftgraph-latency"
LATENCY_VERSION = 1


class LatencyError(ValueError):
    """A latency table that cannot be measured or read."""


@dataclass(frozen=True)
class LatencyTable:
    """Measured forward times, in milliseconds.

    Attributes:
        device, dtype, model: what was measured.
        backend: ``packed`` or ``expanded``.
        block_length: rows per block, ``L``.
        context_length: frozen rows.
        batch: sequences per forward.
        drafts: numbers of drafts ``D``, ascending, 0 first.
        rows: rows of each forward, ``batch * L * (1 + D)``.
        latency: median of ``repeats`` forwards.
        low, high: quartiles.
        refresh: median time of a block's refresh forward over ``batch * (context_length + L)`` rows.
        repeats: timed forwards per entry, in rounds over all entries, so that drift hits all alike.
    """

    device: str
    dtype: str
    model: str
    backend: str
    block_length: int
    context_length: int
    batch: int
    drafts: tuple[int, ...]
    rows: tuple[int, ...]
    latency: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    refresh: float
    repeats: int
    unit: str = "ms"

    def at(self, drafts: int) -> float:
        """Milliseconds of a forward with ``drafts`` drafts.

        Raises:
            LatencyError: it was not measured; nothing is interpolated, as a staircase has no slope.
        """
        if drafts not in self.drafts:
            raise LatencyError(
                f"no latency was measured for {drafts} drafts, only for {list(self.drafts)}; measure with --drafts"
            )
        return self.latency[self.drafts.index(drafts)]

    def graph_section(self) -> dict[str, Any]:
        """The table as graph files hold it (docs/graph-format.md)."""
        said = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}


def measure_latency(
    checkpoint: Checkpoint,
    *,
    drafts: Sequence[int] = tuple(range(17)),
    block_length: int = 32,
    context_length: int = 128,
    batch: int = 1,
    backend: str = "packed",
    warmup: int = 3,
    repeats: int = 15,
    reporter: Reporter | None = None,
) -> LatencyTable:
    """Measure forward time against the number of drafts on the checkpoint's device.

    Args:
        checkpoint: the model; its dtype and device are those measured.
        drafts: numbers of drafts; 0 is always measured.
        block_length: rows per block.
        context_length: frozen rows, for example prompt and finished blocks.
        batch: sequences per forward; each has its own drafts, all share one shape.
        backend: ``packed`` or ``expanded``.
        warmup: untimed forwards per entry (compilation, caches).
        repeats: timed forwards per entry.
        reporter: shows progress.

    Raises:
        LatencyError: a number below its least value.
        MemoryError: the device ran out of memory; the message names the largest number of drafts that fitted.
    """
    for name, value, least in (
        ("block length", block_length, 1), ("context length", context_length, 1), ("batch", batch, 1),
        ("repeats", repeats, 3), ("warmup", warmup, 0), ("drafts", min(drafts, default=-1), 0),
    ):  # fmt: skip
        if value < least:
            raise LatencyError(f"{name} must be at least {least}, got {value}")
    reporter = reporter or SilentReporter()
    entries = sorted({0, *drafts})
    stage = _Stage(checkpoint, block_length, context_length, batch, backend)
    times: dict[int, list[float]] = {entry: [] for entry in entries}
    refresh: list[float] = []
    with (
        torch.inference_mode(),
        reporter.task("measure latency", (warmup + repeats) * (len(entries) + 1)) as advance_to,
    ):
        done = 0
        for turn in range(warmup + repeats):
            for entry in [-1, *entries]:
                milliseconds = stage.time(entry, max(entries[: entries.index(entry)], default=0) if entry > 0 else 0)
                if turn >= warmup:
                    (refresh if entry < 0 else times[entry]).append(milliseconds)
                done += 1
                advance_to(done)
    quartiles = {entry: statistics.quantiles(found, n=4) for entry, found in times.items()}
    return LatencyTable(
        device=device_name(checkpoint.denoiser.device),
        dtype=checkpoint.dtype,
        model=checkpoint.name,
        backend=backend,
        block_length=block_length,
        context_length=context_length,
        batch=batch,
        drafts=tuple(entries),
        rows=tuple(batch * block_length * (1 + entry) for entry in entries),
        latency=tuple(statistics.median(times[entry]) for entry in entries),
        low=tuple(quartiles[entry][0] for entry in entries),
        high=tuple(quartiles[entry][2] for entry in entries),
        refresh=statistics.median(refresh),
        repeats=repeats,
    )


def device_name(device: torch.device) -> str:
    """What to call a device in a table: the GPU's own name, or the processor with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = platform.processor() or platform.machine()
    return f"{device.type} {processor}, {torch.get_num_threads()} threads"


class _BatchDenoiser:
    """Repeats every forward over a batch: sequences of one shape, as a server with a full batch has them."""

    def __init__(self, denoiser: Any, batch: int) -> None:
        self.inner, self.batch = denoiser, batch

    def __call__(self, tokens: torch.Tensor, positions: torch.Tensor, *rest: Any, **named: Any) -> Any:
        return self.inner(tokens.repeat(self.batch, 1), positions.repeat(self.batch, 1), *rest, **named)


def _batched(denoiser: Any, batch: int) -> Any:
    return _BatchDenoiser(denoiser, batch) if batch > 1 else denoiser


class _Stage:
    """A frozen context and a block, set up once; every timed forward is the runtime's own on them."""

    def __init__(
        self, checkpoint: Checkpoint, block_length: int, context_length: int, batch: int, backend: str
    ) -> None:
        self.denoiser = checkpoint.denoiser
        self.backend = backend
        self.batch = batch
        device = self.denoiser.device
        generator = torch.Generator().manual_seed(0)
        total = context_length + block_length
        vocabulary = self.denoiser.vocabulary_size
        self.tokens = torch.randint(0, vocabulary, (total,), generator=generator).to(device)
        self.positions = torch.arange(total, device=device)
        self.everything = torch.ones(1, total, total, dtype=torch.bool, device=device)
        self.block = self.positions[context_length:]
        _, context = self._refresh()
        self.frame = Frame(self.tokens[context_length:], self.block, 0, block_length, context)

    def _refresh(self, batch: int = 1) -> tuple[torch.Tensor, Any]:
        with torch.inference_mode():
            return _batched(self.denoiser, batch)(
                self.tokens[None], self.positions[None], self.everything, None,
                logit_rows=self.block, freeze_rows=self.positions[: -len(self.block)],
            )  # fmt: skip

    def time(self, drafts: int, fitted: int) -> float:
        """Milliseconds of one forward with ``drafts`` drafts; -1 is a refresh forward."""
        if drafts < 0:
            return self._timed(lambda: self._refresh(self.batch))
        states = self.frame.tokens.repeat(1 + drafts, 1)
        denoiser = _batched(self.denoiser, self.batch)
        try:
            return self._timed(lambda: FORWARDS[self.backend](denoiser, self.frame, states))
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"{drafts} drafts do not fit into the device's memory at batch {self.batch}, context "
                f"{len(self.tokens) - len(self.block)}; the largest that did is {fitted}"
            ) from error

    def _timed(self, forward: Callable[[], Any]) -> float:
        if self.denoiser.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        forward()
        if self.denoiser.device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start)


def save_latency(table: LatencyTable, path: str | Path) -> None:
    """Write a table as JSON, units named."""
    write_json(
        path, {"format": LATENCY_FORMAT, "version": LATENCY_VERSION, "tool_version": tool_version(), **asdict(table)}
    )


def load_latency(path: str | Path) -> LatencyTable:
    """Read a table.

    Raises:
        LatencyError: no latency file, of another version, or with columns of different length.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != LATENCY_FORMAT:
        raise LatencyError(f"{path} is no latency file; measure one with `draftgraph latency`")
    if content.get("version") != LATENCY_VERSION:
        raise LatencyError(f"{path} has version {content.get('version')!r}, this draftgraph reads {LATENCY_VERSION}")
    fields = LatencyTable.__dataclass_fields__
    missing = sorted(set(fields) - set(content))
    if missing:
        raise LatencyError(f"{path} lacks {', '.join(missing)}; measure it again")
    said: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items() if key in fields
    }
    table = LatencyTable(**said)
    columns = (table.drafts, table.rows, table.latency, table.low, table.high)
    if len({len(column) for column in columns}) != 1 or not table.drafts or table.drafts[0] != 0:
        raise LatencyError(f"{path}: drafts, rows, latency, low and high must be as long as each other, drafts from 0")
    if min(table.latency) <= 0 or table.refresh <= 0:
        raise LatencyError(f"{path} holds a time that is not above 0")
    return table
