"""The latency file: what is written can be read, and what is broken is refused with its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from figures.records.latency import load_latency
from figures.records.record import FigureDataError, save_record
from tests.support import saved_inputs


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = saved_inputs.write(tmp_path / "latency.json", saved_inputs.latency(4))
    table = load_latency(path)
    save_record(table, tmp_path / "again.json")
    assert load_latency(tmp_path / "again.json") == table
    assert table.at(4) == 14.0 and table.unit == "ms" and table.cache == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, 'format: expected "draftgraph-latency", found "other"'),
        ({"version": 9}, "version: expected 1, the only one this release reads, found 9"),
        ({"latency": [1.0]}, "drafts, query_tokens, latency, low and high of one length, found lengths 1, 3"),
        ({"latency": [0.0, 10.0, 10.0]}, "latency[0]: expected a finite number above 0, found 0.0"),
        ({"latency": ["1.0", 2.0, 3.0]}, 'latency[0]: expected a finite number above 0, found "1.0"'),
        ({"latency": 1.0}, "latency: expected a list, found 1.0"),
        ({"drafts": ["0", "1", "2"]}, 'drafts[0]: expected an integer of at least 0, found "0"'),
        ({"drafts": [True, 1, 2]}, "drafts[0]: expected an integer of at least 0, found true"),
        ({"drafts": [0, 2, 1]}, "drafts: expected numbers that ascend from 0, found [0, 2, 1]"),
        (
            {"query_tokens": [32, 64, 97]},
            "query_tokens[2]: expected batch * block_length * (1 + drafts) = 96, found 97",
        ),
        ({"low": [9.0, 11.0, 9.0]}, "latency[1]: expected low <= latency <= high, found [11.0, 10.0, 11.0]"),
        ({"refresh": None}, "refresh: expected a finite number above 0, found null"),
        ({"batch": "1"}, 'batch: expected an integer of at least 1, found "1"'),
        ({"device": 7}, "device: expected a text of 1 to 4096 characters, found 7"),
        ({"device": ""}, 'device: expected a text of 1 to 4096 characters, found ""'),
        ({"note": None}, "note: expected a text of 1 to 4096 characters, found null"),
        ({"unit": "s"}, 'unit: expected one of ms, found "s"'),
    ],
)
def test_broken_files_name_the_place(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = saved_inputs.write(tmp_path / "latency.json", saved_inputs.latency(2) | change)
    with pytest.raises(FigureDataError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        load_latency(path)


def test_a_field_that_is_missing(tmp_path: Path) -> None:
    content = saved_inputs.latency(2)
    del content["refresh"]
    with pytest.raises(FigureDataError, match='file: expected the field "refresh", found only "format", "version"'):
        load_latency(saved_inputs.write(tmp_path / "latency.json", content))
    with pytest.raises(FigureDataError, match=r"does not exist; measure one with `draftgraph latency --out"):
        load_latency(tmp_path / "nowhere.json")
