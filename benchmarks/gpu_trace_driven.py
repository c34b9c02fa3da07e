"""Trace-driven decodes: tokens per second of every graph and budget, and whether the budget chosen beforehand is best.

The model of the published size pays for every forward; the bundled model's recorded decodes say what is accepted, plain
traces for graphs and state logs for informed drafts. All configurations decode one prompt before any decodes the next,
so that drift of the device hits all alike. Beside what was measured stands what the latency table predicts of the very
decodes: their refresh forwards, and their step forwards by width.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gpu_bench import Bench
from benchmarks.gpu_identity import POLICY, bundled_logs, bundled_traces, orders, split
from benchmarks.log_driven import LogDrivenEngine
from benchmarks.trace_driven import TraceDrivenEngine, recorded_config
from calibrate.measuring.latency import measure_latency
from calibrate.measuring.latency_table import LatencyTable
from calibrate.measuring.stage import synchronize
from calibrate.models.checkpoint import Checkpoint
from calibrate.traces.state_log import StateLog
from calibrate.traces.table import Traces
from drafting.anchors import AnchorTable
from drafting.counts import DecodeCounts
from drafting.replay import replay
from drafting.state_replay import replay_states
from studies.pricing.budget import choose_budget
from studies.pricing.price import price
from verify.decoding import DecodeResult, decode, make_engine
from verify.drafters.contract import Drafter
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import InformedDrafter
from verify.engines.contract import Engine
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


def informed_budgets(budgets: Sequence[int], drafts: Sequence[int], cache: str) -> list[int]:
    """Those of ``budgets`` whose widest forward was timed: in block-causal mode, bridges only and a carried block."""
    return [d for d in budgets if (2 * d + 1 if cache == "block_causal" else d) <= drafts[-1]]


@dataclass(frozen=True, eq=False)
class Configuration:
    """One way to decode.

    Attributes:
        drafter: what is evaluated beside the real block.
        driver: decides what is accepted.
        forwards: predicted, by prompt_index.
        milliseconds: predicted from the latency table, by prompt_index.
    """

    drafter: Drafter
    driver: Engine
    forwards: dict[int, int]
    milliseconds: dict[int, float]


def by_prompt(found: DecodeCounts, values: np.ndarray) -> dict[int, Any]:
    """``values`` [M] of the prompts of a replay."""
    return dict(zip(found.prompt_indices.tolist(), values.tolist(), strict=True))


def configured(
    graphs: Mapping[str, tuple[Formula, ...]],
    informed: Mapping[int, StateLog],
    driver: TraceDrivenEngine,
    test: Traces,
    table: LatencyTable,
) -> dict[str, Configuration]:
    """What each configuration needs, and what its decodes are predicted to cost."""
    anchors = AnchorTable.from_traces(test, max_depth=None)
    made = {}
    for name, nodes in graphs.items():
        drafter, found = GraphDrafter(nodes), replay(nodes, anchors)
        milliseconds = by_prompt(found, price(found, table, 0).milliseconds)
        made[name] = Configuration(drafter, driver, by_prompt(found, found.forwards_per_prompt), milliseconds)
    for budget, own in informed.items():
        counts = replay_states(own, InformedDrafter(budget))
        made[f"informed {budget}"] = Configuration(
            InformedDrafter(budget),
            LogDrivenEngine(
                own, driver.inner, mask_token_id=driver.mask_token_id, vocabulary_size=driver.vocabulary_size,
                device=driver.device,
            ),
            by_prompt(counts, counts.forwards_per_prompt),
            by_prompt(counts, price(counts, table, 0).milliseconds),
        )  # fmt: skip
    return made


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
    denoiser = checkpoint.denoiser
    config = recorded_config(traces)
    if table is None:
        table = measure_latency(
            checkpoint, drafts=bench.sizes.drafts, block_length=config.block_length, context_length=cache,
            repeats=bench.sizes.repeats, seconds=min(10.0, 0.2 * max(end - time.monotonic(), 1.0)),
            clock=bench.clock,
        )  # fmt: skip
    drafts = table.drafts  # fewer than were asked for, where the device had no room for more
    graphs = configurations(orders(search, drafts[-1], policy.spec), drafts)
    budgets = informed_budgets(bench.sizes.informed, drafts, config.cache)
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
    bridges = max(budgets) if config.cache == "block_causal" else 0
    driver.inner = make_engine(denoiser, config, layouts, 1, drafts[-1], bridges)
    logs = bundled_logs(bench, budgets, policy.spec, config.cache)
    chosen = configured(graphs, logs, driver, test, table)
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    tokens, texts, as_predicted, wall, rounds = [], set(), True, 0.0, 0

    def one(name: str, prompt_index: int) -> DecodeResult:
        how = chosen[name]
        return decode(
            how.driver, prompts[prompt_index], policy, config, how.drafter, prompt_index=prompt_index, engine=how.driver
        )

    for name in chosen:  # warm: every number of drafts, and CUDA graphs of them
        if name.partition(" ")[0] in ("plain", "informed", *EVERY_BUDGET) and time.monotonic() < end:
            one(name, prompt_indices[0])
    driver.seconds = 0.0
    for turn in range(bench.sizes.rounds * len(prompt_indices)):
        prompt_index = prompt_indices[turn % len(prompt_indices)]
        begin, spent = time.monotonic(), {}
        names = list(chosen) if turn % 2 else list(reversed(chosen))
        for name in names:
            synchronize(bench.device)
            start = bench.clock()
            result = one(name, prompt_index)
            synchronize(bench.device)
            spent[name] = bench.clock() - start
            texts.add((prompt_index, *result.tokens))
            as_predicted &= result.forwards == chosen[name].forwards[prompt_index]
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
    return _row(chosen, graphs, seconds, tokens, search, test, table) | {
        "context_length": cache, "rounds": rounds, "prompts": len(prompt_indices), "policy": policy.spec,
        "tokens_identical": len(texts) == len({text[0] for text in texts}), "forwards_as_predicted": as_predicted,
        "driver_share": driver.seconds / wall if wall else None,
    }  # fmt: skip


def _row(
    chosen: dict[str, Configuration], graphs: dict[str, tuple[Formula, ...]], seconds: dict[str, list[float]],
    tokens: list[tuple[int, int]], search: Traces, test: Traces, table: LatencyTable,
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
    foreseen = {name: sum(how.milliseconds[p] for p in generated) / 1000 for name, how in chosen.items()}
    done = AnchorTable.from_traces(test.select(generated), max_depth=None)
    priced = choose_budget(
        {len(nodes): nodes for name, nodes in graphs.items() if name.partition(" ")[0] in EVERY_BUDGET},
        AnchorTable.from_traces(search, max_depth=None), done, table,
    ) if len(generated) > 1 else None  # fmt: skip
    plain, count = times["plain 0"], sum(generated.values())

    def of_budgets(methods: Sequence[str], values: Mapping[str, float]) -> dict[int, float]:
        """Plain decoding and every budget of ``methods``."""
        return {int(name.split()[1]): values[name] for name in chosen if name.split()[0] in ("plain", *methods)}

    cheapest = of_budgets(("informed",), foreseen)
    return {
        "configurations": [
            {
                "method": name.split()[0], "drafts": how.drafter.max_drafts, "seconds": times[name],
                "tokens_per_second": count / times[name], "speedup": plain / times[name],
                "forwards": sum(how.forwards[prompt_index] for prompt_index in generated),
                "predicted_tokens_per_second": count / foreseen[name],
                "predicted_speedup": foreseen["plain 0"] / foreseen[name],
                "measured_over_predicted": foreseen[name] / times[name],
            }
            for name, how in chosen.items()
        ],
        "prompts_decoded": len(generated),
        "latency": {"drafts": table.drafts, "ms": table.latency, "refresh_ms": table.refresh},
        "predicted_speedup": {row.budget: row.speedup for row in priced.rows} if priced is not None else {},
        "limit": WITHIN,
        **_pick(priced.best.budget if priced is not None else None, of_budgets(EVERY_BUDGET, times)),
        # Nothing is calibrated, and the states of these very decodes are known: no other prompts choose.
        "informed": _pick(min(cheapest, key=lambda budget: cheapest[budget]), of_budgets(("informed",), times)),
    }  # fmt: skip


def _pick(picked: int | None, times: dict[int, float]) -> dict[str, Any]:
    """The budget ``picked`` from predictions against the best by ``times``; both are budgets, 0 is plain decoding."""
    best = min(times, key=lambda budget: times[budget])
    over = times[picked] / times[best] - 1 if picked in times else None
    return {
        "picked": picked, "best": best, "picked_over_best": over,
        "within_limit": over <= WITHIN if over is not None else None,
    }  # fmt: skip
