"""Graphs in notations of others: each is read back by a reader that is not ours, and compared with the graph."""

import csv
import io
import json
import re
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from drafting.graph import DraftGraph
from drafting.notations import csv_text, dot_text, formulas_of_paths, paths_text, write_graphml
from drafting.spanning import acceptance_lost, spanning_tree
from drafting.trie import PrefixTrie
from verify.drafts import DraftFiller
from verify.graph.file import GraphFile, Validity
from verify.graph.formulas import ROOT, Formula, formula
from verify.ranked import AnchorRanks

A, B, A2 = ((1, 1),), ((2, 1),), ((1, 2),)
AB, ABC = ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 2))
NODES = (A, B, A2, AB, ABC)


def validity(policy: str = "static:1") -> Validity:
    return Validity("toy", None, policy, block_length=8, cache="dual", temperature=0.0, top_j=4)


def annotated() -> GraphFile:
    trie = PrefixTrie.from_chains([[A, AB, ABC], [A], [B, AB], [A2]], weights=[3, 4, 2, 1])
    return DraftGraph.from_formulas(NODES, step_size=1).annotate(trie).to_graph_file(validity())


def bare(policy: str = "static:1") -> GraphFile:
    return GraphFile.from_nodes(NODES, validity(policy))


FILES = pytest.mark.parametrize("file", [annotated(), bare(), bare("threshold:0.9")], ids=["values", "bare", "wide"])


@FILES
def test_graphml_is_read_by_networkx(file: GraphFile, tmp_path: Path) -> None:
    write_graphml(file, tmp_path / "graph.graphml")
    found = nx.read_graphml(tmp_path / "graph.graphml")
    assert found.is_directed()
    formulas = {name: formula(json.loads(text)) for name, text in found.nodes(data="formula")}
    assert [formulas[f"n{number}"] for number in range(len(file.nodes))] == list(file.nodes)
    assert set(found.edges) == {(f"n{parent}", f"n{child}") for parent, child in file.edges}
    assert [found.nodes[f"n{number}"]["depth"] for number in range(len(file.nodes))] == list(file.depths)
    assert found.graph["policy"] == file.validity.policy and found.graph["block_length"] == 8
    assert found.graph["tie_rule"] == file.tie_rule and "model_revision" not in found.graph
    stated = file.values.get("search", {})
    for key in ("count", "reach"):
        values = [found.nodes[f"n{number}"].get(key) for number in range(len(file.nodes))]
        assert values == stated.get(f"node_{key}" if key == "reach" else "node_counts", [None] * len(values))


@FILES
def test_csv_is_read_as_a_table(file: GraphFile) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(file), newline="")))
    assert [formula(json.loads(row["formula"])) for row in rows] == list(file.nodes)
    assert [int(row["node"]) for row in rows] == list(range(len(file.nodes)))
    assert [int(row["depth"]) for row in rows] == list(file.depths)
    edges = {(int(parent), int(row["node"])) for row in rows for parent in row["parents"].split()}
    assert edges == set(file.edges)
    stated = file.values.get("search", {}).get("node_reach")
    assert [row["reach"] for row in rows] == ([""] * len(rows) if stated is None else list(map(str, stated)))


@FILES
def test_dot_has_every_node_and_the_edges_that_do_not_follow_from_others(file: GraphFile) -> None:
    text = dot_text(file)
    labels = dict(re.findall(r'^  (n\d+) \[label="\{(.*)\}"\];$', text, flags=re.MULTILINE))
    nodes = [
        formula(tuple(map(int, pair.split(":"))) for pair in labels[f"n{number}"].split(", ") if pair)
        for number in range(len(file.nodes))
    ]
    assert nodes == list(file.nodes)
    drawn = {(int(a), int(b)) for a, b in re.findall(r"^  n(\d+) -> n(\d+);$", text, flags=re.MULTILINE)}
    assert len(text.splitlines()) == 2 + len(nodes) + len(drawn)
    assert set(nx.transitive_closure(nx.DiGraph(drawn)).edges) == set(
        nx.transitive_closure(nx.DiGraph(file.edges)).edges
    )
    if file.validity.policy == "static:1":
        assert drawn == set(file.edges)


def paths(file: GraphFile) -> dict:
    tree = spanning_tree(DraftGraph.from_graph_file(file))
    return json.loads(paths_text(file, tree, acceptance_lost(file, tree)))


@pytest.mark.parametrize("file", [annotated(), bare()], ids=["values", "bare"])
def test_paths_name_every_node_once(file: GraphFile) -> None:
    found = paths(file)
    nodes = formulas_of_paths(found["medusa_choices"], found["vocabulary_ranks"])
    assert sorted(nodes) == sorted(file.nodes[1:]) and found["vocabulary_ranks"] == 2
    known = {tuple(path) for path in found["medusa_choices"]} | {()}
    assert all(tuple(path[:-1]) in known for path in found["medusa_choices"])  # both readers look every prefix up
    assert found["top_k"] > max(max(path) for path in found["medusa_choices"]) and found["top_k"] == 6
    edges = {(file.nodes[a], file.nodes[b]) for a, b in file.edges}
    parents = {tuple(path): tuple(path[:-1]) for path in found["medusa_choices"]}
    to_node = dict(zip(map(tuple, found["medusa_choices"]), nodes, strict=True)) | {(): ROOT}
    assert all((to_node[above], to_node[path]) in edges for path, above in parents.items())


def test_a_reader_of_paths_fills_the_drafts_that_the_graph_fills() -> None:
    """The reader as Medusa's is: every step takes one entry of a flat list of candidates."""
    file, rng = annotated(), np.random.default_rng(0)
    found, mask, length = paths(file), -1, 8
    block = np.full(length, mask)
    block[[1, 5]] = 7
    ranks = AnchorRanks(rng.permutation(np.flatnonzero(block == mask)), rng.permutation(40)[:24].reshape(6, 4) + 10)
    candidates = [
        (int(position), int(token))
        for position, tokens in zip(ranks.positions, ranks.tokens, strict=True)
        for token in tokens[: found["vocabulary_ranks"]]
    ]
    states = set()
    for path in found["medusa_choices"]:
        state = block.copy()
        for choice in path:
            position, token = candidates[choice]
            state[position] = token
        states.add(tuple(state.tolist()))
    filled, _ = DraftFiller(file.nodes[1:]).fill(block, ranks)
    assert states == {tuple(state) for state in filled.tolist()} and len(states) == len(NODES)


def test_the_file_of_paths_says_for_whom_and_what_is_lost() -> None:
    found = paths(annotated())
    assert found["format"] == "draftgraph-paths" and found["version"] == 1
    assert found["validity"]["policy"] == "static:1" and found["rank_origin"] == "lagged"
    lost = found["acceptance"]
    assert lost["counted_on"] == "values.search" and lost["accepted_drafts_graph"] == pytest.approx(1.8)
    # Of five anchors at ab at most two came over b, so at least three came over a; and all of abc may have come over b.
    assert lost["accepted_drafts_tree"] == pytest.approx([0.7 + 0.2 + 0.1 + 0.3 + 0.1, 1.8])
    assert paths(bare())["acceptance"]["counted_on"] is None


def test_one_formula_in_two_orders_is_one_node() -> None:
    two: list[Formula] = formulas_of_paths([[0, 1], [1, 0]], 1)
    assert two[0] == two[1] == AB
