"""Chains derived from traces against the naive derivation, and what the table promises."""

import dataclasses

import numpy as np
import pytest

import drafting.anchors
from drafting.anchors import AnchorTable
from drafting.codes import formula_codes
from tests.support.toy import naive_blocks, toy_traces

CASES = [
    dict(rule="static:1"),
    dict(rule="static:2", length=9),
    dict(rule="static:3", length=8),
    dict(rule="threshold:0.5"),
    dict(rule="threshold:-0.5", surprises=0.1),
    dict(rule="static:1", surprises=0.2, top_j=1),
    dict(rule="static:1", idle=0.3),
    dict(rule="static:1", prompts=1, blocks=1, length=1),
    dict(rule="static:1", prompts=2, blocks=1, length=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_chains_are_those_of_the_definition(case: dict, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting.anchors, "_CHUNK", 5)  # several chunks, the last one short
    traces = toy_traces(seed, **case)
    blocks = naive_blocks(traces)
    table = AnchorTable.from_traces(traces, max_depth=None)
    assert list(table.chains()) == [chain for block in blocks for chain in block["chains"]]
    assert table.block_steps.tolist() == [block["steps"] for block in blocks]
    assert table.block_prompt.tolist() == [block["prompt_index"] for block in blocks]
    assert table.block_index.tolist() == [block["block"] for block in blocks]
    expected = [
        (block["prompt_index"], block["block"], a, block["steps"] - a)
        for block in blocks
        for a in range(1, block["steps"])
    ]
    assert list(zip(table.prompt_index, table.block, table.step, table.steps_left, strict=True)) == expected
    assert not table.truncated.any()


def test_the_timing_of_ranks_by_hand() -> None:
    """Two positions known, a third: ranks come from the anchor's own step, commits of that step skipped."""
    traces = toy_traces(0, prompts=1, blocks=1, length=3)
    traces = dataclasses.replace(
        traces,
        masked_position=np.array([2, 0, 1, 1, 0, 0], dtype=np.int16),
        top_token=np.array([[7, 8], [1, 2], [3, 4], [4, 3], [1, 2], [2, 1]], dtype=np.int32),
        commit_position=np.array([2, 1, 0], dtype=np.int16),
        commit_token=np.array([7, 4, 2], dtype=np.int32),
    )
    # After step 1 the free positions rank 0, 1 (step 1's order); step 2 commits position 1 with its 2nd token.
    # Step 3 completes the block, so it is never a draft, and the anchor after step 2 has no chain.
    assert list(AnchorTable.from_traces(traces).chains()) == [[((2, 2),)], []]


def test_vocabulary_ranks_beyond_16_bits_are_refused_not_wrapped() -> None:
    traces = toy_traces(0, prompts=1, blocks=1, length=3)
    # Every commit is the 40000th token of its position: as int16 its rank would be -25536.
    tokens = np.full((len(traces.masked_position), 40000), -1, dtype=np.int32)
    tokens[:, -1] = 7
    wide = dataclasses.replace(traces, top_token=tokens, commit_token=np.full_like(traces.commit_token, 7))
    with pytest.raises(ValueError, match="the traces hold 40000 vocabulary ranks, at most 32767"):
        AnchorTable.from_traces(wide)


def test_codes_are_those_of_the_formulas() -> None:
    table = AnchorTable.from_traces(toy_traces(1, rule="threshold:0.2"))
    formulas = table.formulas(np.arange(len(table.code)))
    assert np.array_equal(table.code, formula_codes(formulas))


def test_the_cut_keeps_the_first_states_and_says_so() -> None:
    traces = toy_traces(2, length=10, surprises=0.05)
    whole, cut = AnchorTable.from_traces(traces, None), AnchorTable.from_traces(traces, 3)
    assert [chain[:3] for chain in whole.chains()] == list(cut.chains())
    assert cut.truncated.any()
    natural = whole.steps_left - 1
    # A chain that was cut before the limit for want of a formula is not truncated by the limit.
    assert np.array_equal(cut.truncated, (natural > 3) & (cut.lengths() == 3))


def test_select_is_the_table_of_the_selected_traces() -> None:
    traces = toy_traces(3, prompts=6, rule="threshold:0.5")
    part, direct = AnchorTable.from_traces(traces).select([1, 4]), AnchorTable.from_traces(traces.select([1, 4]))
    for field in dataclasses.fields(AnchorTable):
        assert np.array_equal(getattr(part, field.name), getattr(direct, field.name)), field.name


def test_no_rows_no_anchors() -> None:
    empty = AnchorTable.from_traces(toy_traces(0).select([]))
    assert (empty.n_anchors, empty.n_blocks, len(empty.code)) == (0, 0, 0)


def test_literal_chains() -> None:
    table = AnchorTable.from_chains([[((2, 1),), ((1, 3), (2, 1))], [], [((1, 1),)]], prompt_indices=[5, 5, 6])
    assert list(table.chains()) == [[((2, 1),), ((1, 3), (2, 1))], [], [((1, 1),)]]
    assert table.prompt_indices().tolist() == [5, 6]
    assert table.n_blocks == 0


@pytest.mark.parametrize("chain", [[((1, 1),), ((1, 1),)], [((1, 1),), ((2, 1), (3, 1))], [()]])
def test_a_chain_that_does_not_grow_is_refused(chain: list) -> None:
    with pytest.raises(ValueError, match="a chain must grow"):
        AnchorTable.from_chains([chain])


def test_traces_with_a_missing_step_are_refused() -> None:
    traces = toy_traces(0)
    step = traces.step.copy()
    step[3] = 9
    with pytest.raises(ValueError, match=r"row 3 .* is step 9, expected step 4"):
        AnchorTable.from_traces(dataclasses.replace(traces, step=step))


def test_a_position_committed_twice_is_refused() -> None:
    traces = toy_traces(0)
    position = traces.commit_position.copy()
    position[2] = position[0]
    with pytest.raises(ValueError, match="not masked then"):
        AnchorTable.from_traces(dataclasses.replace(traces, commit_position=position))


def test_a_depth_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_depth must be at least 1 or None, got 0"):
        AnchorTable.from_traces(toy_traces(0), 0)
