"""The parent relations against their definitions."""

import numpy as np
import pytest

import drafting.parents
from drafting.anchors import AnchorTable
from drafting.parents import ancestor_weight, parent_edges, parent_graph
from drafting.trie import PrefixTrie
from tests.support.toy import toy_traces

RULES = ["static:1", "static:2", "static:3", "threshold:0.2"]


def toy_trie(seed: int, rule: str) -> PrefixTrie:
    return PrefixTrie.from_anchors(AnchorTable.from_traces(toy_traces(seed, prompts=8, rule=rule), None))


def by_definition(trie: PrefixTrie, step: int | None) -> set[tuple[int, int]]:
    sets = [set(value) for value in trie.formulas(range(trie.n_states))]
    return {
        (q, p)
        for q, large in enumerate(sets)
        for p, small in enumerate(sets)
        if small < large and (step is None or len(large) - len(small) == step)
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("step", [1, 2, 3, None])
@pytest.mark.parametrize("cells", [1, 1 << 22])
def test_subset_parents(rule: str, step: int | None, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting.parents, "_CELLS", cells)
    trie = toy_trie(1, rule)
    child, parent = parent_edges(trie, step, "subset")
    edges = list(zip(child.tolist(), parent.tolist(), strict=True))
    assert edges == sorted(by_definition(trie, step))


def test_both_ways_to_subset_parents_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    trie = toy_trie(2, "static:2")
    results = []
    for choices in (0, 10**9):  # every state by comparison, every state by removing pairs
        monkeypatch.setattr(drafting.parents, "comb", lambda n, k, choices=choices: 10**9 - choices)
        results.append([edge.tolist() for edge in parent_edges(trie, 2, "subset")])
    assert results[0] == results[1]


@pytest.mark.parametrize("rule", RULES)
def test_transitions_are_recorded_steps(rule: str) -> None:
    trie = toy_trie(3, rule)
    child, parent = parent_edges(trie, None)
    ids = {value: n for n, value in enumerate(trie.formulas(range(trie.n_states)))}
    steps = {
        (ids[after], ids[before])
        for chain in trie.anchors.chains()
        for before, after in zip([(), *chain], chain, strict=False)
    }
    assert set(zip(child.tolist(), parent.tolist(), strict=True)) == steps
    assert steps <= by_definition(trie, None)


def test_ancestors_and_descendants() -> None:
    a, b, ab, abc = ((1, 1),), ((2, 1),), ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))
    trie = PrefixTrie.from_chains([[a, ab, abc], [a], [b]])
    graph = parent_graph(trie, 1)
    q = dict(zip(["a", "b", "ab", "abc"], trie.state_ids([a, b, ab, abc]).tolist(), strict=True))
    assert graph.ancestors(q["abc"]) == {q["a"], q["b"], q["ab"]}
    assert graph.ancestors(q["abc"], {q["a"], q["b"]}) == set()
    assert graph.ancestors(q["abc"], {q["ab"], q["b"]}) == {q["ab"], q["b"]}
    assert graph.descendants(q["a"]) == {q["ab"], q["abc"]}
    assert graph.parents_of(q["a"]).tolist() == [0]
    assert set(graph.children_of(0).tolist()) == {q["a"], q["b"]}
    # The transition relation knows that ab was never reached after b.
    assert parent_graph(trie, None).parents_of(q["ab"]).tolist() == [q["a"]]
    assert ancestor_weight(graph, trie, q["ab"], "degree1") == 1 + 2 + 1
    assert ancestor_weight(graph, trie, q["a"], "total") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1, "cousin"), "subset, transition"), ((0, None), "step_size must be at least 1")],
)
def test_unknown_options_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parent_edges(toy_trie(0, "static:1"), *arguments)


def test_an_unknown_accumulation_is_refused() -> None:
    trie = toy_trie(0, "static:1")
    with pytest.raises(ValueError, match="degree0, degree1, total, got 'degree2'"):
        ancestor_weight(parent_graph(trie, 1), trie, 1, "degree2")  # type: ignore[arg-type]


def test_too_many_states_for_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting.parents, "_MAX_ANY_SIZE", 5)
    with pytest.raises(ValueError, match=r"at most 5 states, got .* prune the trie"):
        parent_edges(toy_trie(0, "threshold:0.2"), None, "subset")


def test_a_trie_of_the_root_alone() -> None:
    trie = PrefixTrie.from_chains([])
    for step in (1, None):
        for relation in ("subset", "transition"):
            child, parent = parent_edges(trie, step, relation)
            assert len(child) == len(parent) == 0
            assert child.dtype == np.int64
