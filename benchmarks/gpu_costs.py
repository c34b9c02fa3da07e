"""What everything beside the forward costs: shares of a step in a real decode, and recording."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.gpu_bench import Bench
from benchmarks.gpu_identity import bundled_traces, orders, split
from calibrate.measuring.stage import synchronize
from calibrate.models.checkpoint import Checkpoint
from calibrate.recording.recorder import record
from verify.decoding import DecodeConfig, decode
from verify.drafters.graph import GraphDrafter
from verify.drafts import DraftFiller
from verify.engines.contract import BatchLogits
from verify.engines.slots import SlotEngine
from verify.graph.formulas import Formula
from verify.policies.contract import Policy
from verify.policies.specification import make_policy
from verify.ranked import LaggedRanker
from verify.sequence import SequenceDecoder

BUDGET = 10
LIMIT_BOOKKEEPING, LIMIT_RECORDING = 0.01, 0.03


class Stopwatch:
    """Seconds by name, of calls that may lie in each other; the device is waited for at both ends of a call."""

    def __init__(self, bench: Bench) -> None:
        self.device = bench.device
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose calls are added up under ``name``."""

        def run(*args: Any, **kwargs: Any) -> Any:
            synchronize(self.device)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                synchronize(self.device)
                self.seconds[name] += time.perf_counter() - start
                self.calls[name] += 1

        return run

    @contextmanager
    def watching(self, *places: tuple[Any, str, str]) -> Iterator[None]:
        """Time (owner, attribute, name) for as long as the context lasts."""
        patches = [
            mock.patch.object(owner, attribute, self.timed(name, getattr(owner, attribute)))
            for owner, attribute, name in places
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def _sizes(bench: Bench, checkpoint: Checkpoint) -> tuple[DecodeConfig, list[int]]:
    cache = "block_causal" if checkpoint.attention == ("block_causal",) else "dual"
    length = bench.sizes.block_length
    prompt = np.random.default_rng(0).integers(0, min(200, checkpoint.mask_token_id), bench.sizes.contexts[0])
    return DecodeConfig(length, bench.sizes.cost_blocks * length, cache), prompt.tolist()


def costs(bench: Bench, content: dict[str, Any]) -> None:
    """Bookkeeping and recording, for every shape; with and without CUDA graphs where there are any."""
    content["limits"] = {"bookkeeping": LIMIT_BOOKKEEPING, "recording": LIMIT_RECORDING}
    content["published_bookkeeping"] = 0.03
    content["bookkeeping"], content["recording"] = [], []
    order = orders(split(bench, bundled_traces(bench))[0], BUDGET)["greedy"]
    for shape in bench.sizes.shapes:
        for graphs in (False, True) if bench.on_cuda else (False,):
            bench.check(8.0 if bench.on_cuda else 0.0)
            checkpoint = bench.model(shape)
            with bench.cuda_graphs(checkpoint, graphs):
                row = _bookkeeping(bench, checkpoint, order)
            content["bookkeeping"].append({"model": shape.name, "cuda_graphs": graphs, **row})
            bench.save("costs", content)
        content["recording"].append({"model": shape.name, **_recording(bench, bench.model(shape))})
        bench.save("costs", content)


def _bookkeeping(bench: Bench, checkpoint: Checkpoint, order: Sequence[Formula]) -> dict[str, Any]:
    """Shares of a decode with D = 10. The parts are timed apart, in a decode that waits for the device at each; the
    whole in one that waits only where the runtime does."""
    config, prompt = _sizes(bench, checkpoint)
    policy = make_policy("static:1")

    def run(filler: DraftFiller, rule: Policy, ranker: LaggedRanker) -> int:
        return decode(checkpoint.denoiser, prompt, rule, config, GraphDrafter(filler, ranker)).forwards

    run(DraftFiller(order), policy, LaggedRanker())  # warm
    watch = Stopwatch(bench)
    filler, ranker = DraftFiller(order), LaggedRanker()
    with watch.watching(
        (checkpoint.denoiser, "forward_slots", "forward"),
        (SlotEngine, "step", "step"), (SlotEngine, "refresh", "refresh"), (BatchLogits, "rank", "ranking"),
        (SequenceDecoder, "advance", "advance"), (SequenceDecoder, "_denoise", "policy"),
        (filler, "fill", "filling"), (ranker, "rank", "draft ranks"),
    ):  # fmt: skip
        run(filler, policy, ranker)
    whole = []
    for _ in range(3):
        synchronize(bench.device)
        start = time.perf_counter()
        forwards = run(DraftFiller(order), policy, LaggedRanker())
        whole.append(time.perf_counter() - start)
    seconds = watch.seconds
    parts = {
        "mask, packing and transfers": seconds["step"] + seconds["refresh"] - seconds["forward"],
        "ranking": seconds["ranking"],
        "drafting": seconds["filling"] + seconds["draft ranks"],
        "policy": seconds["policy"],
        "verification and books": seconds["advance"] - seconds["policy"] - seconds["filling"] - seconds["draft ranks"],
    }
    total = seconds["forward"] + sum(parts.values())
    return {
        "drafts": len(order), "context_length": len(prompt), "forwards": forwards,
        "forward_ms": 1e3 * seconds["forward"] / forwards,
        "parts_ms": {name: 1e3 * value / forwards for name, value in parts.items()},
        "parts_share": {name: value / total for name, value in parts.items()},
        "bookkeeping_share": sum(parts.values()) / total,
        "step_ms_unwatched": 1e3 * statistics.median(whole) / forwards,
        "bookkeeping_share_unwatched": 1 - seconds["forward"] / statistics.median(whole),
        "within_limit": bool(sum(parts.values()) / total <= LIMIT_BOOKKEEPING),
    }  # fmt: skip


def _recording(bench: Bench, checkpoint: Checkpoint) -> dict[str, Any]:
    """Seconds of a recorded decode (observer, shards, manifest, reading back) over those of the same plain decode."""
    config, prompt = _sizes(bench, checkpoint)
    policy = make_policy("static:1")
    ratios: list[float] = []
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        for turn in range(6):
            times = {}
            for kind in ("plain", "recorded") if turn % 2 else ("recorded", "plain"):
                synchronize(bench.device)
                start = time.perf_counter()
                if kind == "plain":
                    decode(checkpoint.denoiser, prompt, policy, config)
                else:
                    record(checkpoint, [prompt], policy, config, Path(scratch) / str(turn))
                times[kind] = time.perf_counter() - start
            if turn:  # the first pair warms up
                ratios.append(times["recorded"] / times["plain"])
            if len(ratios) >= 3 and bench.left() < 10:
                break
    overhead = statistics.median(ratios) - 1
    return {
        "pairs": len(ratios), "overhead": overhead, "range": [min(ratios) - 1, max(ratios) - 1],
        "within_limit": bool(overhead <= LIMIT_RECORDING),
    }  # fmt: skip
