"""CUDA graphs of step forwards: the kernels of a forward are launched once by name instead of one by one.

A step forward over slots has the same buffers every time, so a graph of it stays valid for as long as its shape does.
A shape is captured when it is met again, with inputs that are copied into buffers of its own before every replay. What
cannot be captured (a mixture of experts asks the host which expert gets how many rows) runs as it did, with a warning.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

Inputs = tuple[torch.Tensor, ...]
Run = Callable[..., torch.Tensor]
#: Records ``run(*inputs)`` and returns (its output, a function that does it again in place).
Capture = Callable[[Run, Inputs], tuple[torch.Tensor, Callable[[], None]]]

#: Graphs kept; the one that was used longest ago is dropped.
MAX_GRAPHS = 64
#: Sights of a shape before it is captured, as a capture costs several forwards.
SIGHTS = 2
_WARM_UPS = 2  # as torch's documentation asks: libraries settle their work spaces in the first calls


@cache
def _pool(device: torch.device) -> Any:
    """One pool for all graphs of a device: only an output must outlast its replay, and it is used before the next."""
    with torch.cuda.device(device):
        return torch.cuda.graph_pool_handle()


def capture_on_device(run: Run, inputs: Inputs) -> tuple[torch.Tensor, Callable[[], None]]:
    """Capture ``run`` on the device of its inputs, after warm-up calls on a stream of their own.

    The last warm-up forbids waiting for the device: a capture that is broken off half-way leaves torch's allocator in
    the belief that it still runs, so what cannot be captured must be found before.

    Raises:
        RuntimeError: ``run`` makes the host wait for the device.
    """
    device = inputs[0].device
    with torch.cuda.device(device):
        before = torch.cuda.current_stream()
        stream = torch.cuda.Stream()
        stream.wait_stream(before)
        mode = torch.cuda.get_sync_debug_mode()
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                run(*inputs)
            try:
                torch.cuda.set_sync_debug_mode("error")
                run(*inputs)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        before.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=_pool(device), stream=stream):
            output = run(*inputs)

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return output, replay


@dataclass(frozen=True, eq=False)
class _Recorded:
    inputs: Inputs
    output: torch.Tensor
    replay: Callable[[], None]


class GraphedForward:
    """A function of tensors, replayed from a graph wherever its shapes were seen before.

    Args:
        run: inputs to output; it may read and write other tensors, whose addresses must never change.
        capture: how it is recorded; replaced where there is no CUDA.

    Attributes:
        captured: shapes recorded so far.
        replayed: calls that were replays.
    """

    def __init__(self, run: Run, capture: Capture = capture_on_device) -> None:
        self.run, self.capture = run, capture
        self.captured = self.replayed = 0
        self._recorded: OrderedDict[tuple[object, ...], _Recorded] = OrderedDict()
        self._sights: dict[tuple[object, ...], int] = {}
        self._captures = True

    def __call__(self, key: tuple[object, ...], *inputs: torch.Tensor) -> torch.Tensor:
        """``run(*inputs)``. The result is a buffer: the next call may overwrite it.

        Args:
            key: what the graph depends on besides the shapes of ``inputs``.
            inputs: tensors; shapes and dtypes pick the graph, values are copied into it.
        """
        key = (*key, *((tuple(one.shape), one.dtype) for one in inputs))
        recorded = self._recorded.get(key)
        if recorded is None:
            self._sights[key] = self._sights.get(key, 0) + 1
            recorded = self._record(key, inputs) if self._captures and self._sights[key] >= SIGHTS else None
            if recorded is None:
                return self.run(*inputs)
        self._recorded.move_to_end(key)
        for static, new in zip(recorded.inputs, inputs, strict=True):
            static.copy_(new)
        recorded.replay()
        self.replayed += 1
        return recorded.output

    def _record(self, key: tuple[object, ...], inputs: Inputs) -> _Recorded | None:
        own = tuple(one.clone(memory_format=torch.contiguous_format) for one in inputs)
        try:
            output, replay = self.capture(self.run, own)
        except torch.OutOfMemoryError:
            self._captures = False  # those that were captured still serve
            warnings.warn(f"no more CUDA graphs than the {self.captured} there are: out of memory", stacklevel=3)
            return None
        except RuntimeError as error:
            self._captures = False
            self._recorded.clear()
            warnings.warn(f"no CUDA graphs for this model: {str(error).splitlines()[0]}", stacklevel=3)
            return None
        recorded = self._recorded[key] = _Recorded(own, output, replay)
        self.captured += 1
        if len(self._recorded) > MAX_GRAPHS:
            self._recorded.popitem(last=False)
        return recorded
