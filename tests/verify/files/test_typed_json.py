"""A dataclass is the specification of its file: what it holds comes back, and everything else is refused by place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify.files.strict_json import StrictJsonError, fail
from verify.files.typed_json import NOT_SAVED, AboveZero, Amount, Count, Name, Positive, from_json, to_json


@dataclass(frozen=True)
class Point:
    x: float
    label: Name | None = None

    def check(self, where: str) -> None:
        if self.x == 13:
            fail(f"{where}.x", "another number", self.x)


@dataclass(frozen=True)
class Everything:
    flag: bool
    number: int
    count: Count
    positive: Positive
    amount: Amount
    above: AboveZero
    text: str
    kind: Literal["a", "b"]
    points: tuple[Point, ...]
    pair: tuple[float, float]
    shares: dict[str, Amount]
    free: dict[str, Any]
    maybe: Point | None = None
    place: str = field(default="here", metadata=NOT_SAVED)


def content(**change: Any) -> dict[str, Any]:
    return {
        "flag": True, "number": -3, "count": 0, "positive": 1, "amount": 0, "above": 0.5, "text": "", "kind": "a",
        "points": [{"x": 1}, {"x": 2.5, "label": "two"}], "pair": [1, 2], "shares": {"a": 0.5},
        "free": {"deep": [{"x": None}]},
    } | change  # fmt: skip


def test_every_kind_of_field_is_read() -> None:
    found = from_json(Everything, content(unknown=[1, 2], place="not from the file"))
    assert found == Everything(
        True, -3, 0, 1, 0.0, 0.5, "", "a", (Point(1.0), Point(2.5, "two")), (1.0, 2.0), {"a": 0.5},
        {"deep": [{"x": None}]},
    )  # fmt: skip
    assert type(found.amount) is float and found.place == "here"
    assert from_json(Everything, to_json(found)) == found
    assert "place" not in to_json(found) and to_json(found)["points"][0] == {"x": 1.0, "label": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flag": 1}, "flag: expected true or false, found 1"),
        ({"number": True}, "number: expected an integer"),
        ({"number": 2**60}, "number: expected an integer, found 1152921504606846976"),
        ({"count": -1}, "count: expected an integer of at least 0"),
        ({"positive": 0}, "positive: expected an integer of at least 1"),
        ({"amount": -0.5}, "amount: expected a finite number of at least 0, found -0.5"),
        ({"above": 0}, "above: expected a finite number above 0, found 0"),
        ({"text": None}, "text: expected a text"),
        ({"text": "\ud800"}, "text: expected a text that UTF-8 can hold"),
        ({"kind": "c"}, 'kind: expected one of a, b, found "c"'),
        ({"kind": ["a"]}, "kind: expected one of a, b, found a list of 1"),
        ({"points": {}}, "points: expected a list, found an object of 0 fields"),
        ({"points": [7]}, "points[0]: expected an object, found 7"),
        ({"points": [{"label": "a"}]}, 'points[0]: expected the field "x", found only "label"'),
        ({"points": [{"x": 1}, {"x": "1"}]}, 'points[1].x: expected a finite number, found "1"'),
        ({"points": [{"x": 1, "label": ""}]}, "points[0].label: expected a text of 1 to"),
        ({"points": [{"x": 13}]}, "points[0].x: expected another number, found 13.0"),
        ({"pair": [1]}, "pair: expected a list of 2, found [1]"),
        ({"shares": {"a\x1b": -1}}, 'shares["a\\u001b"]: expected a finite number of at least 0, found -1'),
        ({"shares": {"": 1}}, "a key of shares: expected a text"),
        ({"free": []}, "free: expected an object, found []"),
        ({"maybe": 3}, "maybe: expected an object, found 3"),
    ],
)
def test_each_error_names_place_expected_and_found(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictJsonError, match="^" + re.escape(message)):
        from_json(Everything, content(**change))


def test_deep_nesting_ends_in_a_sentence() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    with pytest.raises(StrictJsonError, match="nesting of at most 16 levels"):
        from_json(Everything, content(free={"a": deep}))


def test_a_missing_field_and_no_object() -> None:
    with pytest.raises(StrictJsonError, match='file: expected the field "flag", found only nothing'):
        from_json(Everything, {})
    with pytest.raises(StrictJsonError, match="file: expected an object, found null"):
        from_json(Everything, None)
    with pytest.raises(StrictJsonError, match=r"^rows\[3\]: expected an object, found null"):
        from_json(Everything, None, "rows[3]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*content(), "x", "label"]) | st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.sampled_from([*content(), "maybe"]))
def test_whatever_comes_is_read_or_refused_with_a_short_line(value: Any, name: str) -> None:
    try:
        found = from_json(Everything, content(**{name: value}))
    except StrictJsonError as error:
        assert len(str(error)) < 2000 and str(error).isprintable()
    else:
        assert from_json(Everything, to_json(found)) == found
