"""Times of plain decoding, graphs and informed drafts: what is measured in which order, and what is made of it."""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks.informed_time import Timer, compared
from tests.support.models import tiny_checkpoint
from verify.decoding import DecodeConfig, DecodeResult, decode
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import InformedDrafter
from verify.policies.specification import make_policy

PROMPTS = [(5, 9, 14), (4, 8, 15, 16), (3, 9)]


def test_every_round_decodes_every_prompt_with_everything() -> None:
    checkpoint, config = tiny_checkpoint(seed=3), DecodeConfig(8, 16, "block_causal", top_j=2)
    ticks = itertools.count()
    timer = Timer(checkpoint, "static:1", config, clock=lambda: next(ticks))
    drafters = {"plain": GraphDrafter(), "informed": InformedDrafter(3)}
    seconds, results = timer.run(drafters, PROMPTS, 2)
    assert {name: values.tolist() for name, values in seconds.items()} == dict.fromkeys(drafters, [[1.0] * 3] * 2)
    assert next(ticks) == 2 * 2 * 3 * 2
    for number, prompt in enumerate(PROMPTS):
        plain = decode(checkpoint.denoiser, prompt, make_policy("static:1"), config, prompt_index=number)
        assert [results[name][number].tokens for name in drafters] == [plain.tokens] * 2
        assert results["plain"][number].forwards == plain.forwards
    informed, plainly = (sum(one.forwards for one in results[name]) for name in ("informed", "plain"))
    assert informed < plainly


def test_a_time_is_the_median_over_rounds_and_a_ratio_is_one_of_sums() -> None:
    seconds = {
        "plain": np.array([[8.0, 16.0], [8.0, 16.0], [99.0, 16.0]]),
        "graph": np.array([[4.0, 8.0]] * 3),
        "informed": np.array([[2.0, 4.0]] * 3),
    }
    one = [DecodeResult([7, 7, 7], 3, forwards=5)] * 2
    found = compared(seconds, dict.fromkeys(seconds, one))
    assert found["seconds"] == {"plain": 24.0, "graph": 12.0, "informed": 6.0}
    assert found["speedup"] == {"graph": [2.0, 2.0, 2.0], "informed": [4.0, 4.0, 4.0]}
    assert found["informed_over_graph"] == [2.0, 2.0, 2.0]
    assert found["tokens_per_second"]["informed"] == 1.0 and found["forwards"]["graph"] == 10
    assert found["seconds_of_rounds"]["plain"] == [24.0, 24.0, 115.0]
