"""What the comparison of informed drafts with graphs says of their widths, on two short decodes."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import informed
from benchmarks.informed import Cell, matches, over
from calibrate.models.checkpoint import load_checkpoint
from calibrate.recording.states import StateLogBuilder
from drafting.replay import replay
from verify.drafters.informed import InformedDrafter


@pytest.fixture(scope="module")
def cell() -> Cell:
    before, informed.GENERATION = informed.GENERATION, 16
    options = argparse.Namespace(prompts=2, search_prompts=2, batch_size=2)
    found = Cell(load_checkpoint("bundled"), ("static:1", "dual", 8), options)
    informed.GENERATION = before
    return found


def test_drafted_blocks_are_those_that_query_tokens_were_paid_for(cell: Cell) -> None:
    nodes = cell.exact(4).nodes
    counted = cell.decode(nodes)
    refreshes = sum(2 * (len(prompt) + 16) for prompt in cell.prompts)  # two blocks each, the whole sequence
    forwards = sum(result.forwards for result in counted.values())
    paid = sum(result.query_tokens for result in counted.values()) - refreshes - 8 * (forwards - 4)
    assert cell.drafted_blocks(nodes) == pytest.approx(paid / 8 / forwards)
    assert matches(replay(nodes, cell.anchors), counted)


def test_the_graph_at_equal_rows_is_the_smallest_that_is_wide_enough(cell: Cell) -> None:
    wanted = 2.5
    found = cell.as_wide_as(wanted)
    assert cell.drafted_blocks(found.nodes) >= wanted > cell.drafted_blocks(cell.exact(found.budget - 1).nodes)
    widest = cell.as_wide_as(1000.0)
    assert widest.budget <= informed.WIDEST and cell.drafted_blocks(widest.nodes) < 1000


def test_informed_drafts_are_counted_from_the_states_of_their_own_decode(cell: Cell) -> None:
    drafter, watching = InformedDrafter(4), StateLogBuilder()
    counted = cell.decode(drafter, watching)
    replayed = cell.replayed(drafter, watching)
    assert replayed.exact and matches(replayed, counted)
    estimate, low, high = over(replayed, replay((), cell.anchors))
    assert 1 < low <= estimate <= high
