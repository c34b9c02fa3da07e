"""The drafter file: what is written is read again, and what breaks a rule is refused with the place and both sides."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import DOCS
from verify.drafters.file import (
    DRAFTER_FORMAT_VERSION,
    FIELDS,
    MAX_DRAFTS,
    DrafterFile,
    DrafterFileError,
    load_drafter,
    save_drafter,
)
from verify.drafters.settings import InformedSettings
from verify.graph.file import MAX_BYTES, GraphFileError, load_graph
from verify.graph.validity import Validity

TUNED_FOR = Validity("toy", "r1", "static:1", 8, "dual", 0.0, 4)
TUNED = DrafterFile(
    drafts=6,
    settings=InformedSettings(coefficient=0.75, horizon=5, fill="alternatives+graph", hedges=1),
    formulas=(((1, 1),), ((2, 1),), ((1, 1), (2, 3))),
    validity=TUNED_FOR,
    values={"test": {"nfe_reduction": 2.5, "nfe_reduction_interval": [2.25, 2.75]}},
    provenance={"search": "by hand"},
)


def payload(**changes: Any) -> dict[str, Any]:
    """The object of a whole file, with some of its fields changed."""
    stated: dict[str, Any] = {
        "format": "draftgraph-drafter",
        "version": 1,
        "drafter": "informed",
        "drafts": 6,
        "settings": {"hedges": 1},
        "nodes": [[], [[1, 1]], [[2, 1]]],
        "validity": TUNED_FOR.stated(),
        "values": {},
        "provenance": {},
    }
    return {**stated, **changes}


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DrafterFileError) as caught:
        load_drafter(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.isprintable() and len(message) < 700
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "drafter",
    [TUNED, DrafterFile(0), DrafterFile(3, replace(TUNED.settings, fill="none", hedges=0)), replace(TUNED, values={})],
)
def test_what_is_written_is_read_again(drafter: DrafterFile, tmp_path: Path) -> None:
    path = tmp_path / "new" / "drafter.json"
    save_drafter(drafter, path)
    assert load_drafter(path) == drafter
    text = path.read_text(encoding="utf-8")
    save_drafter(load_drafter(path), path)
    assert path.read_text(encoding="utf-8") == text


def test_the_drafter_is_the_one_that_was_saved(tmp_path: Path) -> None:
    save_drafter(TUNED, tmp_path / "drafter.json")
    made = load_drafter(tmp_path / "drafter.json").make()
    assert (made.max_drafts, made.max_vocabulary_rank, made.settings) == (6, 3, TUNED.settings)
    assert made.describe() == TUNED.make().describe()


def test_settings_that_are_left_out_have_their_defaults(tmp_path: Path) -> None:
    found = load_drafter(written(tmp_path / "drafter.json", payload(settings={}, nodes=None)))
    assert found.settings == InformedSettings() and found.formulas == ()


HOSTILE = {
    "a graph": ({"format": "draftgraph"}, 'format: expected "draftgraph-drafter", found "draftgraph"'),
    "a later version": ({"version": 2}, "version: expected 1, the only one this release reads, found 2"),
    "version true": ({"version": True}, "version: expected 1, the only one this release reads, found true"),
    "another drafter": ({"drafter": "oracle"}, 'drafter: expected "informed", found "oracle"'),
    "an unknown field": ({"pickle": 1}, 'no field but format, version, drafter,.* found the field "pickle"'),
    "an unknown setting": ({"settings": {"speed": 9}}, 'settings: expected no field but coef.* the field "speed"'),
    "settings in a list": ({"settings": []}, "settings: expected an object, found \\[\\]"),
    "a negative setting": ({"settings": {"hedges": -1}}, "settings: hedges is -1, expected a whole number of at least"),
    "a setting in words": ({"settings": {"horizon": "all"}}, 'settings.horizon: expected an integer, found "all"'),
    "a half horizon": ({"settings": {"horizon": 1.5}}, "settings.horizon: expected an integer, found 1.5"),
    "bridges of 1": ({"settings": {"bridges": 1}}, "settings.bridges: expected true or false, found 1"),
    "an unknown fill": ({"settings": {"fill": "\u001b[2J"}}, r"settings: fill is '\\x1b\[2J', expected one of none,"),
    "drafts negative": ({"drafts": -1}, f"drafts: expected an integer from 0 to {MAX_DRAFTS}, found -1"),
    "drafts true": ({"drafts": True}, "drafts: expected an integer from 0 to .* found true"),
    "drafts absurd": ({"drafts": 10**12}, "drafts: expected an integer from 0 to .* found 1000000000000"),
    "no graph": ({"nodes": None}, "nodes: expected the draft formulas that the settings give rows to, found null"),
    "a bare root": ({"nodes": [[]]}, "nodes: expected the draft formulas .* found the root alone"),
    "an idle graph": ({"settings": {}}, "nodes: expected null, as no setting gives rows to a graph, found a list of 3"),
    "no root": ({"nodes": [[[1, 1]]]}, r"nodes\[0\]: expected the root, \[\], found {1:1}"),
    "a node twice": ({"nodes": [[], [[1, 1]], [[1, 1]]]}, r"nodes\[2\]: expected a node that stands once"),
    "a position beyond the block": ({"nodes": [[], [[9, 1]]]}, "position rank: expected an integer from 1 to 8"),
    "a token beyond top_j": ({"nodes": [[], [[1, 5]]]}, "vocabulary rank: expected an integer from 1 to 4, found 5"),
    "a rank of true": ({"nodes": [[], [[True, 1]]]}, "position rank: expected an integer from 1 to 8, found true"),
    "another spelling": ({"validity": {**TUNED_FOR.stated(), "policy": "static:01"}}, 'policy: expected "static:1"'),
    "no cache mode": ({"validity": {**TUNED_FOR.stated(), "cache": "all"}}, "validity.cache: expected one of none,"),
    "validity in words": ({"validity": "static:1"}, 'validity: expected an object, found "static:1"'),
    "an interval backwards": (
        {"values": {"test": {"nfe_reduction_interval": [2, 1]}}},
        "values.test.nfe_reduction_interval: expected an interval",
    ),
    "provenance in a list": ({"provenance": []}, "provenance: expected an object, found \\[\\]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str, tmp_path: Path) -> None:
    changes, message = HOSTILE[name]
    path = written(tmp_path / "drafter.json", payload(**changes))
    refusal(path)
    with pytest.raises(DrafterFileError, match=message):
        load_drafter(path)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_must_be_there(name: str, tmp_path: Path) -> None:
    stated = payload()
    del stated[name]
    said = refusal(written(tmp_path / "drafter.json", stated))
    assert f'"{name}"' in said or said.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text: expected JSON"),
        ("[1]", "file: expected an object, found [1]"),
        ('{"format": "draftgraph-drafter", "format": 1}', 'object: expected every key once, found the key "format"'),
        ('{"a": NaN}', "number: expected a finite number, found NaN"),
        ("[" * 100_000, "expected nesting of at most"),
    ],
)
def test_what_is_no_plain_json_is_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(written(tmp_path / "drafter.json", text))


def test_other_files_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.json").startswith("path: expected a readable JSON file")
    assert refusal(tmp_path) == "path: expected a JSON file, found a directory"
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert refusal(tmp_path / "large.json").startswith(f"size: expected at most {MAX_BYTES} bytes")
    with pytest.raises(GraphFileError, match='format: expected "draftgraph", found "draftgraph-drafter"'):
        load_graph(written(tmp_path / "drafter.json", payload()))


def test_what_would_be_refused_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "drafter.json"
    for broken in (replace(TUNED, drafts=-1), replace(TUNED, formulas=()), replace(TUNED, provenance={"x": {1, 2}})):
        with pytest.raises(DrafterFileError, match=str(path)):
            save_drafter(broken, path)
    assert not path.exists()


def test_the_page_shows_a_file_that_loads_and_names_every_field(tmp_path: Path) -> None:
    page = (DOCS / "drafter-format.md").read_text(encoding="utf-8")
    assert page.startswith(f"# The drafter file, format version {DRAFTER_FORMAT_VERSION}\n")
    found = load_drafter(written(tmp_path / "drafter.json", page.split("```json\n")[1].split("```")[0]))
    assert found.formulas and found.validity is not None
    names = [*FIELDS, *(item.name for item in fields(InformedSettings))]
    assert [name for name in names if f"`{name}`" not in page] == []
