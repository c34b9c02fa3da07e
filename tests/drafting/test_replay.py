"""Replay against walking the decodes in plain Python."""

from itertools import pairwise

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.replay import replay, walk
from drafting.values import DepthError, path_value
from tests.support.toy import naive_accepted, naive_blocks, naive_forwards, random_nodes, toy_traces

A, AB, ABC = ((1, 1),), ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))
CASES = [
    dict(rule="static:1"),
    dict(rule="static:1", length=12, noise=0.1),
    dict(rule="static:2", length=9),
    dict(rule="threshold:0.5", surprises=0.1),
    dict(rule="threshold:-0.5"),
    dict(rule="static:1", idle=0.3),
    dict(rule="static:2", prompts=3, blocks=3, length=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_forwards_are_those_of_the_naive_walk(case: dict, seed: int) -> None:
    traces = toy_traces(seed, **case)
    blocks = naive_blocks(traces)
    table = AnchorTable.from_traces(traces, max_depth=None)
    rng = np.random.default_rng(seed)
    for size in (0, 1, 4, 20, 60):
        nodes = random_nodes(blocks, rng, size)
        walked = [naive_forwards(nodes, block) for block in blocks]
        result = replay(nodes, table)
        _, visited = walk(nodes, table)
        per_block = [1 + int(visited[low:high].sum()) for low, high in pairwise(table.block_ptr)]
        assert per_block == [forwards for forwards, _ in walked]
        assert result.forwards == sum(forwards for forwards, _ in walked)
        assert result.plain_forwards == traces.n_steps
        assert result.nfe_reduction == pytest.approx(traces.n_steps / result.forwards)
        starts = [
            (b["prompt_index"], b["block"], a) for b, (_, steps) in zip(blocks, walked, strict=True) for a in steps
        ]
        rows = np.flatnonzero(visited)
        assert list(zip(table.prompt_index[rows], table.block[rows], table.step[rows], strict=True)) == starts
        accepted = [
            naive_accepted(nodes, b["chains"][a - 1])
            for b, (_, steps) in zip(blocks, walked, strict=True)
            for a in steps
        ]
        assert result.visited_histogram.tolist() == np.bincount(accepted, minlength=1).tolist()
        if accepted:
            assert result.accepted_drafts_visited == pytest.approx(np.mean(accepted))
            assert result.accepted_drafts == pytest.approx(path_value(nodes, table))
        for prompt_index, forwards, plain in zip(
            result.prompt_indices, result.forwards_per_prompt, result.plain_per_prompt, strict=True
        ):
            own = [(n, b) for (n, _), b in zip(walked, blocks, strict=True) if b["prompt_index"] == prompt_index]
            assert (forwards, plain) == (sum(n for n, _ in own), sum(b["steps"] for _, b in own))
        tokens = traces.commit_token.size / sum(forwards for forwards, _ in walked)
        assert result.tokens_per_forward == pytest.approx(tokens)


def test_an_empty_graph_costs_what_plain_decoding_costs() -> None:
    table = AnchorTable.from_traces(toy_traces(0, rule="threshold:0.4"), None)
    result = replay([], table)
    assert result.forwards == result.plain_forwards
    assert result.nfe_reduction == 1.0
    assert walk([], table)[1].all()


def test_a_whole_block_known_costs_two_forwards() -> None:
    """Step 1 is the refresh; the forward at the anchor after it accepts every state but the full block."""
    table = AnchorTable.from_traces(toy_traces(3, prompts=1, blocks=1, length=7, noise=0.0), None)
    assert replay([state for chain in table.chains() for state in chain], table).forwards == 2


def test_a_graph_deeper_than_the_chains_is_refused_not_miscounted() -> None:
    table = AnchorTable.from_traces(toy_traces(1, length=8), max_depth=2)
    with pytest.raises(DepthError, match="max_depth=None"):
        replay([A, AB, ABC], table)


def test_literal_chains_cannot_be_replayed() -> None:
    with pytest.raises(ValueError, match="no blocks to replay"):
        replay([A], AnchorTable.from_chains([[A, AB]]))


def test_nothing_recorded() -> None:
    result = replay([A], AnchorTable.from_traces(toy_traces(0).select([])))
    assert (result.forwards, result.plain_forwards) == (0, 0)
    assert np.isnan(result.nfe_reduction)
    assert np.isnan(result.tokens_per_forward)
    assert (result.accepted_drafts, result.accepted_drafts_visited) == (0.0, 0.0)
