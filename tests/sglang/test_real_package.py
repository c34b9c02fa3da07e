"""SGLang's own SDAR model, paged cache and LowConfidence step, with drafts: its tokens, and the forwards predicted."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support import sglang_real
from tests.support.sglang_real import MASK, VOCABULARY, RealRunner, make_batch
from tests.support.sglang_runs import TOP_J, draft_config, plain_config, predicted, random_graph, recording
from tests.support.sglang_server import Request, Server, blocks_of, schedule

sglang_real.start()

from sglang.srt.dllm.algorithm.low_confidence import LowConfidence  # noqa: E402

from verify.drafters.file import DrafterFile, save_drafter  # noqa: E402
from verify.runtimes import sglang  # noqa: E402
from verify.runtimes.sglang_config import RuntimeConfigError  # noqa: E402

LIMIT = 12


def prompts_of(seed: int, count: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(MASK) for _ in range(rng.randint(1, 11))] for _ in range(count)]


def serve(runner: RealRunner, algorithm: Any, prompts: list[list[int]]) -> list[Request]:
    """Run the prompts; what the pools hold is back afterwards."""
    free = runner.token_to_kv_pool_allocator.available_size(), runner.req_to_token_pool.available_size()
    requests = Server(runner, algorithm, make_batch).run(prompts, LIMIT)
    assert free == (runner.token_to_kv_pool_allocator.available_size(), runner.req_to_token_pool.available_size())
    assert max(token for one in requests for token in one.output) < VOCABULARY
    return requests


@pytest.mark.parametrize("fdfo", [False, True], ids=["sync", "fdfo"])
@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize(("size", "threshold"), [(4, 0.9), (4, 0.3), (8, 0.5), (8, 1.0)])
def test_tokens_are_those_of_the_plain_loop_and_forwards_as_predicted(
    size: int, threshold: float, together: int, fdfo: bool, tmp_path: Path
) -> None:
    for seed in range(2):
        prompts, nodes = prompts_of(seed, together), random_graph(seed, size, 6, single=threshold >= 1)
        plain = serve(RealRunner(seed=seed), LowConfidence(plain_config(size, threshold, MASK, fdfo=fdfo)), prompts)
        runner = RealRunner(seed=seed)
        algorithm = sglang.algorithm_class()(draft_config(tmp_path, nodes, size, threshold, MASK, fdfo=fdfo))
        drafted = serve(runner, algorithm, prompts)
        assert [one.output for one in drafted] == [one.output for one in plain]
        costs = []
        for prompt in prompts:
            recorder = recording(LowConfidence)(plain_config(size, threshold, MASK, fdfo=True))
            serve(RealRunner(seed=seed), recorder, [prompt])
            blocks = zip(blocks_of(prompt, LIMIT, size), recorder.blocks[:-1], strict=True)
            costs.append([(kind, predicted(block, nodes)[0]) for kind, block in blocks])
        assert (runner.forwards, [one.forwards for one in drafted]) == schedule(costs, fdfo)


@pytest.mark.parametrize("fdfo", [False, True], ids=["sync", "fdfo"])
def test_informed_drafts_leave_the_tokens_and_save_forwards(fdfo: bool, tmp_path: Path) -> None:
    file = tmp_path / "drafter.json"
    save_drafter(DrafterFile(6), file)
    prompts = prompts_of(7, 3)
    plain_runner, runner = RealRunner(seed=3), RealRunner(seed=3)
    plain = serve(plain_runner, LowConfidence(plain_config(8, 0.6, MASK, fdfo=fdfo)), prompts)
    algorithm = sglang.algorithm_class()(plain_config(8, 0.6, MASK, fdfo=fdfo, draftgraph_file=str(file)))
    assert [one.output for one in serve(runner, algorithm, prompts)] == [one.output for one in plain]
    assert runner.forwards < plain_runner.forwards


def test_sglang_finds_the_plug_in_by_its_entry_point() -> None:
    from sglang.srt import plugins
    from sglang.srt.dllm.algorithm import algo_name_to_cls, get_algorithm_cls

    algo_name_to_cls.pop("DraftGraph", None)
    plugins._plugins_loaded = False
    plugins.load_plugins()
    assert get_algorithm_cls("DraftGraph") is sglang.algorithm_class()
    assert issubclass(sglang.algorithm_class(), LowConfidence) and TOP_J


def server_args(folder: Path, **facts: Any) -> Any:
    """A server's arguments for a checkpoint folder without weights and a configuration written by us."""
    from sglang.srt.server_args import ServerArgs

    config = {
        "model_type": "qwen3", "architectures": ["SDARForCausalLM"], "vocab_size": 151936, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, **facts,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    draft_config(folder, random_graph(0, 4, 6), 4, 0.9, MASK, fdfo=True)
    return ServerArgs(
        model_path=str(folder), device="cpu", dllm_algorithm="DraftGraph",
        dllm_algorithm_config=str(folder / "server.yaml"),
    )  # fmt: skip


def test_a_server_reads_the_file_that_was_written(tmp_path: Path) -> None:
    """By SGLang's own reader of YAML and of the model's configuration."""
    from sglang.srt.dllm.algorithm.base import DllmAlgorithm

    sglang.register()
    args = server_args(tmp_path)
    sglang.algorithm_class().configure_server_args(args)
    algorithm = DllmAlgorithm.from_server_args(args)
    assert type(algorithm) is sglang.algorithm_class()
    assert (algorithm.block_size, algorithm.threshold, algorithm.drafts.drafts, algorithm.fdfo) == (4, 0.9, 6, True)


def test_a_server_does_not_start_on_experts_with_a_capacity(tmp_path: Path) -> None:
    sglang.register()
    with pytest.raises(RuntimeConfigError, match="experts have a capacity"):
        sglang.algorithm_class().configure_server_args(server_args(tmp_path, expert_capacity=8, block_size=4))
