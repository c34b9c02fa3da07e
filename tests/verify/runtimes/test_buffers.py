"""Static buffers that a server reads: what we export is taken as it is, and nothing that is broken."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from drafting.export import export_static_buffers
from tests.support.models import random_formulas
from verify.files.tensors import MAX_HEADER_BYTES
from verify.graph.buffers import MAX_BUFFER_BYTES, buffer_metadata, static_buffers
from verify.graph.file import GraphFile, GraphFileError, Validity
from verify.runtimes.buffers import BuffersError, load_buffers, parse_buffers

VALIDITY = Validity("toy", None, "static:1", 6, "dual", 0.0, 3)
#: Node 0 is the root; 4 follows 1 and 2, and 5 follows 4.
NODES = [[(1, 1)], [(2, 1)], [(1, 2)], [(1, 1), (2, 1)], [(1, 1), (2, 1), (4, 3)]]
GRAPH = GraphFile.from_nodes(
    [tuple(node) for node in NODES], VALIDITY, values={"search": {"node_reach": [1.0, 0.5, 0.25, 0.125, 0.5, 0.25]}}
)

Arrays = dict[str, Any]


def content(arrays: Arrays, metadata: dict[str, str]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)


def changed(change: Callable[[Arrays, dict[str, str]], None]) -> bytes:
    arrays = {name: array.copy() for name, array in static_buffers(GRAPH).items()}
    metadata = buffer_metadata(GRAPH)
    change(arrays, metadata)
    return content(arrays, metadata)


def stating(**fields: str | None) -> bytes:
    """Metadata with other ``fields``; None takes one away."""

    def change(arrays: Arrays, metadata: dict[str, str]) -> None:
        metadata.update({name: text for name, text in fields.items() if text is not None})
        for name in [name for name, text in fields.items() if text is None]:
            del metadata[name]

    return changed(change)


def with_at(name: str, place: Any, value: Any) -> bytes:
    """Arrays with another number at one place."""
    return changed(lambda arrays, _: arrays[name].__setitem__(place, value))


def with_array(name: str, make: Callable[[np.ndarray], np.ndarray | None]) -> bytes:
    """Another array in the place of one, or none."""

    def change(arrays: Arrays, _: dict[str, str]) -> None:
        made = make(arrays.pop(name))
        if made is not None:
            arrays[name] = made

    return changed(change)


def raw(header: Any, body: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + body


def swapped(first: int, second: int) -> bytes:
    """Two nodes change places in the truncation order."""

    def change(arrays: Arrays, _: dict[str, str]) -> None:
        order = arrays["truncation"]
        order[[first, second]] = order[[second, first]]

    return changed(change)


GOOD = content(static_buffers(GRAPH), buffer_metadata(GRAPH))
I32 = {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}

# name -> (content, what was expected, what came): the message holds both.
HOSTILE: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "header: expected a length", "found 0 bytes"),
    "a pickle": (b"\x80\x04\x95" + b"x" * 40, "header: expected a length", "found 43 bytes"),
    "cut in the header": (GOOD[:60], "header: expected a length", "found 60 bytes"),
    "cut in the arrays": (GOOD[:-4], "expected an integer from 0 to", "found"),
    "bytes behind": (GOOD + b"\0" * 4, "arrays that take all", "found others"),
    "an absurd header": (raw("{" + " " * MAX_HEADER_BYTES + "}"), "header: expected a length of at most", "found"),
    "no JSON": (raw("import os"), "text: expected JSON", "found none at line 1"),
    "a list": (raw([]), "header: expected an object", "found []"),
    "a key twice": (raw('{"a": 1, "a": 2}'), "every key once", 'the key "a" twice'),
    "metadata of numbers": (raw({"__metadata__": {"version": 2}}), "__metadata__.version: expected a text", "found 2"),
    "no metadata": (raw({"lengths": I32}, b"\0" * 4), "metadata.format: expected", "found no such field"),
    "overlapping arrays": (raw({"a": I32, "b": I32}, b"\0" * 4), "without gaps", "found others"),
    "too many axes": (raw({"a": I32 | {"shape": [1] * 70}}, b"\0" * 4), "at most 8 axes", "found 70"),
    "an absurd axis": (
        raw({"a": I32 | {"shape": [0, 2**52], "data_offsets": [0, 0]}}), "a.shape: expected axes that multiply", "4503",
    ),
    "another dtype of another size": (
        raw({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        'a.dtype: expected "F32" or "I32"', 'found "I64"',
    ),
    "another format": (stating(format="weights"), 'metadata.format: expected "draftgraph-buffers"', '"weights"'),
    "the version before": (stating(version="1"), 'metadata.version: expected "2"; export the graph again', '"1"'),
    "a future version": (stating(version="3"), 'metadata.version: expected "2"', 'found "3"'),
    "a field is missing": (stating(tie_rule=None), 'metadata: expected the field "tie_rule"', "found only"),
    "an unknown field": (stating(code="exec"), "metadata: expected no field but", 'found the field "code"'),
    "another rank origin": (stating(rank_origin="newest"), 'metadata.rank_origin: expected "lagged"', '"newest"'),
    "another tie rule": (stating(tie_rule="as it comes"), "metadata.tie_rule: expected", 'found "as it comes"'),
    "no policy": (stating(policy="static:0"), "validity.policy: expected a policy", "k is '0'"),
    "another spelling": (stating(policy="static:01"), 'validity.policy: expected "static:1"', '"static:01"'),
    "no cache mode": (stating(cache="suffix"), "validity.cache: expected one of none", 'found "suffix"'),
    "a block of 0": (stating(block_length="0"), "validity.block_length: expected an integer from 1", "found 0"),
    "a length in words": (stating(block_length="six"), "metadata.block_length: expected a whole number", '"six"'),
    "a length with a sign": (stating(block_length="+6"), "metadata.block_length: expected a whole number", '"+6"'),
    "a length of other digits": (stating(top_j="٣"), "metadata.top_j: expected a whole number", "found"),
    "no temperature": (stating(temperature="nan"), "validity.temperature: expected a finite number", "found nan"),
    "a temperature in words": (stating(temperature="warm"), "metadata.temperature: expected a number", '"warm"'),
    "an absurd schedule": (stating(schedule="often"), "validity.schedule: expected a schedule", "found"),
    "another largest formula": (stating(max_formula="2"), "formulas.shape: expected the shape [6, 2, 2]", "[6, 3, 2]"),
    "a split that is none": (stating(truncation_split="train"), "metadata.truncation_split: expected", '"train"'),
    "values of no split": (stating(truncation_split=None), "truncation_value: expected NaN", "found numbers"),
    "an array is missing": (with_array("depth", lambda _: None), 'file: expected the array "depth"', "found only"),
    "an unknown array": (
        changed(lambda arrays, _: arrays.update(code=np.zeros(1, dtype=np.int32))),
        "file: expected no array but formulas", 'found the array "code"',
    ),
    "float ranks": (
        with_array("formulas", lambda a: a.astype(np.float32)), 'formulas.dtype: expected "I32"', "found float32",
    ),
    "whole values": (
        with_array("truncation_value", lambda a: a.astype(np.int32)), 'truncation_value.dtype: expected "F32"', "int32",
    ),
    "another shape": (with_array("formulas", lambda a: a[:, :, :1]), "expected the shape [6, 3, 2]", "found [6, 3, 1]"),
    "pairs turned": (with_array("formulas", lambda a: a.transpose(0, 2, 1)), "the shape [6, 3, 2]", "found [6, 2, 3]"),
    "a node less": (with_array("lengths", lambda a: a[:-1]), "expected the shape [5, 3, 2]", "found [6, 3, 2]"),
    "no nodes": (
        changed(lambda arrays, _: arrays.update({name: a[:0] for name, a in arrays.items()})),
        "lengths: expected 1 to 65536 nodes", "found 0 nodes",
    ),
    "a pointer less": (with_array("parent_ptr", lambda a: a[:-1]), "parent_ptr.shape: expected", "found [6]"),
    "edges that differ in number": (with_array("child_index", lambda a: a[:-1]), "child_index.shape: expected", "[5]"),
    "the root has pairs": (with_at("lengths", 0, 1), "lengths[0]: expected 0, the root", "found 1"),
    "a second root": (with_at("lengths", 1, 0), "lengths[1]: expected an integer from 1 to 3", "found 0"),
    "a negative length": (with_at("lengths", 2, -1), "lengths[2]: expected an integer from 1 to 3", "found -1"),
    "a length beyond the pairs": (with_at("lengths", 2, 4), "lengths[2]: expected an integer from 1 to 3", "found 4"),
    "none has so many pairs": (with_at("lengths", 5, 2), "metadata.max_formula: expected 2", "found 3"),
    "the largest fills the block": (stating(block_length="3"), "expected fewer than 3 pairs", "found 3 pairs"),
    "a position rank beyond the block": (
        with_at("formulas", (5, 2, 0), 7), "formulas[5][2], position rank: expected an integer from 1 to 6", "found 7",
    ),
    "a position rank of 0": (with_at("formulas", (1, 0, 0), 0), "formulas[1][0], position rank: expected", "found 0"),
    "a negative vocabulary rank": (
        with_at("formulas", (3, 0, 1), -2), "formulas[3][0], vocabulary rank: expected an integer from 1 to 3", "-2",
    ),
    "a vocabulary rank beyond those kept": (
        with_at("formulas", (5, 2, 1), 4), "formulas[5][2], vocabulary rank: expected an integer from 1 to 3", "4",
    ),
    "padding that is a pair": (with_at("formulas", (1, 2, 0), 5), "formulas[1][2], padding: expected 0", "found 5"),
    "a position twice": (with_at("formulas", (4, 1, 0), 1), "formulas[4]: expected position ranks in", "1 before 1"),
    "positions backwards": (with_at("formulas", (5, 2, 0), 1), "formulas[5]: expected position ranks in", "2 before 1"),
    "a node twice": (
        with_at("formulas", (3, 0, 1), 1), "formulas[3]: expected a node that stands once", "which is formulas[1] too",
    ),
    "no path to a node": (
        changed(lambda arrays, _: arrays["formulas"].__setitem__((4, 0, 1), 3)),
        "expected a path from the root", "none to",
    ),
    "another depth": (with_at("depth", 4, 1), "depth[4]: expected 2, as the formulas have it", "found 1"),
    "a pointer backwards": (with_at("parent_ptr", 3, 0), "parent_ptr[3]: expected 2, as", "found 0"),
    "a pointer beyond the edges": (with_at("child_ptr", 6, 2**30), "child_ptr[6]: expected", f"found {2**30}"),
    "a parent beyond the nodes": (with_at("parent_index", 3, 6), "parent_index[3]: expected", "found 6"),
    "a negative parent": (with_at("parent_index", 0, -1), "parent_index[0]: expected 0", "found -1"),
    "a node that is its own child": (with_at("child_index", 3, 1), "child_index[3]: expected 4", "found 1"),
    "an edge is left out": (
        changed(
            lambda arrays, _: arrays.update(
                parent_index=arrays["parent_index"][:-1], child_index=arrays["child_index"][:-1]
            )
        ),
        "parent_index.shape: expected 6 edges, all that the policy allows", "found 5",
    ),
    "another highest position rank": (with_at("max_i", 5, 3), "max_i[5]: expected 4, as", "found 3"),
    "another highest vocabulary rank": (with_at("max_j", 3, 1), "max_j[3]: expected 2, as", "found 1"),
    "worth filling too early": (with_at("min_masked", 5, 3), "min_masked[5]: expected 4, as", "found 3"),
    "completes another block": (with_at("completes_at", 4, 3), "completes_at[4]: expected 2, as", "found 3"),
    "a node twice in the order": (with_at("truncation", 2, 1), "truncation: expected every node once", "found none at"),
    "an order beyond the nodes": (with_at("truncation", 5, 9), "truncation: expected every node once", "found none at"),
    "the root later": (swapped(0, 1), "truncation[0]: expected 0, the root", "found 1"),
    "a child before its parents": (swapped(1, 4), "expected a node behind one of its parents", "before all"),
    "values that fall": (with_at("truncation_value", 5, 0.5), "finite numbers that begin at 0", "found others"),
    "values that begin elsewhere": (with_at("truncation_value", 0, 0.1), "finite numbers that begin at 0", "others"),
    "a value that is none": (with_at("truncation_value", 3, np.nan), "finite numbers that begin at 0", "others"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str) -> None:
    data, expected, found = HOSTILE[name]
    with pytest.raises(BuffersError) as refusal:
        parse_buffers(data)
    message = str(refusal.value)
    assert expected in message and found in message.partition(expected)[2], message
    assert message.startswith("buffers: ") and "\n" not in message and len(message) < 700


def test_there_are_enough_of_them_and_each_differs() -> None:
    assert len({data for data, _, _ in HOSTILE.values()}) == len(HOSTILE) >= 40


def test_what_is_exported_is_read(tmp_path: Path) -> None:
    export_static_buffers(GRAPH, tmp_path / "graph.safetensors")
    found = load_buffers(tmp_path / "graph.safetensors")
    assert (found.validity, found.budget, found.max_formula, found.truncation_split) == (VALIDITY, 5, 3, "search")
    for name, array in static_buffers(GRAPH).items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert not found.arrays[name].flags.writeable


def test_a_graph_is_cut_in_its_truncation_order() -> None:
    """Shares 0.5 and 0.25, and 0.5 once both are there; then 0.25 of what follows, and 0.125."""
    found = parse_buffers(GOOD)
    formulas, lengths, value = found.cut(3)
    assert formulas[:, :2].tolist() == [[[0, 0]] * 2, [[1, 1], [0, 0]], [[2, 1], [0, 0]], [[1, 1], [2, 1]]]
    assert lengths.tolist() == [0, 1, 1, 2] and value == 1.25
    assert len(found.cut(0)[1]) == 1 and found.cut(0)[2] == 0.0
    assert len(found.cut(99)[1]) == 6 and found.cut(99)[2] == 1.625
    with pytest.raises(ValueError, match="drafts is -1, expected at least 0"):
        found.cut(-1)


def test_other_graphs_are_read_too() -> None:
    revised = Validity("toy", "ab12", "threshold:0.9@temperature=0.5", 32, "none", 0.5, 8, "adablock:0.3:10+13:16")
    graphs = [
        GraphFile.from_nodes([], VALIDITY),
        GraphFile.from_nodes(random_formulas(0, 40, None, ranks=9, top_j=8), revised),
        GraphFile.from_nodes([((3, 1), (5, 2))], Validity("toy", None, "elsewhere:2", 6, "dual", 0.0, 3)),
    ]
    for graph in graphs:
        found = parse_buffers(content(static_buffers(graph), buffer_metadata(graph)))
        assert found.validity == graph.validity and found.budget == graph.budget
        assert np.isnan(found.cut(1)[2])


def test_bytes_that_are_turned_never_end_in_another_error() -> None:
    """Every single byte of the header, and every byte of the arrays with another value, somewhere in the file."""
    rng = np.random.default_rng(0)
    accepted = 0
    for number in rng.integers(0, len(GOOD), size=1500).tolist():
        data = bytearray(GOOD)
        data[number] ^= int(rng.integers(1, 256))
        try:
            parse_buffers(bytes(data))
            accepted += 1
        except BuffersError:
            continue
    assert accepted < 300  # a digit of a value, the model's name, a space


def test_ten_thousand_nodes_are_read() -> None:
    ranks = itertools.product(range(1, 26), range(1, 5))
    singles = [(pair,) for pair in ranks]
    pairs = [formula for a, b in itertools.product(singles, singles) if a[0][0] < b[0][0] for formula in [(*a, *b)]]
    triples = [(*pair, (26, j)) for pair in pairs for j in (1, 2)]
    graph = GraphFile.from_nodes(
        (singles + pairs + triples)[:9_999], Validity("toy", None, "threshold:0.9", 32, "dual", 0.0, 8)
    )
    data = content(static_buffers(graph), buffer_metadata(graph))
    assert parse_buffers(data).budget == 9_999


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BuffersError, match="path: expected a readable file, found no such file"):
        load_buffers(tmp_path / "nothing")
    with pytest.raises(BuffersError, match="expected a safetensors file, found a directory"):
        load_buffers(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuffersError, match="expected a safetensors file, found a directory or a device"):
        load_buffers(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MAX_BUFFER_BYTES + 1)
    with pytest.raises(BuffersError, match=f"size: expected at most {MAX_BUFFER_BYTES} bytes, found more"):
        load_buffers(tmp_path / "large")


def test_what_would_be_too_large_is_not_written(tmp_path: Path) -> None:
    """One formula of 2,000 pairs among 6,000 nodes: all are padded to its length."""
    wide = Validity("toy", None, "threshold:0.9", 4000, "dual", 0.0, 8)
    singles = [((i, j),) for i in range(1, 1000) for j in range(1, 7)]
    graph = GraphFile.from_nodes([*singles, tuple((i, 1) for i in range(1, 2001))], wide)
    with pytest.raises(GraphFileError, match=r"expected at most 67108864 bytes, found some \d+, because formulas"):
        export_static_buffers(graph, tmp_path / "graph.safetensors")
    assert not list(tmp_path.iterdir())
