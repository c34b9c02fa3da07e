"""What a forward pass costs on this device, against the number of draft blocks in it.

Latency against rows is a staircase: a device computes tiles, and a few more rows are free until they are not. So every
number of drafts is measured, never extrapolated. The measured forward is the runtime's own (``verify.packing``): the
block and its drafts as live rows over a frozen context, with random tokens, for no number depends on what they say.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
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

_REFRESH = -1  # stands for the refresh forward among the numbers of drafts
_NOTHING_FITS = "not even plain decoding fits into the device's memory at {where}; take a smaller batch or context"


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
        note: what a reader must know besides, for example that larger entries did not fit into memory.
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
    note: str = ""

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

    Returns:
        the table. When the device runs out of memory it holds the numbers of drafts that fitted, and a note names
        the first that did not.

    Raises:
        LatencyError: a number below its least value, or a back-end that is not known.
        MemoryError: not even the context and one block without drafts fit.
    """
    for name, value, least in (
        ("block length", block_length, 1), ("context length", context_length, 1), ("batch", batch, 1),
        ("repeats", repeats, 3), ("warmup", warmup, 0), ("drafts", min(drafts, default=-1), 0),
    ):  # fmt: skip
        if value < least:
            raise LatencyError(f"{name} must be at least {least}, got {value}")
    if backend not in FORWARDS:
        raise LatencyError(f"unknown back-end {backend!r}, expected one of {', '.join(FORWARDS)}")
    reporter = reporter or SilentReporter()
    entries = sorted({0, *drafts})
    where = f"batch {batch}, context {context_length}, block length {block_length}"
    times: dict[int, list[float]] = {entry: [] for entry in entries}
    refresh: list[float] = []
    note = ""
    rounds = warmup + repeats
    with torch.inference_mode(), reporter.task("measure latency", rounds) as advance_to:
        with _plain_must_fit(where):
            stage = _Stage(checkpoint, block_length, context_length, batch, backend)
        for turn in range(rounds):
            for entry in [_REFRESH, *entries]:
                try:
                    milliseconds = stage.time(entry)
                except (RuntimeError, MemoryError) as error:
                    if not _out_of_memory(error):
                        raise
                    if entry <= 0:
                        raise MemoryError(_NOTHING_FITS.format(where=where)) from error
                    # What fits is worth keeping; a table that ends earlier still prices every budget in it.
                    entries = [smaller for smaller in entries if smaller < entry]
                    note = (
                        f"{entry} drafts do not fit into the device's memory at {where}; the largest measured number "
                        f"that fits is {entries[-1]}"
                    )
                    stage.free()
                    break
                if turn >= warmup:
                    (refresh if entry == _REFRESH else times[entry]).append(milliseconds)
            advance_to(turn + 1)
    quartiles = {entry: statistics.quantiles(times[entry], n=4) for entry in entries}
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
        note=note,
    )


def _out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine has no more memory; the CPU's allocator has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@contextmanager
def _plain_must_fit(where: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        raise MemoryError(_NOTHING_FITS.format(where=where)) from error


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

    def time(self, drafts: int) -> float:
        """Milliseconds of one forward with ``drafts`` drafts, or of a refresh forward."""
        if drafts == _REFRESH:
            return self._timed(lambda: self._refresh(self.batch))
        states = self.frame.tokens.repeat(1 + drafts, 1)
        denoiser = _batched(self.denoiser, self.batch)
        return self._timed(lambda: FORWARDS[self.backend](denoiser, self.frame, states))

    def free(self) -> None:
        """Give back what a forward that did not fit left in the allocator."""
        if self.denoiser.device.type == "cuda":
            torch.cuda.empty_cache()

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


_TEXTS = ("device", "dtype", "model", "backend", "unit", "note")
_COUNTS = ("block_length", "context_length", "batch", "repeats")


def load_latency(path: str | Path) -> LatencyTable:
    """Read a table.

    Raises:
        LatencyError: nothing there, no latency file, of another version, or with fields that are no table: text among
            numbers, columns of different length, rows that do not follow from the numbers of drafts.
        studies.run_directory.RunDirectoryError: the file is no JSON.
    """
    if not Path(path).is_file():
        raise LatencyError(f"{path} is no file; measure one with `draftgraph latency --out {path}`")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != LATENCY_FORMAT:
        raise LatencyError(f"{path} is no latency file; measure one with `draftgraph latency`")
    if content.get("version") != LATENCY_VERSION:
        raise LatencyError(f"{path} has version {content.get('version')!r}, this draftgraph reads {LATENCY_VERSION}")
    known = fields(LatencyTable)
    missing = sorted(item.name for item in known if item.default is MISSING and item.name not in content)
    if missing:
        raise LatencyError(f"{path} lacks {', '.join(missing)}; measure it again")
    said = {item.name: content[item.name] for item in known if item.name in content}
    for name in ("drafts", "rows"):
        said[name] = _column(path, name, said[name], _is_count, "integers of at least 0")
    for name in ("latency", "low", "high"):
        said[name] = _column(path, name, said[name], _is_time, "numbers")
    for names, fits, expected in (
        (_TEXTS, lambda value: isinstance(value, str), "a text"),
        (_COUNTS, lambda value: _is_count(value) and value > 0, "an integer of at least 1"),
        (("refresh",), _is_time, "a number"),
    ):
        for name in names:
            if name in said and not fits(said[name]):
                raise LatencyError(f"{path}: {name} must be {expected}, found {said[name]!r}; measure it again")
    table = LatencyTable(**said)
    columns = (table.drafts, table.rows, table.latency, table.low, table.high)
    if len({len(column) for column in columns}) != 1 or not table.drafts or table.drafts[0] != 0:
        raise LatencyError(f"{path}: drafts, rows, latency, low and high must be as long as each other, drafts from 0")
    if list(table.drafts) != sorted(set(table.drafts)):
        raise LatencyError(f"{path}: drafts must ascend, found {list(table.drafts)}")
    if table.rows != tuple(table.batch * table.block_length * (1 + drafts) for drafts in table.drafts):
        raise LatencyError(f"{path}: rows must be batch * block length * (1 + drafts), found {list(table.rows)}")
    if table.unit != "ms":
        raise LatencyError(f"{path} holds times in {table.unit!r}, expected 'ms'")
    if min(table.latency) <= 0 or table.refresh <= 0:
        raise LatencyError(f"{path} holds a time that is not above 0")
    return table


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _column(path: str | Path, name: str, value: Any, fits: Callable[[Any], bool], expected: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise LatencyError(f"{path}: {name} must be a list of {expected}, found {value!r}; measure it again")
    for item in value:
        if not fits(item):
            raise LatencyError(f"{path}: {name} must hold {expected}, found {item!r}; measure it again")
    return tuple(value)
