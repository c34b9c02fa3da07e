"""What every part of ``benchmarks/gpu.py`` works with: a clock that runs out, models, sizes, and files kept at once."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from calibrate.files import write_json
from calibrate.measuring.latency import device_name
from calibrate.measuring.memory import device_memory, is_out_of_memory
from calibrate.models.checkpoint import Checkpoint
from calibrate.models.shapes import LLADA_8B, LLADA_TINY, SDAR_8B, SDAR_TINY, Shape
from calibrate.version import tool_version


class OutOfTime(Exception):
    """The part's share of the time is used up; what it has is saved."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        shapes: the models, random weights.
        dtype: theirs.
        block_length: ``L``.
        generation_length: of the bundled model's decodes.
        drafts: numbers of drafts, 0 first.
        informed: budgets of informed drafts that are decoded.
        few_drafts: fewer of them, where every one would take too long.
        contexts, batches: as in the latency tables.
        table_seconds: for one latency table, by batch.
        repeats: timed forwards per entry, where the time suffices.
        search_prompts, test_prompts: of the bundled model, for traces.
        identity_prompts, identity_caches: decoded for the identity check.
        rounds: times that every prompt is decoded trace-driven, where the time suffices.
        cost_blocks: blocks decoded where shares of a step are measured.
        attention: (rows of drafts D, context, batch) of the attention kernels.
        compiled: those of them for which a kernel is compiled.
    """

    shapes: tuple[Shape, ...] = (LLADA_8B, SDAR_8B)
    dtype: str = "bfloat16"
    block_length: int = 32
    generation_length: int = 96
    drafts: tuple[int, ...] = tuple(range(17))
    informed: tuple[int, ...] = (2, 4, 7, 10)
    few_drafts: tuple[int, ...] = (0, 1, 2, 4, 8, 10, 16)
    contexts: tuple[int, ...] = (256, 1024, 4096)
    batches: tuple[int, ...] = (1, 4, 16)
    table_seconds: dict[int, float] = field(default_factory=lambda: {1: 4.0, 4: 5.0, 16: 8.0})
    repeats: int = 15
    search_prompts: int = 24
    test_prompts: int = 8
    identity_prompts: int = 4
    identity_caches: tuple[str, ...] = ("dual", "block_causal")
    rounds: int = 5
    cost_blocks: int = 2
    attention: tuple[tuple[int, int, int], ...] = tuple(
        (drafts, context, batch) for context in (256, 1024, 4096) for batch in (1, 4, 16) for drafts in (0, 4, 10, 16)
    )
    compiled: tuple[tuple[int, int, int], ...] = ((4, 1024, 1), (10, 1024, 1), (10, 4096, 4))


TINY = Sizes(
    shapes=(LLADA_TINY, SDAR_TINY), dtype="float32", block_length=16, generation_length=32, drafts=(0, 1, 4),
    informed=(1, 4), few_drafts=(0, 4), contexts=(32,), batches=(1, 2), table_seconds={1: 0.2, 2: 0.2}, repeats=3,
    search_prompts=2, test_prompts=2, identity_prompts=1, identity_caches=("dual",), rounds=1, cost_blocks=1,
    attention=((0, 32, 1), (4, 32, 2)), compiled=((4, 32, 2),),
)  # fmt: skip


class Bench:
    """The state of one run.

    Args:
        out: folder of the JSON files.
        device: a torch device.
        sizes: how much is measured.
        seconds: until everything must be done.

    Attributes:
        clock: what seconds of a decode are read from; on a shared CPU its processor time is steadier.
        traces: what was recorded of the bundled model, by policy; filled by the first part that needs it.
        latency: measured tables by (shape, context, cuda graphs), batch 1, packed.
    """

    def __init__(self, out: Path, device: str, sizes: Sizes, seconds: float) -> None:
        self.out, self.device, self.sizes = out, torch.device(device), sizes
        self.begin = time.monotonic()
        self.end = self.begin + seconds
        self.part_end, self.planned = self.end, self.begin
        self.clock: Callable[[], float] = time.perf_counter
        self.traces: dict[str, Any] = {}
        self.latency: dict[tuple[str, int, bool], Any] = {}
        self.parts: list[dict[str, Any]] = []
        self._made: Checkpoint | None = None
        out.mkdir(parents=True, exist_ok=True)

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def left(self) -> float:
        """Seconds of this part that are left."""
        return min(self.part_end, self.end) - time.monotonic()

    def check(self, needed: float = 0.0) -> None:
        """Raise :class:`OutOfTime` unless ``needed`` more seconds are left to this part."""
        if self.left() <= needed:
            raise OutOfTime

    def model(self, shape: Shape) -> Checkpoint:
        """The model of ``shape`` with random weights; one is kept at a time."""
        if self._made is None or self._made.name != shape.name:
            self._made = None
            self.free()
            self._made = shape.make(dtype=self.sizes.dtype, device=str(self.device))
        return self._made

    def free(self) -> None:
        """Give the allocator's memory back to the device."""
        gc.collect()
        if self.on_cuda:
            torch.cuda.empty_cache()

    def facts(self) -> dict[str, Any]:
        """Where and with what was measured."""
        return {
            "device": device_name(self.device),
            "device_gib": round(device_memory(self.device) / 2**30, 1),
            "dtype": self.sizes.dtype,
            "versions": {
                "draftgraph": tool_version(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "cuda": torch.version.cuda,
            },
        }

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write ``OUT/name.json``; called after every measurement, so that a stopped run keeps what it has."""
        write_json(self.out / f"{name}.json", {**self.facts(), **content})

    def run(self, name: str, seconds: float, part: Callable[[Bench, dict[str, Any]], None]) -> None:
        """Run one part within its share of the time; whatever happens to it, the next one runs.

        Args:
            name: of the part and its file.
            seconds: its share; time that earlier parts left over is there for later ones.
            part: given the bench and the content of the file, which it fills.
        """
        start = time.monotonic()
        self.planned += seconds
        self.part_end = min(self.end, max(self.planned, start + seconds / 2))  # after parts that overran, half a share
        content: dict[str, Any] = {"complete": False}
        status = "complete"
        try:
            self.check()
            part(self, content)
            content["complete"] = True
        except OutOfTime:
            status = "ended by the clock"
        except Exception as error:  # a part that fails must not take the others' device time with it
            status = "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"[:500]
            if self.sizes is TINY:
                raise
        content["status"] = status
        self.save(name, content)
        self.free()
        self.parts.append({"part": name, "status": status, "seconds": round(time.monotonic() - start, 1)})
        write_json(self.out / "summary.json", {**self.facts(), "parts": self.parts})
        print(f"{name}: {status}, {time.monotonic() - start:.1f} s", flush=True)

    @contextmanager
    def cuda_graphs(self, checkpoint: Checkpoint, on: bool) -> Iterator[None]:
        """Step forwards of engines made inside are replayed from CUDA graphs, or not."""
        before = checkpoint.denoiser.cuda_graphs
        checkpoint.denoiser.cuda_graphs = on and self.on_cuda
        try:
            yield
        finally:
            checkpoint.denoiser.cuda_graphs = before


def rounded(values: dict[str, float], digits: int = 4) -> dict[str, float]:
    """Numbers for a file that a person reads."""
    return {name: round(value, digits) for name, value in values.items()}
