"""Latency against rows, the effect of CUDA graphs, and memory: what a forward costs."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from benchmarks.gpu_bench import Bench
from benchmarks.memory import peaks
from calibrate.measuring.latency import measure_latency
from calibrate.measuring.memory import Load, ModelSizes, device_memory, is_out_of_memory, largest_drafts
from calibrate.models.shapes import Shape


def latency(bench: Bench, content: dict[str, Any]) -> None:
    """Tables for every shape, context and batch: packed through slots, and expanded as copies in the batch."""
    content["tables"], content["left_out"] = [], []
    content["part"] = "latency"
    sizes = bench.sizes
    for shape in sizes.shapes:
        for batch in sizes.batches:
            for context in sizes.contexts:
                drafts = sizes.drafts if batch <= 4 else sizes.few_drafts
                _table(bench, content, shape, context, batch, drafts, "packed", None, False)
        for context in sizes.contexts:
            _table(bench, content, shape, context, 1, sizes.few_drafts, "expanded", "rows", False)
        if bench.on_cuda:
            for context in sizes.contexts[:2]:
                _table(bench, content, shape, context, 1, sizes.drafts, "packed", None, True)


def cuda_graphs(bench: Bench, content: dict[str, Any]) -> None:
    """Tables of one shape and context with and without CUDA graphs, one after the other, twice."""
    if not bench.on_cuda:
        content["note"] = "no CUDA graphs on this device"
        return
    content["tables"], content["left_out"] = [], []
    content["part"] = "cuda_graphs"
    for shape in bench.sizes.shapes:
        for batch in bench.sizes.batches[:2]:
            for on in (False, True, False, True):
                _table(bench, content, shape, 1024, batch, bench.sizes.few_drafts, "packed", None, on)


def compiled(bench: Bench, content: dict[str, Any]) -> None:
    """Tables of compiled step forwards, with CUDA graphs and without. Compiling takes minutes, so it is asked for."""
    content["tables"], content["left_out"] = [], []
    content["part"] = "compiled"
    for shape in bench.sizes.shapes:
        denoiser = bench.model(shape).denoiser
        denoiser.compile_backend = "inductor" if bench.on_cuda else "eager"
        try:
            for on in (False, True) if bench.on_cuda else (False,):
                _table(bench, content, shape, bench.sizes.contexts[0], 1, bench.sizes.few_drafts, "packed", None, on)
        finally:
            denoiser.compile_backend = None


def _table(
    bench: Bench, content: dict[str, Any], shape: Shape, context: int, batch: int, drafts: tuple[int, ...],
    backend: str, engine: str | None, graphs: bool,
) -> None:  # fmt: skip
    seconds = bench.sizes.table_seconds.get(batch, max(bench.sizes.table_seconds.values()))
    bench.check(seconds if bench.on_cuda else 0.0)
    facts = {"model": shape.name, "context_length": context, "batch": batch, "backend": backend, "cuda_graphs": graphs}
    try:
        checkpoint = bench.model(shape)
        with bench.cuda_graphs(checkpoint, graphs):
            table = measure_latency(
                checkpoint, drafts=drafts, block_length=bench.sizes.block_length, context_length=context, batch=batch,
                backend=backend, engine=engine, warmup=2, repeats=bench.sizes.repeats, seconds=seconds,
            )  # fmt: skip
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        content["left_out"].append({**facts, "why": str(error)})
    else:
        content["tables"].append({**asdict(table), "cuda_graphs": graphs})
        if batch == 1 and backend == "packed" and content["part"] != "compiled":
            bench.latency[shape.name, context, graphs] = table
        times = " ".join(f"{drafts}:{value:.2f}" for drafts, value in zip(table.drafts, table.latency, strict=True))
        print(f"  {shape.name} context {context} batch {batch} {backend} graphs {graphs}: {times} ms", flush=True)
    bench.free()
    bench.save(content["part"], content)


def memory(bench: Bench, content: dict[str, Any]) -> None:
    """Peak memory, predicted and measured."""
    content["studies"] = []
    for shape in bench.sizes.shapes:
        for context in bench.sizes.contexts:
            for batch in bench.sizes.batches:
                bench.check(4.0 if bench.on_cuda else 0.0)
                checkpoint = bench.model(shape)
                device = checkpoint.denoiser.device
                cache = "block_causal" if checkpoint.attention == ("block_causal",) else "dual"
                load = Load(batch, context, 0, bench.sizes.block_length, cache)
                most = largest_drafts(ModelSizes.of_denoiser(checkpoint.denoiser), load, device_memory(device))
                content["studies"].append(
                    {
                        "model": shape.name,
                        "rows": peaks(checkpoint, [load, replace(load, drafts=bench.sizes.drafts[-1])]),
                        "largest": [(context, batch, most)],
                        "available": device_memory(device),
                    }
                )
                del checkpoint
                bench.free()
                bench.save("memory", content)
    errors = [row["error"] for study in content["studies"] for row in study["rows"] if row["error"] is not None]
    content["error_range"] = [round(min(errors), 4), round(max(errors), 4)] if errors else None
