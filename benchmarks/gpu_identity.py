"""First of all: on this device speculation changes nothing in float32 and costs what replay says; what bf16 changes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_bench import Bench
from calibrate.models.checkpoint import load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.recording.states import record_states
from calibrate.traces.state_log import StateLog
from calibrate.traces.table import Traces
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.chain import confidence_chain
from drafting.searches.closure import price_sweep
from drafting.searches.greedy import greedy
from drafting.searches.published import published
from drafting.trie import PrefixTrie
from verify.decoding import DecodeConfig, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.graph.formulas import Formula
from verify.policies.specification import make_policy

BUDGET = 10
POLICY = "static:1"


def bundled_traces(bench: Bench, policy: str = POLICY, cache: str = "dual") -> Traces:
    """Plain decodes of the bundled model on the bench's device: prompts to search on, then prompts to test on."""
    key = f"{policy} {cache}"
    if key not in bench.traces:
        checkpoint = load_checkpoint("bundled", device=str(bench.device))
        count = bench.sizes.search_prompts, bench.sizes.test_prompts
        texts = [*load_prompt_set("bundled", "calibration", count[0]), *load_prompt_set("bundled", "test", count[1])]
        prompts = encode_prompts(texts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)
        config = DecodeConfig(
            bench.sizes.block_length, bench.sizes.generation_length, cache, end_token_ids=checkpoint.end_token_ids
        )
        with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
            folder = Path(scratch) / "traces"
            bench.traces[key] = record(checkpoint, prompts, make_policy(policy), config, folder, batch_size=8)
    return bench.traces[key]


def bundled_logs(bench: Bench, budgets: Sequence[int], policy: str, cache: str) -> dict[int, StateLog]:
    """State logs of the prompts to test on, as numbered in :func:`bundled_traces`: informed drafts of every budget."""
    checkpoint, first = load_checkpoint("bundled", device=str(bench.device)), bench.sizes.search_prompts
    texts = load_prompt_set("bundled", "test", bench.sizes.test_prompts)
    prompts = encode_prompts(texts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)
    config = DecodeConfig(
        bench.sizes.block_length, bench.sizes.generation_length, cache, end_token_ids=checkpoint.end_token_ids
    )
    logs = {}
    for budget in budgets:
        with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
            log = record_states(
                checkpoint, prompts, make_policy(policy), config, Path(scratch) / "log", InformedDrafter(budget)
            )
        logs[budget] = StateLog(
            {(first + prompt_index, block): states for (prompt_index, block), states in log.blocks.items()},
            {first + prompt_index: state for prompt_index, state in log.first.items()},
            {(first + prompt_index, block): end for (prompt_index, block), end in log.ends.items()},
            {**log.metadata, "prompt_lengths": [0] * first + log.metadata["prompt_lengths"]},
        )
    return logs


def split(bench: Bench, traces: Traces) -> tuple[Traces, Traces]:
    """The prompts that graphs are searched on, and those that are decoded."""
    first = bench.sizes.search_prompts
    return traces.select(range(first)), traces.select(range(first, first + bench.sizes.test_prompts))


def orders(traces: Traces, budget: int, policy: str = POLICY) -> dict[str, tuple[Formula, ...]]:
    """Chain, published (degree-1), greedy and exact, as orders whose first D nodes are the graph of budget D."""
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, max_depth=None))
    size = make_policy(policy).step_size
    length = int(traces.metadata["block_length"])
    return {
        "chain": tuple(confidence_chain(budget, length, size).nodes),
        "published": tuple(published(trie, budget, step_size=size).nodes),
        "greedy": tuple(greedy(trie, budget).nodes),
        "exact": tuple(price_sweep(trie, budget).order),
    }


def identity(bench: Bench, content: dict[str, Any]) -> None:
    """Speculative tokens equal plain ones and forwards equal those predicted, float32; then bf16 divergence."""
    content["cells"], content["bf16"] = [], []
    texts = load_prompt_set("bundled", "test", bench.sizes.identity_prompts)
    for cache in bench.sizes.identity_caches:
        checkpoint = load_checkpoint("bundled", device=str(bench.device))
        ids = encode_prompts(texts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)
        prompts = list(enumerate(ids))
        config = DecodeConfig(
            bench.sizes.block_length, bench.sizes.generation_length, cache, end_token_ids=checkpoint.end_token_ids
        )
        policy = make_policy(POLICY)
        with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
            traces = record(checkpoint, ids, policy, config, Path(scratch) / "traces")
        anchors = AnchorTable.from_traces(traces, max_depth=None)
        plain = dict(decode_batch(checkpoint.denoiser, prompts, policy, config))
        for name, order in orders(traces, BUDGET).items():
            for batch, graphs in ((1, False), (4, False), *(((4, True),) if bench.on_cuda else ())):
                with bench.cuda_graphs(checkpoint, graphs):
                    found = dict(decode_batch(checkpoint.denoiser, prompts, policy, config, order, batch_size=batch))
                predicted = replay(order, anchors).forwards_per_prompt.tolist()
                content["cells"].append(
                    {
                        "cache": cache, "graph": name, "budget": len(order), "batch": batch, "cuda_graphs": graphs,
                        "prompts": len(ids), "forwards": sum(one.forwards for one in found.values()),
                        "forwards_plain": sum(one.forwards for one in plain.values()),
                        "tokens_identical": all(found[k].tokens == plain[k].tokens for k in found),
                        "forwards_as_predicted": [found[k].forwards for k in sorted(found)] == predicted,
                    }
                )  # fmt: skip
                bench.save("identity", content)
                bench.check()
    content["identical"] = all(c["tokens_identical"] and c["forwards_as_predicted"] for c in content["cells"])
    _low_precision(bench, content)


def _low_precision(bench: Bench, content: dict[str, Any]) -> None:
    """How much of the text changes in bf16: by another batch shape alone, and by drafts."""
    texts = load_prompt_set("bundled", "test", bench.sizes.test_prompts)
    checkpoint = load_checkpoint("bundled", device=str(bench.device), dtype="bfloat16")
    ids = encode_prompts(texts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)
    prompts = list(enumerate(ids))
    config = DecodeConfig(
        bench.sizes.block_length, bench.sizes.generation_length, "dual", end_token_ids=checkpoint.end_token_ids
    )
    policy = make_policy(POLICY)
    order = orders(split(bench, bundled_traces(bench))[0], BUDGET)["greedy"]

    def tokens(graph: tuple[Formula, ...], batch: int) -> dict[int, list[int]]:
        found = decode_batch(checkpoint.denoiser, prompts, policy, config, graph, batch_size=batch)
        return {prompt_index: result.tokens for prompt_index, result in found}

    plain = tokens((), 1)
    for name, graph, batch in (("plain", (), 4), ("greedy", order, 1), ("greedy", order, 4)):
        other = tokens(graph, batch)
        same = np.array([plain[k] == other[k] for k in plain])
        parts = [
            next((at for at, (a, b) in enumerate(zip(plain[k], other[k], strict=False)) if a != b), len(plain[k]))
            for k in plain
        ]
        content["bf16"].append(
            {
                "against": "plain at batch 1", "decode": name, "batch": batch, "prompts": len(same),
                "prompts_that_differ": int((~same).sum()), "first_difference_mean": float(np.mean(parts)),
            }
        )  # fmt: skip
    content["tf32"] = bool(torch.backends.cuda.matmul.allow_tf32)
