"""The grid of identity: its cells agree, are found again, and say what does not agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import identity_cells
from benchmarks.identity_cells import INFORMED_LENGTHS, Cell, Informed, Options, Work, add, all_work, run_cells
from verify.decoding import DecodeResult
from verify.drafters.informed import InformedDrafter

OPTIONS = Options(prompts=2, calibration_prompts=2, random_graphs=1, budget=4, generation_length=16)


def work(folder: Path, policy: str = "threshold:0.7") -> Work:
    return Work(OPTIONS, "informed", policy, "block_causal", 4, str(folder))


def test_informed_drafts_need_what_the_state_log_predicts_and_are_not_run_twice(tmp_path, monkeypatch) -> None:
    cells = run_cells(work(tmp_path))
    assert {(cell.backend, cell.batch) for cell in cells} == {
        (backend, batch) for backend in ("packed", "expanded") for batch in (1, 2)
    }
    for cell in cells:
        assert cell.passed and cell.decodes == 2 and cell.block_length == 4 and cell.missed == 0
        assert cell.accepting and cell.forwards_counted == cell.forwards_predicted < cell.forwards_plain
    monkeypatch.setattr(Informed, "run", None)
    assert run_cells(work(tmp_path)) == cells


def test_a_log_that_lacks_a_state_does_not_pass(tmp_path, monkeypatch) -> None:
    """As where it was recorded with another drafter than the one that is replayed."""
    record = identity_cells.record_states
    monkeypatch.setattr(identity_cells, "record_states", lambda *found: record(*found[:-1], InformedDrafter(1)))
    assert any(cell.missed and not cell.passed for cell in run_cells(work(tmp_path, "static:1")))


@pytest.mark.parametrize(("tokens", "foreseen"), [([7, 9], 3), ([7, 8], 4)])
def test_a_decode_that_differs_is_named(tokens: list[int], foreseen: int) -> None:
    cell = Cell("static:1", "dual", "packed", "greedy", 32)
    add(cell, 0, 5, DecodeResult([7, 8], 2, 2, 3, 9, [0, 0, 0]), tokens, foreseen)
    assert not cell.passed and [found["prompt"] for found in cell.failures] == [5]


def test_graphs_stand_at_one_block_length_and_informed_drafts_at_all() -> None:
    everything = all_work(OPTIONS, "")
    assert len({(w.part, w.policy, w.cache, w.block_length) for w in everything}) == len(everything) == 16 * 5
    assert {w.block_length for w in everything if w.part == "graphs"} == {32}
    assert {w.block_length for w in everything if w.part == "informed"} == set(INFORMED_LENGTHS)
