"""Where blocks end: AdaBlock's rule at its boundaries, and how a schedule is written."""

import numpy as np
import pytest

from verify.blocks import AdaBlock, RecordedBlocks, ScheduleError, check_length, make_schedule
from verify.layout import LayoutError, SequenceLayout

RULE = AdaBlock(block_length=8, tau=0.5, delimiters=(10, 13), default=4, window=6)


@pytest.mark.parametrize(
    ("tokens", "confidences", "expected"),
    [
        ([7, 7, 7, 7, 7, 7, 7, 7], [0.9] * 8, 4),  # no delimiter
        ([7, 7, 10, 7, 7, 7, 7, 7], [0.9, 0.9, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9], 3),  # tau itself is enough
        ([7, 7, 10, 7, 7, 7, 7, 7], [0.9, 0.9, np.nextafter(0.5, 0), 0.9, 0.9, 0.9, 0.9, 0.9], 4),
        ([10, 7, 7, 7, 7, 7, 7, 7], [0.6] * 8, 1),  # a block of one position
        ([7, 7, 7, 7, 7, 13, 7, 7], [0.6] * 8, 6),  # beyond the default
        ([7, 7, 7, 7, 7, 7, 13, 10], [0.9] * 8, 4),  # beyond the window
        ([7, 10, 7, 7, 13, 7, 7, 7], [0.1, 0.6, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1], 5),  # the likeliest, not the nearest
        ([7, 10, 7, 7, 13, 7, 7, 7], [0.6] * 8, 2),  # of equal ones the lower position
        ([7, 10, 13], [0.1, 0.1, 0.2], 3),  # what is left is less than the default
        ([7, 7, 10, 7, 7], [0.9, 0.9, 0.9, 0.9, 0.9], 3),  # ... or than the window
    ],
)
def test_the_likeliest_delimiter_of_the_window_ends_the_block(tokens, confidences, expected):
    assert RULE.length(np.array(tokens, dtype=np.int32), np.array(confidences)) == expected


@pytest.mark.parametrize(("left", "reach"), [(40, 6), (6, 6), (5, 5), (1, 1)])
def test_as_many_positions_are_shown_as_a_block_may_have(left, reach):
    assert RULE.reach(left) == reach
    assert AdaBlock(8, 0.5, (10,), default=8, window=3).reach(left) == min(left, 8)


def test_recorded_blocks_are_those_of_the_recording():
    recorded = RecordedBlocks((3, 1, 8), positions=20)  # stopped early: eight positions were never decoded
    assert [recorded.reach(left) for left in (20, 17, 16)] == [3, 1, 8]
    assert recorded.length(np.zeros(8, dtype=np.int32), np.full(8, 0.9)) == 8


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("adablock:0.30:198", "adablock:0.3:198"),
        ("adablock:0.3:271+198+271:32:32", "adablock:0.3:198+271"),
        ("adablock:0.3:198:16", "adablock:0.3:198:16"),
        ("adablock:1:198:32:16", "adablock:1:198:32:16"),
    ],
)
def test_a_schedule_has_one_text(text, spec):
    assert make_schedule(text, 32).spec == spec
    assert make_schedule(spec, 32) == make_schedule(text, 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fixed:3", "unknown schedule 'fixed:3'; expected adablock:tau:delimiters"),
        ("adablock:0.3", "it has 1 parameter, expected 2 to 4"),
        ("adablock:0:198", "tau is '0', expected a number above 0 and at most 1"),
        ("adablock:1.1:198", "tau is '1.1'"),
        ("adablock:0.3:newline", r"delimiters is 'newline', expected token ids joined by '\+'"),
        ("adablock:0.3:1+-2", r"delimiters is '1\+-2'"),
        ("adablock:0.3:198:0", "default is '0', expected an integer of at least 1"),
        ("adablock:0.3:198:33", "default of 33 positions, .* is 32; give a block length of at least 33"),
        ("adablock:0.3:198:16:64", "window of 64 positions, .* give a block length of at least 64"),
        ("adablock:0.3:198:16:32:1", "it has 5 parameters"),
    ],
)
def test_what_is_no_schedule_is_told(text, message):
    with pytest.raises(ScheduleError, match=message):
        make_schedule(text, 32)


@pytest.mark.parametrize("length", [0, 7])
def test_a_schedule_that_leaves_what_it_was_shown_is_refused(length):
    with pytest.raises(ScheduleError, match=f"gives a block {length} positions, expected 1 to 6"):
        check_length(RULE, length, 6)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_layout_under_a_schedule(cache):
    layout = SequenceLayout.make(5, 21, 8, cache, RULE)  # 21 positions are no multiple of 8
    assert (layout.length, layout.block_starts, layout.block_length) == (26, (5,), 8)
    assert [layout.reach(start) for start in (5, 20, 22, 25)] == [6, 6, 4, 1]
    assert SequenceLayout.make(5, 24, 8, cache).reach(13) == 8


def test_block_causal_models_have_their_own_blocks():
    with pytest.raises(LayoutError, match=r"adablock:0\.5:10\+13:4:6 .* block-causal model has the blocks"):
        SequenceLayout.make(5, 24, 8, "block_causal", RULE)


def test_query_tokens_of_a_shorter_block():
    layout = SequenceLayout.make(5, 21, 8, "dual", RULE)
    assert layout.step_query_tokens("dual", "packed", 5, 3, length=2) == 8
    assert layout.step_query_tokens("prefix", "packed", 5, 3, length=2) == 21 + 6
    assert layout.step_query_tokens("none", "expanded", 5, 3, length=2) == 4 * 26


def test_a_schedule_that_no_file_could_hold_is_refused():
    ids = "+".join(map(str, range(10000, 10900)))
    with pytest.raises(ScheduleError, match=r"900 delimiters is a text of \d+ characters, expected at most 4096"):
        make_schedule(f"adablock:0.3:{ids}", 32)
