"""The graph file: what is written is read again, is canonical, and is checked before it is written."""

import dataclasses
import itertools
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drafting.export import export_static_buffers
from tests.support.paths import DOCS
from verify import ranked
from verify.graph.buffers import FillLimits, buffer_metadata, static_buffers
from verify.graph.file import (
    GRAPH_FORMAT_VERSION,
    GraphFile,
    GraphFileError,
    Validity,
    check_graph,
    format_graph,
    load_graph,
    save_graph,
)
from verify.graph.formulas import ROOT, Formula, is_subset
from verify.policies import registry
from verify.policies.contract import PolicyError

HERE = Path(__file__).parent

STATIC = Validity(
    model="toy",
    model_revision="r1",
    policy="static:1",
    block_length=8,
    cache="dual",
    temperature=0.0,
    top_j=4,
)
THRESHOLD = dataclasses.replace(STATIC, policy="threshold:0.9", cache="block_causal")

A, B, C = ((1, 1),), ((2, 1),), ((1, 2),)
AB, CB = ((1, 1), (2, 1)), ((1, 2), (2, 1))
DIAMOND = GraphFile.from_nodes(
    [A, B, AB],
    STATIC,
    provenance={"trace_hash": "00ff", "search": "by hand", "seed": 7, "tool_version": "0.1.0"},
    values={"search": {"accepted_drafts": 1.25, "accepted_drafts_interval": [1.0, 1.5], "gap": 0.0}},
    latency={"device": "toy", "unit": "ms", "query_tokens": [8, 16], "latency": [1.0, 1.5], "dtype": "float32"},
)


@st.composite
def node_sets(draw: st.DrawFn) -> tuple[list[Formula], Validity]:
    """Formulas that all have a path from the root under static:1, or any under threshold:0.9."""
    pairs = st.tuples(st.integers(1, 5), st.integers(1, 3))
    orders = draw(st.lists(st.lists(pairs, max_size=5, unique_by=lambda pair: pair[0]), max_size=6))
    policy = draw(st.sampled_from(["static:1", "threshold:0.9"]))
    lengths = (range(1, len(order) + 1) if policy == "static:1" else [len(order)] for order in orders)
    nodes = {tuple(sorted(order[:n])) for order, ends in zip(orders, lengths, strict=True) for n in ends if order[:n]}
    return sorted(nodes), dataclasses.replace(STATIC, policy=policy)


def test_the_version_is_pinned() -> None:
    assert GRAPH_FORMAT_VERSION == 1
    assert "version 1" in (DOCS / "graph-format.md").read_text(encoding="utf-8").splitlines()[0]


def test_from_nodes_finds_edges_and_depths() -> None:
    assert DIAMOND.nodes == (ROOT, A, B, AB)
    assert DIAMOND.edges == ((0, 1), (0, 2), (1, 3), (2, 3))
    assert DIAMOND.depths == (0, 1, 1, 2)
    assert DIAMOND.budget == 3


def test_a_rule_that_commits_any_number_may_skip() -> None:
    graph = GraphFile.from_nodes([AB, A], THRESHOLD)
    assert graph.nodes == (ROOT, AB, A)
    assert graph.edges == ((0, 1), (0, 2), (2, 1))
    assert graph.depths == (0, 1, 1)


def test_a_rule_that_commits_two_needs_two() -> None:
    graph = GraphFile.from_nodes([AB, ((1, 1), (2, 1), (3, 1), (4, 1))], dataclasses.replace(STATIC, policy="static:2"))
    assert graph.edges == ((0, 1), (1, 2))
    with pytest.raises(GraphFileError, match=r"nodes\[1\]: expected a path from the root .* none to \{1:1\}"):
        GraphFile.from_nodes([A], dataclasses.replace(STATIC, policy="static:2"))


def test_a_policy_that_is_not_ours_may_commit_any_number() -> None:
    graph = GraphFile.from_nodes([AB], dataclasses.replace(STATIC, policy="sharp:0.9:0.01"))
    assert graph.edges == ((0, 1),)


def test_the_empty_graph_is_a_graph() -> None:
    graph = GraphFile.from_nodes([], STATIC)
    assert (graph.nodes, graph.edges, graph.depths, graph.budget) == ((ROOT,), (), (0,), 0)


def test_from_nodes_takes_the_root_or_leaves_it() -> None:
    assert GraphFile.from_nodes([A, ROOT], STATIC) == GraphFile.from_nodes([A], STATIC)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([A, A], r"nodes\[2\]: expected a node that stands once, found \{1:1\}, which is nodes\[1\] too"),
        (
            [CB],
            r"nodes\[1\]: expected a path from the root by the policy's steps, found none to \{1:2, 2:1\}",
        ),
        ([((9, 1),)], r"nodes\[1\]\[0\], position rank: expected an integer from 1 to 8, found 9"),
        ([((1, 5),)], r"nodes\[1\]\[0\], vocabulary rank: expected an integer from 1 to 4, found 5"),
        ([((2, 1), (1, 1))], r"nodes\[1\]: expected position ranks in ascending order, found 2 before 1"),
        ([A, "AB"], r"nodes\[2\]: expected a list of \[position rank, vocabulary rank\] pairs, found \"AB\""),
    ],
)
def test_from_nodes_drops_nothing_silently(nodes: list, message: str) -> None:
    with pytest.raises(GraphFileError, match=message):
        GraphFile.from_nodes(nodes, STATIC)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    save_graph(DIAMOND, tmp_path / "graph.json")
    assert load_graph(tmp_path / "graph.json") == DIAMOND
    assert [path.name for path in tmp_path.iterdir()] == ["graph.json"]


def test_the_text_is_pinned() -> None:
    """A change of the text changes every committed graph; then this file is to be written anew, knowingly."""
    text = (HERE / "valid_graph.json").read_text(encoding="utf-8")
    assert format_graph(load_graph(HERE / "valid_graph.json")) == text


@given(node_sets())
def test_from_nodes_round_trips_and_its_edges_are_the_definition(
    drawn: tuple[list[Formula], Validity],
) -> None:
    nodes, validity = drawn
    graph = GraphFile.from_nodes(nodes, validity)
    check_graph(graph)
    assert json.loads(format_graph(graph))["nodes"] == [[list(pair) for pair in node] for node in graph.nodes]
    expected = {
        (parent, child)
        for parent, child in itertools.permutations(range(len(graph.nodes)), 2)
        if is_subset(graph.nodes[parent], graph.nodes[child])
        and (validity.policy != "static:1" or len(graph.nodes[child]) == len(graph.nodes[parent]) + 1)
    }
    assert set(graph.edges) == expected
    assert len(graph.edges) == len(expected)
    if validity.policy == "static:1":
        assert graph.depths == tuple(len(node) for node in graph.nodes)


@given(node_sets())
def test_static_buffers_say_what_the_graph_says(drawn: tuple[list[Formula], Validity]) -> None:
    graph = GraphFile.from_nodes(*drawn)
    buffers = static_buffers(graph)
    kinds = {name: array.dtype for name, array in buffers.items()}
    assert kinds.pop("truncation_value") == np.float32 and set(kinds.values()) == {np.dtype(np.int32)}
    for index, node in enumerate(graph.nodes):
        length = buffers["lengths"][index]
        assert tuple(map(tuple, buffers["formulas"][index, :length].tolist())) == node
        assert not buffers["formulas"][index, length:].any()
        for name, own, other in (("parent", 1, 0), ("child", 0, 1)):
            pointer = buffers[f"{name}_ptr"]
            found = buffers[f"{name}_index"][pointer[index] : pointer[index + 1]].tolist()
            assert found == sorted(edge[other] for edge in graph.edges if edge[own] == index)
    assert buffers["depth"].tolist() == list(graph.depths)
    assert buffers["max_i"].tolist() == [max((i for i, _ in node), default=0) for node in graph.nodes]
    assert buffers["max_j"].tolist() == [max((j for _, j in node), default=0) for node in graph.nodes]
    limits = FillLimits.of(graph.nodes)
    for masked in range(1, graph.validity.block_length + 1):
        deep = graph.validity.top_j
        np.testing.assert_array_equal(buffers["min_masked"] <= masked, limits.usable(masked, deep))
        completing = limits.usable(masked, deep, complete=True) & ~limits.usable(masked, deep)
        np.testing.assert_array_equal(completing, (buffers["completes_at"] == masked) & (buffers["max_i"] <= masked))


def test_static_buffers_are_exported_as_safetensors(tmp_path: Path) -> None:
    from safetensors import safe_open

    save_graph(DIAMOND, tmp_path / "graph.json")
    export_static_buffers(load_graph(tmp_path / "graph.json"), tmp_path / "graph.safetensors")
    buffers = static_buffers(DIAMOND)
    with safe_open(tmp_path / "graph.safetensors", framework="np") as file:
        assert set(file.keys()) == set(buffers)
        for name, array in buffers.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)
        assert file.metadata() == buffer_metadata(DIAMOND)
        assert file.metadata()["policy"] == "static:1" and file.metadata()["max_formula"] == "2"
        assert file.metadata()["tie_rule"] == ranked.TIE_RULE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.json", "graph.safetensors"]


def test_the_buffers_of_a_diamond() -> None:
    buffers = static_buffers(DIAMOND)
    assert buffers["formulas"].tolist() == [
        [[0, 0], [0, 0]],
        [[1, 1], [0, 0]],
        [[2, 1], [0, 0]],
        [[1, 1], [2, 1]],
    ]
    assert buffers["lengths"].tolist() == [0, 1, 1, 2]
    assert buffers["parent_ptr"].tolist() == [0, 0, 1, 2, 4]
    assert buffers["parent_index"].tolist() == [0, 0, 1, 2]
    assert buffers["child_ptr"].tolist() == [0, 2, 3, 4, 4]
    assert buffers["child_index"].tolist() == [1, 2, 3, 3]
    assert buffers["max_i"].tolist() == [0, 1, 2, 2] and buffers["max_j"].tolist() == [0, 1, 1, 1]
    assert buffers["min_masked"].tolist() == [1, 2, 2, 3] and buffers["completes_at"].tolist() == [0, 1, 1, 2]


def test_numbers_of_numpy_are_written_as_plain_ones(tmp_path: Path) -> None:
    graph = dataclasses.replace(
        DIAMOND,
        nodes=tuple(tuple((np.int64(i), np.int32(j)) for i, j in node) for node in DIAMOND.nodes),
        values={"test": {"accepted_drafts": np.float32(1.5), "accepted_drafts_interval": np.array([1.0, 2.0])}},
    )
    save_graph(graph, tmp_path / "graph.json")
    again = load_graph(tmp_path / "graph.json")
    assert again.nodes == DIAMOND.nodes
    assert again.values == {"test": {"accepted_drafts": 1.5, "accepted_drafts_interval": [1.0, 2.0]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (0, 1, 1, 1)}, r"depths\[3\]: expected 2"),
        ({"edges": DIAMOND.edges[:-1]}, r"expected every edge that the policy allows"),
        ({"values": {"test": {"accepted_drafts": float("nan")}}}, r"expected a finite number"),
        ({"values": {"test": {"accepted_drafts": object()}}}, r"found a value of type object"),
        ({"provenance": {1: "x"}}, r"a key of provenance: expected a text"),
        ({"validity": dataclasses.replace(STATIC, cache="suffix")}, r"validity.cache: expected one of"),
        ({"rank_origin": "surrogate"}, r"rank_origin: expected \"lagged\""),
    ],
)
def test_a_graph_that_breaks_the_format_is_not_written(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "graph.json"
    path.write_text("what stood here before", encoding="utf-8")
    with pytest.raises(GraphFileError, match=message) as caught:
        save_graph(dataclasses.replace(DIAMOND, **change), path)
    assert str(path) in str(caught.value)
    assert path.read_text(encoding="utf-8") == "what stood here before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.json"
    path.write_text("what stood here before", encoding="utf-8")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_graph(DIAMOND, path)
    assert path.read_text(encoding="utf-8") == "what stood here before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_validity_fits_itself() -> None:
    assert STATIC.mismatches(STATIC) == []


def test_every_difference_is_named() -> None:
    run = Validity("other", "r2", "threshold:0.9", 16, "none", 0.5, 2)
    assert STATIC.mismatches(run) == [
        "model revision: the graph was calibrated for 'r1 of toy', the run has 'r2 of other'",
        "policy: the graph was calibrated for 'static:1', the run has 'threshold:0.9@temperature=0.5'",
        "block length: the graph was calibrated for 8, the run has 16",
        "cache: the graph was calibrated for 'dual', the run has 'none'",
        "temperature: the graph was calibrated for 0.0, the run has 0.5",
        "top j: the graph was calibrated for 4, the run has 2",
    ]


def test_one_revision_is_one_model_by_whatever_name() -> None:
    assert STATIC.mismatches(dataclasses.replace(STATIC, model="copy-of-toy")) == []
    expected = ["model: the graph was calibrated for 'toy', the run has 'copy-of-toy'"]
    for ours, theirs in ((None, "r1"), ("r1", None), (None, None)):
        graph = dataclasses.replace(STATIC, model_revision=ours)
        assert graph.mismatches(dataclasses.replace(STATIC, model="copy-of-toy", model_revision=theirs)) == expected


def test_what_is_not_stated_or_is_more_than_needed_is_no_difference() -> None:
    assert STATIC.mismatches(dataclasses.replace(STATIC, model_revision=None, top_j=16)) == []
    assert dataclasses.replace(STATIC, model_revision=None).mismatches(STATIC) == []


def test_the_example_of_the_specification_loads(tmp_path: Path) -> None:
    example = (DOCS / "graph-format.md").read_text(encoding="utf-8").split("```json\n")[1].split("```")[0]
    (tmp_path / "example.json").write_text(example, encoding="utf-8")
    assert load_graph(tmp_path / "example.json").nodes == DIAMOND.nodes


def schema() -> jsonschema.Draft202012Validator:
    document = json.loads((DOCS / "graph-format.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_the_schema_accepts_what_the_writer_writes() -> None:
    schema().validate(json.loads(format_graph(DIAMOND)))
    schema().validate(json.loads(format_graph(GraphFile.from_nodes([], THRESHOLD))))


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine a draw of graphs takes its time
@given(node_sets())
def test_the_schema_accepts_any_graph(drawn: tuple[list[Formula], Validity]) -> None:
    assert SCHEMA.is_valid(json.loads(format_graph(GraphFile.from_nodes(*drawn))))


SCHEMA = schema()

# What only the loader can see: rules across fields, and what JSON parsers of other makes lose before the
# schema.
BEYOND_THE_SCHEMA = {
    "block_length_and_ranks": {
        "position_rank_beyond_block",
        "vocabulary_rank_beyond_top_j",
        "node_fills_the_block",
    },
    "order": {"unsorted_pairs", "repeated_position_rank", "interval_backwards", "latency_rows_descend"},
    "structure": {
        "node_without_path",
        "edges_form_a_cycle",
        "edge_to_itself",
        "edge_to_no_superset",
        "edge_skips_a_step",
        "edge_left_out",
        "edge_beyond_nodes",
        "wrong_depth",
        "too_few_depths",
        "latency_uneven",
        "node_values_too_few",
    },
    "texts": {
        "policy_bad_parameter",
        "policy_bad_quota",
        "policy_other_spelling",
        "model_half_surrogate",
        "provenance_nested_deep",
    },
    "numbers": {"rank_as_float", "version_as_float", "huge_integer"},
    "parsing": {"duplicate_key", "duplicate_key_inside", "nan", "overflowing_float"},
}


@pytest.mark.parametrize("path", sorted((HERE / "hostile").glob("*.json")), ids=lambda path: path.stem)
def test_the_schema_refuses_the_hostile_files_it_can_see(path: Path) -> None:
    try:
        payload = json.loads(path.read_bytes())
    except ValueError:
        return  # not JSON for anyone
    hidden = path.stem in set().union(*BEYOND_THE_SCHEMA.values())
    assert SCHEMA.is_valid(payload) == hidden


def test_a_temperature_is_part_of_the_policy_also_where_it_stands_beside_it_only(tmp_path: Path) -> None:
    """As files have it that were written before specifications held the sampling."""
    graph = GraphFile.from_nodes([A], dataclasses.replace(STATIC, temperature=0.7))
    assert graph.validity.policy == "static:1@temperature=0.7" and graph.validity.temperature == 0.7
    path = tmp_path / "graph.json"
    save_graph(graph, path)
    assert load_graph(path) == graph
    older = path.read_text(encoding="utf-8").replace("static:1@temperature=0.7", "static:1")
    path.write_text(older, encoding="utf-8")
    assert load_graph(path) == graph and not load_graph(path).validity.mismatches(graph.validity)
    path.write_text(older.replace('"temperature": 0.7', '"temperature": 0.0'), encoding="utf-8")
    assert load_graph(path).validity == STATIC
    conflict = ("static:1@temperature=0.5", "temperature 0.5, but temperature 0.7")
    for text, found in (conflict, ("static:1@top_k=0", "top_k is")):
        path.write_text(older.replace("static:1", text), encoding="utf-8")
        with pytest.raises(
            GraphFileError, match=rf"validity.policy: expected a policy with valid parameters, .*{found}"
        ):
            load_graph(path)
    path.write_text(older.replace("static:1", "static:1@temperature=0.70"), encoding="utf-8")
    with pytest.raises(GraphFileError, match=r'validity\.policy: expected "static:1@temperature=0\.7"'):
        load_graph(path)
    with pytest.raises(PolicyError, match=r"has temperature 0\.7, but temperature 0\.5"):
        dataclasses.replace(graph.validity, temperature=0.5)


def test_edges_follow_from_the_name_of_the_policy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was made where a rule is known must be readable where it is not."""
    pairs = [AB, ((1, 1), (2, 1), (3, 1))]
    validity = dataclasses.replace(STATIC, policy="mine:2@temperature=0.5", temperature=0.5)
    foreign = GraphFile.from_nodes(pairs, validity)
    assert foreign.edges == ((0, 1), (0, 2), (1, 2)) and foreign.validity == validity
    with pytest.raises(GraphFileError, match="path from the root"):
        GraphFile.from_nodes(pairs, dataclasses.replace(STATIC, policy="static:2", temperature=0.5))
    monkeypatch.setattr(registry, "_added", lambda: pytest.fail("a package was asked while a file was read"))
    check_graph(foreign)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ([], "values.test.per_prompt: expected an object"),
        ({"anchors": [1]}, 'values.test.per_prompt: expected the field "accepted_drafts"'),
        ({"anchors": [1], "accepted_drafts": [0], "x": 1}, "values.test.per_prompt: expected no field but"),
        ({"anchors": [1, 2], "accepted_drafts": [0]}, "accepted_drafts: expected 2 counts, one a prompt, found 1"),
        ({"anchors": [1.5], "accepted_drafts": [0]}, "anchors[0]: expected an integer of at least 0, found 1.5"),
        ({"anchors": [1], "accepted_drafts": [0], "accepted_nodes": []}, "expected 1 lists of counts, one a prompt"),
        ({"anchors": [1], "accepted_drafts": [0], "accepted_nodes": [[0]]}, "expected 2 counts, one a draft node"),
    ],
)
def test_counts_per_prompt_have_their_form(stated: object, message: str) -> None:
    validity = Validity("toy", None, "static:1", block_length=8, cache="dual", temperature=0.0, top_j=4)
    nodes = [((1, 1),), ((2, 1),)]
    with pytest.raises(GraphFileError) as caught:
        GraphFile.from_nodes(nodes, validity, values={"test": {"per_prompt": stated}})
    assert message in str(caught.value)
    good = {"anchors": [3, 0], "accepted_drafts": [2, 0], "accepted_nodes": [[1, 1], [0, 0]]}
    assert GraphFile.from_nodes(nodes, validity, values={"test": {"per_prompt": good}}).values["test"]["per_prompt"]
