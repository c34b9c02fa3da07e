"""What a message repeats of foreign text stays on one line, short, and harmless."""

from __future__ import annotations

import doctest

import pytest

import verify.files.quoting
from verify.files.quoting import quoted
from verify.files.strict_json import StrictJsonError, expect_plain, fail, show


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words", '"plain words"'),
        ("größer 是", '"größer 是"'),
        ('a "b" \\ c', '"a \\"b\\" \\\\ c"'),
        ("two\nlines\ttab", '"two\\nlines\\ttab"'),
        ("\x1b[2J\x9b", '"\\u001b[2J\\u009b"'),
        ("\u202eabc\u2028", '"\\u202eabc\\u2028"'),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_nothing_that_acts_on_a_terminal_comes_through(text: str, expected: str) -> None:
    assert quoted(text) == expected
    assert show(text) == expected


def test_a_long_text_is_cut_and_says_so() -> None:
    assert quoted("x" * 60) == '"' + "x" * 60 + '"'
    assert quoted("x" * 10**6) == '"' + "x" * 57 + '..."'
    assert quoted("abcdefgh", limit=6) == '"abc..."'


def test_a_strange_key_is_quoted_in_the_place_of_an_error() -> None:
    with pytest.raises(StrictJsonError, match=r'values\["\\u001b\[2J"\]: expected a finite number') as caught:
        expect_plain({"\x1b[2J": float("inf")}, "values")
    assert "\x1b" not in str(caught.value)
    with pytest.raises(StrictJsonError) as caught:
        expect_plain({"k" * 3000: {"x": float("inf")}}, "values")
    assert len(str(caught.value)) < 200
    with pytest.raises(StrictJsonError, match=r"values\.test\.gap: "):
        expect_plain({"test": {"gap": float("inf")}}, "values")


def test_a_message_of_the_reader_is_one_line() -> None:
    with pytest.raises(StrictJsonError) as caught:
        fail("policy", "a policy", "static\n:1")
    assert str(caught.value) == 'policy: expected a policy, found "static\\n:1"'


def test_the_example_holds() -> None:
    assert doctest.testmod(verify.files.quoting).failed == 0
