"""The published rule against a slow one written from its description."""

import pytest

from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.parents import parent_graph
from drafting.searches.published import published
from drafting.trie import PrefixTrie
from drafting.values import connected_weight
from tests.support.toy import toy_traces
from verify.graph.formulas import ROOT, Formula

A, B, C = ((1, 1),), ((2, 1),), ((3, 1),)
AB, AC, ABC = ((1, 1), (2, 1)), ((1, 1), (3, 1)), ((1, 1), (2, 1), (3, 1))
STEPS = {"static:1": 1, "static:2": 2, "threshold:0.3": None}


def slow_rule(
    chains: list[list[Formula]], budget: int, step: int | None, accumulation: str, parents: str
) -> list[Formula]:
    count: dict[Formula, int] = {}
    seen_before: dict[Formula, set[Formula]] = {}
    for chain in chains:
        for before, state in zip([ROOT, *chain], chain, strict=False):
            count[state] = count.get(state, 0) + 1
            seen_before.setdefault(state, set()).add(before)

    def before(q: Formula) -> set[Formula]:
        if step is None:
            return seen_before[q]
        return {p for p in [*count, ROOT] if set(p) < set(q) and len(q) - len(p) == step}

    def weight(q: Formula, chosen: list[Formula]) -> int:
        allowed = set(count) if parents == "all" else set(chosen)
        counted = set() if accumulation == "degree0" else before(q) & allowed
        while accumulation == "total":
            more = counted | {p for c in counted for p in before(c) & allowed}
            if more == counted:
                break
            counted = more
        return count[q] + sum(count[p] for p in counted)

    order: list[Formula] = []
    while len(order) < budget:
        open_states = [q for q in count if q not in order and before(q) & {ROOT, *order}]
        if not open_states:
            break
        order.append(min(open_states, key=lambda q: (-weight(q, order), len(q), q)))
    return order


@pytest.mark.parametrize("rule", STEPS)
@pytest.mark.parametrize("accumulation", ["degree0", "degree1", "total"])
@pytest.mark.parametrize("parents", ["all", "chosen"])
@pytest.mark.parametrize("seed", range(2))
def test_the_rule_is_the_slow_one(rule: str, accumulation: str, parents: str, seed: int) -> None:
    traces = toy_traces(seed, prompts=6, blocks=1, length=7, noise=0.3, rule=rule)
    table = AnchorTable.from_traces(traces, None)
    trie = PrefixTrie.from_anchors(table)
    found = published(trie, 12, step_size=STEPS[rule], accumulation=accumulation, parents=parents)
    assert list(found.nodes) == slow_rule(list(table.chains()), 12, STEPS[rule], accumulation, parents)
    DraftGraph.from_formulas(found.nodes, STEPS[rule])
    if parents == "all":
        total = connected_weight(found.nodes, trie, accumulation, step_size=STEPS[rule])
        assert sum(found.gains) == pytest.approx(total)


def test_it_counts_anchors_that_came_by_another_way() -> None:
    """ab is reached after b only, yet a alone makes it eligible: the over-count that path_value does not have."""
    trie = PrefixTrie.from_chains([[A]] * 5 + [[B, AB]] * 4 + [[C]] * 4)
    assert published(trie, 2, step_size=1, accumulation="degree1").nodes == (A, AB)
    assert published(trie, 2, step_size=1, accumulation="degree1").gains == (5.0, 4.0 + 5.0 + 4.0)
    # Seen as transitions, ab follows b alone and waits for it.
    order = published(trie, 3, step_size=1, accumulation="degree1", relation="transition").nodes
    assert order == (A, B, AB)


def test_the_two_readings_of_parents_differ() -> None:
    # ac (rare) has the commoner parents, but c was not chosen when it is weighed.
    trie = PrefixTrie.from_chains([[A, AB]] * 6 + [[A, AC]] * 5 + [[B]] * 2 + [[C]] * 4)
    everyone = published(trie, 2, step_size=1, parents="all")
    chosen = published(trie, 2, step_size=1, parents="chosen")
    assert everyone.nodes == (A, AC)
    assert chosen.nodes == (A, AB)
    assert (everyone.method, chosen.method) == ("published:degree1/all", "published:degree1/chosen")


def test_degree_zero_is_frequency() -> None:
    trie = PrefixTrie.from_chains([[A, AB, ABC]] * 3 + [[B]] * 2 + [[A]])
    found = published(trie, 4, step_size=1, accumulation="degree0")
    assert found.nodes == (A, AB, ABC, B)
    assert found.gains == (4.0, 3.0, 3.0, 2.0)


def test_a_relation_made_once_serves_every_accumulation() -> None:
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(toy_traces(4, prompts=6), None))
    graph = parent_graph(trie, 1)
    for accumulation in ("degree0", "degree1", "total"):
        with_graph = published(trie, 9, step_size=1, accumulation=accumulation, graph=graph)
        assert with_graph == published(trie, 9, step_size=1, accumulation=accumulation)


def test_a_budget_beyond_the_candidates_says_so() -> None:
    found = published(PrefixTrie.from_chains([[A, AB]]), 5, step_size=1)
    assert found.nodes == (A, AB)
    assert not found.complete


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(accumulation="degree2"), "accumulation must be one of degree0, degree1, total, got 'degree2'"),
        (dict(parents="some"), "parents must be one of all, chosen, got 'some'"),
        (dict(relation="cousin"), "relation must be one of"),
    ],
)
def test_unknown_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        published(PrefixTrie.from_chains([[A]]), 1, step_size=1, **options)
