"""SGLang's loops with drafts, on a small stand-in: the tokens of the plain loops, and the forwards that were predicted.

The same is shown with the real package by ``make test-sglang`` (tests/sglang).
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from calibrate.traces.table import Traces
from drafting.anchors import AnchorTable
from drafting.replay import replay
from tests.support.sglang_runs import (
    TOP_J,
    PlainBlock,
    draft_config,
    plain_config,
    predicted,
    random_graph,
    recording,
)
from tests.support.sglang_server import Request, Server, blocks_of, fields_of, schedule
from tests.support.sglang_stub import MASK, StubBatch, StubLowConfidence, StubRunner
from tests.support.toy import toy_traces
from verify.drafters.file import DrafterFile, save_drafter
from verify.drafters.settings import InformedSettings
from verify.runtimes import sglang
from verify.runtimes.sglang_config import RuntimeConfigError

Drafting: Any = type("Drafting", (sglang.SpeculativeLoops, StubLowConfidence), {})
LIMIT = 14


def make_batch(runner: StubRunner, size: int, *parts: Any) -> StubBatch:
    batch = StubBatch(**fields_of(size, *parts))
    runner.kv_index_translator.own_plan(batch).bind(batch, runner.kv_index_translator)
    batch._init_num_token_non_padded(device="cpu", is_draft_worker=False)
    return batch


def prompts_of(seed: int, count: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randint(1, 23) for _ in range(rng.randint(1, 11))] for _ in range(count)]


def serve(runner: StubRunner, algorithm: Any, prompts: list[list[int]]) -> list[Request]:
    """Run the prompts; what the pools hold is back afterwards."""
    free = runner.token_to_kv_pool_allocator.available_size(), runner.req_to_token_pool.available_size()
    requests = Server(runner, algorithm, make_batch).run(prompts, LIMIT)
    assert free == (runner.token_to_kv_pool_allocator.available_size(), runner.req_to_token_pool.available_size())
    return requests


def plain_blocks(size: int, threshold: float, prompt: list[int], seed: int) -> list[PlainBlock]:
    algorithm = recording(StubLowConfidence)(plain_config(size, threshold, MASK, fdfo=True))
    serve(StubRunner(seed=seed), algorithm, [prompt])
    return algorithm.blocks[:-1]


@pytest.mark.parametrize("fdfo", [False, True], ids=["sync", "fdfo"])
@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize(("size", "threshold"), [(4, 0.9), (4, 0.4), (8, 0.6), (8, 1.0)])
def test_tokens_are_those_of_the_plain_loop_and_forwards_as_predicted(
    size: int, threshold: float, together: int, fdfo: bool, tmp_path: Path
) -> None:
    saved = 0
    for seed in range(3 if together > 1 else 6):
        prompts, nodes = prompts_of(seed, together), random_graph(seed, size, 6, single=threshold >= 1)
        plain = serve(StubRunner(seed=seed), StubLowConfidence(plain_config(size, threshold, MASK, fdfo=fdfo)), prompts)
        runner = StubRunner(seed=seed)
        algorithm = Drafting(draft_config(tmp_path, nodes, size, threshold, MASK, fdfo=fdfo))
        drafted = serve(runner, algorithm, prompts)
        assert [one.output for one in drafted] == [one.output for one in plain]
        blocks = [plain_blocks(size, threshold, prompt, seed) for prompt in prompts]
        kinds = [list(blocks_of(prompt, LIMIT, size)) for prompt in prompts]
        found = [[predicted(block, nodes) for block in one] for one in blocks]
        costs = [
            [(kind, cost) for kind, (cost, _) in zip(*pair, strict=True)] for pair in zip(kinds, found, strict=True)
        ]
        total, each = schedule(costs, fdfo)
        assert (runner.forwards, [one.forwards for one in drafted]) == (total, each)
        assert algorithm.counts["forwards"] == total and runner.evaluated == algorithm.counts["rows"]
        assert algorithm.counts["adopted"] == sum(adopted for one in found for _, adopted in one)
        saved += sum(one.forwards for one in plain) - sum(each)
    assert saved > 0


@pytest.mark.parametrize(("size", "threshold"), [(4, 0.9), (8, 0.5)])
def test_the_prediction_is_a_replay_and_what_the_runtime_adds(size: int, threshold: float) -> None:
    """A replay counts the forwards that denoise; SGLang adds one a block, but for those whose page is adopted."""
    adopted = 0
    for seed in range(6):
        (prompt,), nodes = prompts_of(seed, 1), random_graph(seed, size, 8)
        blocks = [block for block in plain_blocks(size, threshold, prompt, seed) if block.steps]
        found = [predicted(block, nodes) for block in blocks]
        counted = replay(nodes, AnchorTable.from_traces(traces_of(blocks), max_depth=None)).forwards_per_prompt
        assert sum(cost for cost, _ in found) == counted.sum() + len(blocks) - sum(saved for _, saved in found)
        adopted += sum(saved for _, saved in found)
    assert adopted


def traces_of(blocks: list[PlainBlock]) -> Traces:
    rows = [(0, n, s + 1, step) for n, block in enumerate(blocks) for s, step in enumerate(block.steps)]
    commits = [[n for n, (a, b) in enumerate(zip(row[3].before, row[3].after, strict=True)) if a != b] for row in rows]
    return replace(
        toy_traces(0, top_j=TOP_J),
        prompt_index=np.array([row[0] for row in rows], dtype=np.int32),
        block=np.array([row[1] for row in rows], dtype=np.int32),
        step=np.array([row[2] for row in rows], dtype=np.int32),
        masked_ptr=np.cumsum([0, *(len(row[3].order) for row in rows)]),
        masked_position=np.concatenate([row[3].order for row in rows]).astype(np.int16),
        top_token=np.concatenate([row[3].tokens for row in rows]).astype(np.int32),
        top_probability=np.full((sum(len(row[3].order) for row in rows), TOP_J), 0.1, dtype=np.float32),
        commit_ptr=np.cumsum([0, *(len(one) for one in commits)]),
        commit_position=np.concatenate(commits).astype(np.int16),
        commit_token=np.concatenate(
            [[row[3].after[n] for n in one] for row, one in zip(rows, commits, strict=True)]
        ).astype(np.int32),
    )


@pytest.mark.parametrize("fdfo", [False, True], ids=["sync", "fdfo"])
@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_informed_drafts_leave_the_tokens_and_save_forwards(threshold: float, fdfo: bool, tmp_path: Path) -> None:
    file = tmp_path / "drafter.json"
    save_drafter(DrafterFile(6, InformedSettings()), file)
    prompts = prompts_of(5, 3)
    plain_runner, runner = StubRunner(seed=5), StubRunner(seed=5)
    plain = serve(plain_runner, StubLowConfidence(plain_config(8, threshold, MASK, fdfo=fdfo)), prompts)
    algorithm = Drafting(plain_config(8, threshold, MASK, fdfo=fdfo, draftgraph_file=str(file)))
    drafted = serve(runner, algorithm, prompts)
    assert [one.output for one in drafted] == [one.output for one in plain]
    assert runner.forwards < plain_runner.forwards and algorithm.counts["adopted"]


def test_short_pools_and_a_limit_of_rows_only_cost_speed(tmp_path: Path) -> None:
    first, second, third = (1, 1), (2, 1), (3, 1)
    prompts, nodes = prompts_of(3, 4), [(first,), (second,), (first, second), (first, second, third), (second, third)]
    plain = serve(StubRunner(seed=3), StubLowConfidence(plain_config(4, 0.9, MASK, fdfo=True)), prompts)
    seen = []
    for facts, values in (
        ({"rows": 4}, {}), ({"rows": 6}, {}), ({"pages": 30}, {}), ({}, {"draftgraph_max_rows": 5}),
        ({}, {"draftgraph_drafts": 1}), ({}, {}),
    ):  # fmt: skip
        runner = StubRunner(seed=3, **facts)
        algorithm = Drafting(draft_config(tmp_path, nodes, 4, 0.9, MASK, fdfo=True, **values))
        assert [one.output for one in serve(runner, algorithm, prompts)] == [one.output for one in plain]
        most = min(runner.max_running_requests, values.get("draftgraph_max_rows", 99))
        assert runner.evaluated <= runner.forwards * most
        seen.append(runner.forwards)
    assert seen[-1] == min(seen) < seen[0]


@pytest.mark.parametrize("fdfo", [False, True], ids=["sync", "fdfo"])
def test_a_prompt_may_hold_the_mask_token(fdfo: bool, tmp_path: Path) -> None:
    prompts = [[3, MASK, 5, 6, 7, MASK], [MASK], [4, 5, 6, 7, 8]]
    nodes = random_graph(1, 4, 6)
    plain = serve(StubRunner(seed=1), StubLowConfidence(plain_config(4, 0.9, MASK, fdfo=fdfo)), prompts)
    drafted = serve(StubRunner(seed=1), Drafting(draft_config(tmp_path, nodes, 4, 0.9, MASK, fdfo=fdfo)), prompts)
    assert [one.output for one in drafted] == [one.output for one in plain]


def test_a_block_that_a_step_leaves_as_it_is_comes_out_as_in_the_plain_loop(tmp_path: Path) -> None:
    """The mask token is often the likeliest: the plain loop hands such blocks out with their masks."""
    prompts = prompts_of(2, 4)
    runners = [StubRunner(seed=2), StubRunner(seed=2)]
    for runner in runners:
        runner.head[:, MASK] = 2 * runner.head[:, 1]
    plain = serve(runners[0], StubLowConfidence(plain_config(8, 0.9, MASK, fdfo=False)), prompts)
    algorithm = Drafting(draft_config(tmp_path, random_graph(2, 8, 6), 8, 0.9, MASK, fdfo=False))
    drafted = serve(runners[1], algorithm, prompts)
    assert [one.output for one in drafted] == [one.output for one in plain]
    assert any(MASK in one.output for one in plain)


def test_the_plug_in_registers_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("sglang.srt.dllm.algorithm")
    package.algo_name_to_cls = {"LowConfidence": StubLowConfidence}
    rule = ModuleType("sglang.srt.dllm.algorithm.low_confidence")
    rule.LowConfidence = StubLowConfidence
    dllm = ModuleType("sglang.srt.dllm")
    dllm.algorithm = package
    for name, module in {
        "sglang": ModuleType("sglang"), "sglang.srt": ModuleType("sglang.srt"), "sglang.srt.dllm": dllm,
        "sglang.srt.dllm.algorithm": package, "sglang.srt.dllm.algorithm.low_confidence": rule,
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    sglang.algorithm_class.cache_clear()
    sglang.register()
    sglang.algorithm_class.cache_clear()
    found = package.algo_name_to_cls["DraftGraph"]
    assert issubclass(found, StubLowConfidence) and found.__name__ == "DraftGraph"
    assert "SDARForCausalLM" in found.supported_architectures


def test_models_whose_rows_are_not_independent_are_refused(tmp_path: Path) -> None:
    def run(page_size: int = 4, stated_page: int | None = None, **facts: Any) -> None:
        runner = StubRunner(page_size=page_size)
        runner.model_config = SimpleNamespace(hf_config=SimpleNamespace(**facts.pop("config", {})))
        batch_facts = {name: facts.pop(name) for name in ("global_num_tokens_cpu",) if name in facts}
        for name, value in facts.items():
            setattr(runner, name, value)

        def make(*parts: Any) -> StubBatch:
            batch = make_batch(*parts)
            runner.token_to_kv_pool_allocator.page_size = stated_page or page_size
            return replace(batch, **batch_facts)

        algorithm = Drafting(draft_config(tmp_path, [((1, 1),)], 4, 0.9, MASK, fdfo=True))
        Server(runner, algorithm, make).run([[1, 2]], 4)

    with pytest.raises(RuntimeConfigError, match="experts have a capacity"):
        run(config={"expert_capacity": 4})
    with pytest.raises(RuntimeConfigError, match="sliding window"):
        run(is_hybrid_swa=True)
    with pytest.raises(RuntimeConfigError, match="--enable-dp-attention"):
        run(global_num_tokens_cpu=[4, 4])
    with pytest.raises(RuntimeConfigError, match=r"pages have 3 positions and blocks 4.* --page-size 4"):
        run(stated_page=3)
    run(page_size=2)


def test_a_state_of_another_block_is_not_drafted_from(tmp_path: Path) -> None:
    """A request that was retracted comes back with another block than the state was kept for."""
    algorithm = Drafting(draft_config(tmp_path, [((1, 1),)], 4, 0.9, MASK, fdfo=True))
    runner = StubRunner()
    server = Server(runner, algorithm, make_batch)
    request = Request([1, 2, 3, 4], 4, offset=0)
    server._round([request])
    server._round([request])
    kept = request.state
    assert len(kept.propose(np.array(request.partial))) == 1
    assert len(kept.propose(np.array([5, MASK, MASK, MASK]))) == 0
