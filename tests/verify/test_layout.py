"""Where blocks lie, and what each cache mode promises."""

import pytest

from verify.layout import BACKENDS, CACHE_MODES, LayoutError, SequenceLayout, exactness


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_bidirectional_blocks_start_after_the_prompt(cache):
    assert SequenceLayout.make(7, 12, 4, cache) == SequenceLayout(19, (7, 11, 15), 4)


def test_block_causal_blocks_count_from_zero():
    assert SequenceLayout.make(8, 8, 4, "block_causal") == SequenceLayout(16, (8, 12), 4)


def test_block_causal_first_block_holds_the_prompts_tail():
    assert SequenceLayout.make(7, 12, 4, "block_causal") == SequenceLayout(20, (4, 8, 12, 16), 4)
    assert SequenceLayout.make(3, 1, 4, "block_causal") == SequenceLayout(4, (0,), 4)
    assert SequenceLayout.make(3, 2, 4, "block_causal") == SequenceLayout(8, (0, 4), 4)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_bidirectional_lengths_are_whole_blocks(cache):
    with pytest.raises(LayoutError, match="generation length 13 is no multiple of block length 4; use 16"):
        SequenceLayout.make(7, 13, 4, cache)


@pytest.mark.parametrize("cache", CACHE_MODES)
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((0, 8, 4), "the prompt length is 0, expected at least 1"),
        ((3, 0, 4), "the generation length is 0, expected at least 1"),
        ((3, 8, 0), "the block length is 0, expected at least 1"),
        ((3, 8, -4), "the block length is -4, expected at least 1"),
    ],
)
def test_lengths_below_one_are_refused(cache, lengths, message):
    with pytest.raises(LayoutError, match=message):
        SequenceLayout.make(*lengths, cache)


def test_unknown_words_are_refused():
    expected = "unknown cache mode 'cache', expected one of none, prefix, dual, block_causal"
    with pytest.raises(LayoutError, match=expected):
        SequenceLayout.make(3, 8, 4, "cache")
    with pytest.raises(LayoutError, match=expected):
        exactness("cache", "packed")
    with pytest.raises(LayoutError, match="unknown back-end 'fused', expected one of packed, expanded"):
        exactness("dual", "fused")


def test_the_exactness_table():
    table = {(c, b): exactness(c, b).exact for c in CACHE_MODES for b in BACKENDS}
    assert table == {
        ("none", "packed"): False, ("none", "expanded"): True,
        ("prefix", "packed"): False, ("prefix", "expanded"): True,
        ("dual", "packed"): True, ("dual", "expanded"): True,
        ("block_causal", "packed"): True, ("block_causal", "expanded"): True,
    }  # fmt: skip
    assert "suffix sees the real block" in exactness("prefix", "packed").reason
    assert exactness("dual", "packed").reference == "plain dual-cache decoding"
