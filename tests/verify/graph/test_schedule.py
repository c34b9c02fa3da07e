"""The schedule of blocks in the validity of a file: stated only where there is one, and never guessed."""

import json
from dataclasses import replace

import jsonschema
import pytest

from tests.support.paths import DOCS
from verify.drafters.file import DrafterFile, load_drafter, save_drafter
from verify.files.strict_json import StrictJsonError
from verify.graph.file import GraphFile, format_graph
from verify.graph.validity import Validity, read_validity

FIXED = Validity("toy", None, "static:1", 8, "dual", 0.0, 4)
SCHEDULED = replace(FIXED, schedule="adablock:0.3:5+9:4")


def test_it_is_stated_only_where_there_is_one():
    assert "schedule" not in FIXED.stated()
    assert read_validity(FIXED.stated()) == FIXED
    assert read_validity(SCHEDULED.stated()) == SCHEDULED


def test_the_schema_knows_it():
    schema = json.loads((DOCS / "graph-format.schema.json").read_text(encoding="utf-8"))
    for validity in (FIXED, SCHEDULED):
        jsonschema.validate(json.loads(format_graph(GraphFile.from_nodes([((1, 1),)], validity))), schema)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "schedule: expected .*null"),
        ("", "schedule"),
        ("fixed", "a schedule with valid parameters, found unknown schedule 'fixed'"),
        ("adablock:0.30:5", 'schedule: expected "adablock:0.3:5"'),
        ("adablock:0.3:5:8", 'schedule: expected "adablock:0.3:5"'),
        ("adablock:0.3:9+5", r'schedule: expected "adablock:0.3:5\+9"'),
        ("adablock:0.3:5:9", "default of 9 positions"),
    ],
)
def test_what_is_refused(found, message):
    with pytest.raises(StrictJsonError, match=message):
        read_validity({**FIXED.stated(), "schedule": found})


def test_block_causal_models_have_none():
    with pytest.raises(StrictJsonError, match="no such field in cache mode block_causal"):
        read_validity({**SCHEDULED.stated(), "cache": "block_causal"})


def test_runs_with_another_schedule_do_not_fit():
    assert SCHEDULED.mismatches(SCHEDULED) == []
    assert FIXED.mismatches(SCHEDULED) == [
        "schedule: the graph was calibrated for None, the run has 'adablock:0.3:5+9:4'"
    ]


def test_a_drafter_file_keeps_it(tmp_path):
    for validity in (FIXED, SCHEDULED):
        save_drafter(DrafterFile(3, validity=validity), tmp_path / "drafter.json")
        assert load_drafter(tmp_path / "drafter.json").validity == validity
