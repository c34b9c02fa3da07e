"""Every file in tests/verify/graph/hostile is refused, and the message says what was expected and what came."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from verify.files.strict_json import MAX_CONTAINERS
from verify.graph.file import MAX_BYTES, MAX_KEYS, MAX_NODES, GraphFileError, load_graph

HERE = Path(__file__).parent
HOSTILE = HERE / "hostile"

# file -> (place and expectation, finding): the beginning of each half of the message.
EXPECTED = {
    "not_json": ("text: expected JSON", "found none at line 1, column 1: expecting value"),
    "empty": ("text: expected JSON", "found none at line 1, column 1: expecting value"),
    "truncated": ("text: expected JSON", "found none at line 14, column 15: unterminated string"),
    "trailing_text": ("text: expected JSON", "found none at line 38, column 1: extra data"),
    "not_utf8": ("text: expected UTF-8", "found byte 0xff at offset 75"),
    "duplicate_key": ("object: expected every key once", 'found the key "version" twice'),
    "duplicate_key_inside": ("object: expected every key once", 'found the key "search" twice'),
    "nan": ("number: expected a finite number", "found NaN"),
    "infinity": ("number: expected a finite number", "found -Infinity"),
    "overflowing_float": ("number: expected a finite number", "found 1e999"),
    "huge_integer": ("number: expected an integer within ±(2**53 - 1)", "found 9007199254740993"),
    "top_level_list": ("file: expected an object", "found a list of 1"),
    "other_format": ('format: expected "draftgraph"', 'found "safetensors"'),
    "no_format": ('format: expected "draftgraph"', "found no such field"),
    "future_version": ("version: expected 1, the only one this release reads", "found 2"),
    "version_as_text": ("version: expected 1, the only one this release reads", 'found "1"'),
    "version_as_true": ("version: expected 1, the only one this release reads", "found true"),
    "version_as_float": ("version: expected 1, the only one this release reads", "found 1.0"),
    "missing_field": ("file: expected the field", 'found only "format", "version", "validity",'),
    "unknown_field": ("file: expected no field but format, version,", 'found the field "pickle"'),
    "validity_missing_field": ("validity: expected the", 'found only "model", "model_revision",'),
    "validity_unknown_field": ("validity: expected no field but model,", 'found the field "seed"'),
    "validity_not_an_object": ("validity: expected an object", 'found "static:1"'),
    "model_empty": ("validity.model: expected a text of 1 to 4096 characters", 'found ""'),
    "model_half_surrogate": ("validity.model: expected a text that UTF-8 can", 'found "\\ud800"'),
    "revision_as_number": ("validity.model_revision: expected a text of 1 to 4096", "found 7"),
    "policy_bad_parameter": ("validity.policy:", "found policy 'static:0': k is '0', expected an integer"),
    "policy_bad_quota": ("validity.policy:", "found policy 'quota:x': S is 'x', expected an integer"),
    "policy_other_spelling": ('validity.policy: expected "static:1"', 'found "static:01"'),
    "unknown_context": ("validity.cache: expected one of none, prefix, dual,", 'found "suffix"'),
    "temperature_negative": ("validity.temperature: expected a finite number of at", "found -0.5"),
    "temperature_as_false": ("validity.temperature: expected a finite number of at", "found false"),
    "block_length_zero": ("validity.block_length: expected an integer from 1 to 32767", "found 0"),
    "block_length_absurd": ("validity.block_length: expected an integer from", "found 1000000000"),
    "top_j_as_true": ("validity.top_j: expected an integer from 1 to 32767", "found true"),
    "other_rank_origin": ('rank_origin: expected "lagged"', 'found "surrogate"'),
    "other_tie_rule": ('tie_rule: expected "probability descending, then', 'found "as it comes"'),
    "nodes_not_a_list": ("nodes: expected a list", "found an object of 1 fields"),
    "no_nodes": ("nodes: expected 1 to 65536 nodes, the root first", "found 0 nodes"),
    "root_missing": ("nodes[0]: expected the root, []", "found {1:1}"),
    "root_not_first": ("nodes[0]: expected the root, []", "found {1:1}"),
    "root_twice": ("nodes[4]: expected a node that stands once", "found {}, which is nodes[0] too"),
    "duplicate_node": ("nodes[4]: expected a node that", "found {2:1}, which is nodes[2] too"),
    "pair_of_three": ("nodes[1][0]: expected a pair [position rank, vocabulary", "found 3 items"),
    "pair_not_a_list": ("nodes[1][0]: expected a pair [position rank, vocabulary rank]", "found 1"),
    "rank_as_true": ("nodes[1][0], vocabulary rank: expected an integer from 1 to 4", "found true"),
    "rank_as_float": ("nodes[1][0], position rank: expected an integer from 1 to 8", "found 1.0"),
    "rank_zero": ("nodes[1][0], position rank: expected an integer from 1 to 8", "found 0"),
    "position_rank_beyond_block": ("nodes[1][0], position rank: expected an integer", "found 9"),
    "vocabulary_rank_beyond_top_j": ("nodes[1][0], vocabulary rank: expected an", "found 5"),
    "unsorted_pairs": ("nodes[3]: expected position ranks in ascending order", "found 2 before 1"),
    "repeated_position_rank": ("nodes[3]: expected every position", "found position rank 1 twice"),
    "node_fills_the_block": ("nodes[4]: expected fewer than 8 pairs (the block", "found 8 pairs"),
    "node_without_path": ("nodes[4]: expected a path from the root by", "found none to {1:2, 3:1}"),
    "edges_form_a_cycle": ("edges[4]: expected a child that is a", "found {1:1, 2:1} -> {1:1}"),
    "edge_to_itself": ("edges[4]: expected a child that is a proper", "found {1:1} -> {1:1}"),
    "edge_to_no_superset": ("edges[4]: expected a child that is a proper", "found {1:1} -> {2:1}"),
    "edge_skips_a_step": ("edges[4]: expected 1 more pairs in the", "found 2, {} -> {1:1, 2:1}"),
    "edge_twice": ("edges[4]: expected every edge once", "found [0, 1] twice"),
    "edge_left_out": ("edges: expected every edge that", "found none from nodes[2] to nodes[3]"),
    "edge_beyond_nodes": ("edges[4], child: expected an integer from 0 to 3", "found 4"),
    "edge_negative": ("edges[4], parent: expected an integer from 0 to 3", "found -1"),
    "edge_of_three": ("edges[4]: expected a pair [parent, child]", "found 3 items"),
    "edge_not_a_list": ("edges[4]: expected a pair [parent, child]", 'found "0->1"'),
    "wrong_depth": ("depths[3]: expected 2, the fewest edges from the root", "found 1"),
    "depth_as_true": ("depths[1]: expected 1, the fewest edges from the root", "found true"),
    "too_few_depths": ("depths: expected one depth per node, 4", "found 3"),
    "values_not_per_split": ("values.accepted_drafts: expected an object", "found 1.5"),
    "value_as_text": ("values.search.accepted_drafts: expected a finite number of", 'found "1.5"'),
    "interval_backwards": ("values.search.accepted_drafts_interval: expected an", "found [2, 1]"),
    "interval_of_one": ("values.search.accepted_drafts_interval: expected an", "found [2]"),
    "node_values_too_few": ("values.search.node_counts: expected a list of 4 numbers, one a node", "found 3 items"),
    "node_value_negative": ("values.search.node_reach[2]: expected a finite number of at least 0", "found -0.25"),
    "forwards_as_float": ("values.search.forwards_predicted: expected an integer", "found 10.5"),
    "provenance_as_list": ("provenance: expected an object", "found a list of 1"),
    "provenance_nested_deep": ("provenance.x[0][0][0][0][0][0][0][0][0][0][0", "found a deeper one"),
    "latency_without_unit": ("latency: expected the", 'found only "device", "query_tokens", "latency"'),
    "latency_in_seconds": ('latency.unit: expected "ms"', 'found "s"'),
    "latency_rows_descend": ("latency.query_tokens[1] (strictly ascending): expected an", "found 8"),
    "latency_of_zero": ("latency.latency[1]: expected a time above 0", "found 0"),
    "latency_uneven": ("latency: expected as many latencies as", "found 2 query tokens and 1 latencies"),
}


def refusal(path: Path) -> str:
    """The message of the loader, without the path it starts with."""
    with pytest.raises(GraphFileError) as caught:
        load_graph(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_the_table_names_every_file() -> None:
    assert {path.stem for path in HOSTILE.glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_hostile_file_is_refused(name: str) -> None:
    expectation, finding = EXPECTED[name]
    message = refusal(HOSTILE / f"{name}.json")
    assert message.startswith(expectation)
    assert finding in message.removeprefix(expectation)
    assert len(message) < 700 and message.isprintable()


@pytest.fixture
def valid() -> dict:
    """A graph that loads; the tests below spoil it in ways too large to keep as files."""
    return json.loads((HERE / "valid_graph.json").read_text(encoding="utf-8"))


def write(path: Path, payload: object) -> Path:
    path.write_text(json.dumps(payload), encoding="utf-8")
    return path


def test_the_valid_file_loads() -> None:
    assert load_graph(HERE / "valid_graph.json").budget == 3


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.json") == "path: expected a readable JSON file, found no such file or directory"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "path: expected a JSON file, found a directory"


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    assert refusal(tmp_path / "pipe.json") == "path: expected a JSON file, found neither a file nor a directory"


def test_an_endless_device_is_refused() -> None:
    assert refusal(Path("/dev/zero")) == "path: expected a JSON file, found neither a file nor a directory"


def test_a_file_of_absurd_size_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with open(path, "wb") as file:
        file.truncate(100 * 2**30)  # sparse: takes no space, but would fill the memory of a careless reader
    assert refusal(path) == f"size: expected at most {MAX_BYTES} bytes, found {100 * 2**30} bytes"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_nesting_bomb_is_refused(tmp_path: Path, opening: str) -> None:
    path = tmp_path / "bomb.json"
    path.write_text(opening * (MAX_KEYS - 1), encoding="utf-8")
    assert "expected nesting of at most" in refusal(path)


@pytest.mark.parametrize(
    ("item", "found"),
    [('{"k%07d":1}', f"at most {MAX_KEYS} keys, found more"), ('"k%07d" :1', f"at most {MAX_KEYS} keys, found more"),
     ("[]", f"at most {MAX_CONTAINERS} lists and objects, found")],
)  # fmt: skip
def test_a_file_of_millions_of_objects_is_refused_before_any_is_made(
    tmp_path: Path, valid: dict, item: str, found: str
) -> None:
    """Every key of a few bytes would become an object of hundreds."""
    count = MAX_CONTAINERS + 1 if item == "[]" else 400_000
    inside = ",".join(item % n if "%" in item else item for n in range(count))
    inside = f"{{{inside}}}" if item.startswith('"') else f"[{inside}]"
    path = tmp_path / "objects.json"
    path.write_text(json.dumps(valid).replace('"by hand"', inside), encoding="utf-8")
    tracemalloc.start()
    message = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message.startswith("size: expected") and found in message
    assert peak < MAX_BYTES + path.stat().st_size  # the bytes themselves, and no objects


def test_a_nesting_bomb_inside_a_valid_file_is_refused(tmp_path: Path, valid: dict) -> None:
    text = json.dumps(valid).replace('"by hand"', "[" * 500 + "]" * 500)
    path = tmp_path / "bomb.json"
    path.write_text(text, encoding="utf-8")
    assert "expected nesting of at most 16 levels, found a deeper one" in refusal(path)


def test_too_many_nodes_are_refused(tmp_path: Path, valid: dict) -> None:
    valid["nodes"] = [[]] * (MAX_NODES + 1)
    message = refusal(write(tmp_path / "many.json", valid))
    assert message == f"nodes: expected 1 to {MAX_NODES} nodes, the root first, found {MAX_NODES + 1} nodes"


def test_a_vocabulary_rank_that_16_bits_cannot_hold_is_refused(tmp_path: Path, valid: dict) -> None:
    valid["validity"]["top_j"] = 2**15
    message = refusal(write(tmp_path / "ranks.json", valid))
    assert message == "validity.top_j: expected an integer from 1 to 32767, found 32768"


def test_too_many_edges_are_refused(tmp_path: Path, valid: dict) -> None:
    valid["edges"] = [[0, 1]] * (2**20 + 1)
    message = refusal(write(tmp_path / "many.json", valid))
    assert message == f"edges: expected at most {2**20} edges, found {2**20 + 1} edges"


def test_a_number_of_a_million_digits_is_refused(tmp_path: Path, valid: dict) -> None:
    path = tmp_path / "digits.json"
    path.write_text(json.dumps(valid).replace('"version": 1', '"version": ' + "1" * 10**6), encoding="utf-8")
    assert refusal(path) == "number: expected an integer within ±(2**53 - 1), found 1000000 digits"


def test_a_long_text_is_not_echoed_whole(tmp_path: Path, valid: dict) -> None:
    valid["validity"]["model"] = "x" * 10**6
    message = refusal(write(tmp_path / "long.json", valid))
    assert message.startswith("validity.model: expected a text of 1 to 4096 characters, found ")
    assert len(message) < 200


def test_control_characters_are_escaped(tmp_path: Path, valid: dict) -> None:
    valid["\u001b[2J"] = 1
    message = refusal(write(tmp_path / "escape.json", valid))
    assert message.isprintable() and "\\u001b[2J" in message
