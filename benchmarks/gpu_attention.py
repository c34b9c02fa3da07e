"""Attention kernels alone, for the shapes of packed forwards: which is fastest, and by how much."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from benchmarks.gpu_bench import Bench
from calibrate.measuring.memory import is_out_of_memory
from calibrate.models.checkpoint import DTYPES

_WARMUP, _REPEATS = 3, 20


def packed_attention_mask(drafts: int, context: int, length: int, device: torch.device) -> torch.Tensor:
    """bool [r, context + r]: all rows see the cached ones and their own block."""
    unit = torch.arange(length * (1 + drafts), device=device) // length
    own = unit[:, None] == unit[None, :]
    return torch.cat([torch.ones(len(unit), context, dtype=torch.bool, device=device), own], dim=1)


def attention(bench: Bench, content: dict[str, Any]) -> None:
    """Milliseconds of one layer's attention, by shape and kernel."""
    content["rows"] = []
    content["unit"] = "ms per layer, median"
    for shape in bench.sizes.shapes:
        config = shape.native()
        heads, key_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        for load in bench.sizes.attention:
            compiled = load in bench.sizes.compiled
            bench.check(25.0 if compiled and bench.on_cuda else 0.5)
            drafts, context, batch = load
            row: dict[str, Any] = {
                "model": shape.name, "drafts": drafts, "context_length": context, "batch": batch, "heads": heads,
                "key_heads": key_heads,
            }  # fmt: skip
            try:
                row |= _kernels(bench, drafts, context, batch, heads, key_heads, width, compiled)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                row["note"] = "out of memory"
            content["rows"].append(row)
            bench.free()
        bench.save("attention", content)


def _kernels(
    bench: Bench, drafts: int, context: int, batch: int, heads: int, key_heads: int, width: int, compiled: bool
) -> dict[str, Any]:
    device, dtype, length = bench.device, DTYPES[bench.sizes.dtype], bench.sizes.block_length
    rows = length * (1 + drafts)
    generator = torch.Generator(device=device).manual_seed(0)

    def drawn(count: int, size: int) -> torch.Tensor:
        return torch.randn(batch, count, size, width, generator=generator, device=device, dtype=dtype)

    query, key, value = drawn(heads, rows), drawn(key_heads, context + rows), drawn(key_heads, context + rows)
    visible = packed_attention_mask(drafts, context, length, device)[None, None]
    addend = torch.zeros(visible.shape, device=device, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
    group = heads // key_heads

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat_interleave(group, dim=1) if group > 1 else tensor

    kernels: dict[str, Callable[[], torch.Tensor]] = {
        "sdpa, boolean mask": lambda: sdpa(query, repeated(key), repeated(value), attn_mask=visible),
        "sdpa, addends": lambda: sdpa(query, repeated(key), repeated(value), attn_mask=addend),
    }
    if group > 1:
        folded = addend.repeat(1, 1, group, 1)
        kernels["sdpa, addends, groups folded into rows"] = lambda: sdpa(
            query.reshape(batch, key_heads, group * rows, width), key, value, attn_mask=folded
        ).reshape(batch, heads, rows, width)
        kernels["sdpa, addends, enable_gqa"] = lambda: sdpa(query, key, value, attn_mask=addend, enable_gqa=True)
    if compiled:
        kernels["flex_attention"] = _flex(bench, query, key, value, drafts, context, length)
    reference = sdpa(query.float(), repeated(key).float(), repeated(value).float(), attn_mask=visible)
    times, errors, failed = {}, {}, {}
    for name, kernel in kernels.items():
        try:
            found = kernel().float()
        except Exception as error:  # a kernel that this device or this torch has not
            if is_out_of_memory(error):
                raise
            failed[name] = f"{type(error).__name__}: {error}"[:300]
            continue
        errors[name] = float((found - reference).norm() / reference.norm())
        times[name] = _time(bench, kernel)
    fastest = min(times, key=lambda name: times[name])
    return {
        "ms": times, "relative_error": errors, "failed": failed, "fastest": fastest,
        "over_fastest": {name: value / times[fastest] for name, value in times.items()},
    }  # fmt: skip


def _flex(
    bench: Bench, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, drafts: int, context: int, length: int
) -> Callable[[], torch.Tensor]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(batch: Any, head: Any, row: Any, column: Any) -> Any:
        return (column < context) | ((column - context) // length == row // length)

    rows = length * (1 + drafts)
    mask = create_block_mask(seen, None, None, rows, context + rows, device=str(bench.device))
    run = torch.compile(flex_attention, dynamic=False) if bench.on_cuda else flex_attention
    grouped = query.shape[1] != key.shape[1]
    return lambda: run(query, key, value, block_mask=mask, enable_gqa=grouped)


def _time(bench: Bench, kernel: Callable[[], torch.Tensor]) -> float:
    """Milliseconds, the median of single calls, by events on the device or by the host's clock."""
    times = []
    for turn in range(_WARMUP + (_REPEATS if bench.on_cuda else 5)):
        if bench.on_cuda:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            kernel()
            last.record()
            torch.cuda.synchronize()
            spent = first.elapsed_time(last)
        else:
            start = time.perf_counter()
            kernel()
            spent = 1e3 * (time.perf_counter() - start)
        if turn >= _WARMUP:
            times.append(spent)
    return statistics.median(times)
