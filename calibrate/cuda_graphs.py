"""CUDA graphs of step forwards: the kernels of a forward are launched once by name instead of one by one.

A step forward over slots has the same buffers every time, so a graph of it stays valid for as long as its shape does.
One graph is captured per shape, on first use; its inputs are copied into buffers of its own before every replay. What
cannot be captured (a mixture of experts asks the host which expert gets how many rows) runs as it did, with a warning.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch

Inputs = tuple[torch.Tensor, ...]
Run = Callable[..., torch.Tensor]
#: Records ``run(*inputs)`` and returns (its output, a function that does it again in place).
Capture = Callable[[Run, Inputs], tuple[torch.Tensor, Callable[[], None]]]

#: Graphs kept; the one that was used longest ago is dropped. Drafts per anchor and frozen columns take few values.
MAX_GRAPHS = 64
_WARM_UPS = 3  # as torch's documentation asks: libraries settle their work spaces in the first calls


def capture_on_device(run: Run, inputs: Inputs) -> tuple[torch.Tensor, Callable[[], None]]:
    """Capture ``run`` on the current CUDA device, after warm-up calls on a stream of their own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            run(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run(*inputs)
    return output, graph.replay


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
        self._refused = False

    def __call__(self, key: tuple[object, ...], *inputs: torch.Tensor) -> torch.Tensor:
        """``run(*inputs)``. The result is a buffer: the next call of the same shape overwrites it.

        Args:
            key: what the graph depends on besides the shapes of ``inputs``.
            inputs: tensors; shapes and dtypes pick the graph, values are copied into it.
        """
        if self._refused:
            return self.run(*inputs)
        key = (*key, *((tuple(one.shape), one.dtype) for one in inputs))
        recorded = self._recorded.get(key)
        if recorded is None:
            own = tuple(one.clone(memory_format=torch.contiguous_format) for one in inputs)
            try:
                output, replay = self.capture(self.run, own)
            except RuntimeError as error:
                self._refused = True
                warnings.warn(f"no CUDA graphs for this model: {str(error).splitlines()[0]}", stacklevel=2)
                return self.run(*inputs)
            recorded = self._recorded[key] = _Recorded(own, output, replay)
            self.captured += 1
            if len(self._recorded) > MAX_GRAPHS:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        for mine, given in zip(recorded.inputs, inputs, strict=True):
            mine.copy_(given)
        recorded.replay()
        self.replayed += 1
        return recorded.output
