"""The method ``published``: which reading and minimum count it chooses per budget, from the search prompts alone."""

import pytest

from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.methods import METHODS, MethodError, SearchInput, find_graphs, find_method
from drafting.searches.readings import MINIMUM_COUNTS, READINGS, best_readings
from drafting.searches.result import SearchResult
from drafting.trie import PrefixTrie
from drafting.values import path_value
from tests.support.search_cases import greedy_counter_example
from tests.support.toy import toy_traces

BUDGETS = (2, 4, 8, 12)
STEPS = {"static:1": 1, "threshold:0.3": None}


def problem(rule: str, seed: int = 0) -> SearchInput:
    traces = toy_traces(seed, prompts=12, blocks=2, length=10, noise=0.25, rule=rule)
    return SearchInput(PrefixTrie.from_anchors(AnchorTable.from_traces(traces, None)), 10, STEPS[rule])


@pytest.mark.parametrize("rule", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_every_budget_gets_the_reading_with_the_fewest_forwards_on_the_search_prompts(rule: str, seed: int) -> None:
    given = problem(rule, seed)
    best = find_graphs("published", given, BUDGETS)
    every: dict[int, list[tuple[int, str, SearchResult]]] = {budget: [] for budget in BUDGETS}
    for reading in READINGS:
        for count in MINIMUM_COUNTS:
            for budget, found in find_graphs(f"published:{reading.rule}:{count}", given, BUDGETS).items():
                forwards = replay(found.nodes, given.trie.anchors).forwards
                every[budget].append((forwards, f"{reading.rule}, minimum count {count}", found))
    for budget in BUDGETS:
        # min() takes the first of equals: less accumulation first, then the smaller count.
        fewest, name, found = min(every[budget], key=lambda one: one[0])
        assert (best[budget].method, best[budget].chosen, best[budget].nodes) == ("published", name, found.nodes)
        assert replay(best[budget].nodes, given.trie.anchors).forwards == fewest
        assert best[budget].value == path_value(found.nodes, given.trie)


def test_budgets_may_get_different_readings() -> None:
    found = find_graphs("published", problem("static:1", 1), BUDGETS)
    assert len({graph.chosen for graph in found.values()}) > 1


def test_a_minimum_count_leaves_rare_states_out() -> None:
    given = problem("static:1")
    rare = find_graphs("published:degree0", given, [12])[12]
    common = find_graphs("published:degree0:10", given, [12])[12]
    assert common.nodes == find_graphs("published:degree0:1", SearchInput(given.trie.prune(10), 10, 1), [12])[12].nodes
    counts = dict(zip(common.nodes, given.trie.state_count[given.trie.state_ids(common.nodes)].tolist(), strict=True))
    assert min(counts.values()) >= 10 and common.chosen == "degree0, minimum count 10"
    assert rare.chosen == "degree0, minimum count 1" and rare.method == "published:degree0"


@pytest.mark.parametrize(
    "name", ["published:degree2", "published:degree0:", "published:degree0:x", "published::5", "degree0:5", "swap"]
)
def test_a_name_that_is_no_method(name: str) -> None:
    with pytest.raises(MethodError, match=r"unknown method .*, expected one of chain, .*published:degree0:20"):
        find_method(name)


def test_a_minimum_count_of_nothing() -> None:
    with pytest.raises(MethodError, match="the minimum count of 'published:degree0:0' must be at least 1, got 0"):
        find_method("published:degree0:0")


def test_literal_chains_cannot_be_replayed() -> None:
    with pytest.raises(ValueError, match=r"literal chains have no blocks to replay; .*'published:degree0'"):
        best_readings(greedy_counter_example(), [2], 1)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_bounds_its_graphs_when_asked(name: str) -> None:
    given = problem("static:1")
    found = find_graphs(name, given, BUDGETS, certify=True)
    sweep = given.sweep(max(BUDGETS))
    for budget, graph in found.items():
        assert graph.method == name and graph.budget == budget
        assert graph.complete or name == "chain"  # a block of ten positions ends the chain after eight nodes
        assert graph.value == pytest.approx(path_value(graph.nodes, given.trie), rel=1e-12)
        assert graph.value <= graph.bound <= sweep.bound(budget) and graph.gap is not None
        assert graph.seconds > 0
    assert find_graphs(name, given, []) == {}
    with pytest.raises(ValueError, match="at least 0"):
        find_graphs(name, given, [3, -1])
