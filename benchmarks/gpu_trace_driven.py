"""Trace-driven decodes: tokens per second of every graph and budget, and whether the budget chosen beforehand is best.

The model of the published size pays for every forward; the bundled model's recorded decodes say what is accepted. All
configurations decode one prompt before any decodes the next, so that drift of the device hits all alike.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.gpu_bench import Bench
from benchmarks.gpu_identity import POLICY, bundled_traces, orders, split
from benchmarks.trace_driven import TraceDrivenEngine, recorded_config
from calibrate.measuring.latency import measure_latency
from calibrate.measuring.latency_table import LatencyTable
from calibrate.measuring.stage import synchronize
from calibrate.models.checkpoint import Checkpoint
from calibrate.traces.table import Traces
from drafting.anchors import AnchorTable
from drafting.replay import replay
from studies.pricing.budget import choose_budget
from verify.decoding import decode, make_engine
from verify.graph.formulas import Formula
from verify.layout import SequenceLayout
from verify.policies.specification import make_policy

#: The methods that decode at every budget, and at which ones the others do.
EVERY_BUDGET = ("greedy",)
SOME_BUDGETS = (4, 10, 16)
WITHIN = 0.02


def configurations(found: dict[str, tuple[Formula, ...]], drafts: Sequence[int]) -> dict[str, tuple[Formula, ...]]:
    """Name and budget -> nodes; ``plain`` first. Budgets that a method cannot fill are left out."""
    chosen: dict[str, tuple[Formula, ...]] = {"plain 0": ()}
    for name, order in found.items():
        wanted = drafts if name in EVERY_BUDGET else SOME_BUDGETS
        chosen |= {f"{name} {d}": order[:d] for d in drafts if d in wanted and 0 < d <= len(order)}
    return chosen


def trace_driven(bench: Bench, content: dict[str, Any]) -> None:
    """Every shape that the traces fit, at the smallest context."""
    content["rows"] = []
    share = bench.left() / len(bench.sizes.shapes)
    for shape in bench.sizes.shapes:
        end = time.monotonic() + share
        checkpoint = bench.model(shape)
        graphs = bench.on_cuda
        cache = "block_causal" if checkpoint.attention == ("block_causal",) else "dual"
        traces = bundled_traces(bench, POLICY, cache)
        with bench.cuda_graphs(checkpoint, graphs):
            table = bench.latency.get((shape.name, bench.sizes.contexts[0], graphs))
            row = run_shape(bench, checkpoint, traces, bench.sizes.contexts[0], table, end)
        content["rows"].append({"model": shape.name, "cuda_graphs": graphs, **row})
        bench.free()
        bench.save("trace_driven", content)


def run_shape(
    bench: Bench, checkpoint: Checkpoint, traces: Traces, cache: int, table: LatencyTable | None, end: float
) -> dict[str, Any]:
    """One model: decode every configuration round by round until ``end``, then compare the choice with the best."""
    search, test = split(bench, traces)
    policy = make_policy(str(traces.metadata["policy"]))
    found = orders(search, bench.sizes.drafts[-1], policy.spec)
    chosen = configurations(found, bench.sizes.drafts)
    denoiser = checkpoint.denoiser
    config = recorded_config(traces)
    driver = TraceDrivenEngine(
        test, None, mask_token_id=denoiser.mask_token_id, vocabulary_size=denoiser.vocabulary_size,
        device=denoiser.device,
    )  # fmt: skip
    prompt_indices = np.unique(test.prompt_index).tolist()
    # So long that about as many rows are cached as when latency was measured: later blocks too, or half of them so far.
    later = config.generation_length - config.block_length
    length = max(8, cache - (later if config.cache == "dual" else later // 2))
    prompts = {prompt_index: driver.prompt(prompt_index, length) for prompt_index in prompt_indices}
    layouts = [
        SequenceLayout.make(len(prompt), config.generation_length, config.block_length, config.cache)
        for prompt in prompts.values()
    ]
    driver.inner = make_engine(denoiser, config, layouts, 1, bench.sizes.drafts[-1])
    if table is None:
        table = measure_latency(
            checkpoint, drafts=bench.sizes.drafts, block_length=config.block_length, context_length=cache,
            repeats=bench.sizes.repeats, seconds=min(10.0, 0.2 * max(end - time.monotonic(), 1.0)),
            clock=bench.clock,
        )  # fmt: skip
    anchors = AnchorTable.from_traces(test, max_depth=None)
    predicted = {
        name: dict(zip(prompt_indices, replay(nodes, anchors).forwards_per_prompt.tolist(), strict=True))
        for name, nodes in chosen.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    tokens, as_predicted, wall, rounds = [], True, 0.0, 0
    for name, nodes in chosen.items():  # warm: every number of drafts, and CUDA graphs of them
        if name.partition(" ")[0] in ("plain", *EVERY_BUDGET) and time.monotonic() < end:
            decode(
                driver, prompts[prompt_indices[0]], policy, config, nodes, prompt_index=prompt_indices[0], engine=driver
            )
    driver.seconds = 0.0
    for turn in range(bench.sizes.rounds * len(prompt_indices)):
        prompt_index = prompt_indices[turn % len(prompt_indices)]
        begin, spent = time.monotonic(), {}
        names = list(chosen) if turn % 2 else list(reversed(chosen))
        for name in names:
            synchronize(bench.device)
            start = bench.clock()
            result = decode(
                driver, prompts[prompt_index], policy, config, chosen[name], prompt_index=prompt_index, engine=driver
            )
            synchronize(bench.device)
            spent[name] = bench.clock() - start
            as_predicted &= result.forwards == predicted[name][prompt_index]
            if turn and time.monotonic() > end:
                break
        if len(spent) < len(chosen):  # a round that was cut short says nothing
            break
        for name, value in spent.items():
            seconds[name].append(value)
        tokens.append((prompt_index, result.end))
        wall += sum(spent.values())
        rounds += 1
        if time.monotonic() + (time.monotonic() - begin) > end:
            break
    return _row(chosen, seconds, tokens, found, search, test, table) | {
        "context_length": cache, "rounds": rounds, "prompts": len(prompt_indices), "policy": policy.spec,
        "forwards_as_predicted": as_predicted, "driver_share": driver.seconds / wall if wall else None,
    }  # fmt: skip


def _row(
    chosen: dict[str, tuple[Formula, ...]], seconds: dict[str, list[float]], tokens: list[tuple[int, int]],
    found: dict[str, tuple[Formula, ...]], search: Traces, test: Traces, table: LatencyTable,
) -> dict[str, Any]:  # fmt: skip
    """Times per configuration, and the budget chosen from the latency table against the best that was decoded.

    A configuration's time is the sum over prompts of its median over the rounds that decoded the prompt.
    """
    prompt_of = np.array([prompt_index for prompt_index, _ in tokens])
    generated = {prompt_index: count for prompt_index, count in tokens}

    def total(name: str) -> float:
        values = np.array(seconds[name])
        return float(sum(np.median(values[prompt_of == prompt_index]) for prompt_index in generated))

    times = {name: total(name) for name in chosen}
    done = AnchorTable.from_traces(test.select(generated), max_depth=None)
    priced = choose_budget(
        {len(nodes): nodes for name, nodes in chosen.items() if name.partition(" ")[0] in EVERY_BUDGET},
        AnchorTable.from_traces(search, max_depth=None), done, table,
    ) if len(generated) > 1 else None  # fmt: skip
    tried = {
        int(name.split()[1]): value for name, value in times.items() if name.split()[0] in ("plain", *EVERY_BUDGET)
    }
    best = min(tried, key=lambda budget: tried[budget])
    picked = priced.best.budget if priced is not None else None
    plain = times["plain 0"]
    return {
        "configurations": [
            {
                "method": name.split()[0], "drafts": len(nodes), "seconds": times[name],
                "tokens_per_second": sum(generated.values()) / times[name], "speedup": plain / times[name],
                "forwards": int(replay(nodes, done).forwards),
            }
            for name, nodes in chosen.items()
        ],
        "prompts_decoded": len(generated),
        "latency": {"drafts": table.drafts, "ms": table.latency, "refresh_ms": table.refresh},
        "predicted_speedup": {row.budget: row.speedup for row in priced.rows} if priced is not None else {},
        "picked": picked,
        "best": best,
        "picked_over_best": tried[picked] / tried[best] - 1 if picked in tried else None,
        "within_limit": bool(tried[picked] / tried[best] - 1 <= WITHIN) if picked in tried else None,
        "limit": WITHIN,
    }  # fmt: skip
