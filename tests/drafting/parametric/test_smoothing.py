"""Smoothed tries: raw counts at strength 0, the model at great strength, mass conserved, any search takes them."""

from itertools import combinations, product

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.parametric.smoothing import SmoothingError, smoothed_trie
from drafting.parametric.smoothing_models import MODELS, MarkovModel, ProductModel, symmetric_sums
from drafting.parents import parent_graph
from drafting.searches.greedy import greedy
from drafting.searches.methods import METHODS, SearchInput, find_graphs
from drafting.trie import PrefixTrie
from drafting.values import accepted_per_anchor, path_value
from tests.support.toy import toy_traces
from verify.graph.formulas import Formula

A, B, C, AB, ABC = ((1, 1),), ((2, 1),), ((3, 1),), ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))
STEP = {"static:1": 1, "static:2": 2, "threshold:0.3": None}


def toy_trie(rule: str = "static:1", seed: int = 0, prompts: int = 6, length: int = 7) -> PrefixTrie:
    traces = toy_traces(seed, prompts=prompts, blocks=2, length=length, noise=0.3, rule=rule)
    return PrefixTrie.from_anchors(AnchorTable.from_traces(traces, None))


def through_ab() -> PrefixTrie:
    """AB is reached 4 times through A, of which 3 go on to ABC, and 5 times through B, of which none does."""
    return PrefixTrie.from_chains([[A, AB, ABC], [A, AB], [A], [B, AB], [B], [C]], [3, 1, 6, 5, 1, 7])


def count_of(trie: PrefixTrie, path: list[Formula]) -> float | None:
    node = 0
    for wanted in trie.state_ids(path).tolist():
        children = range(trie.child_ptr[node], trie.child_ptr[node + 1])
        node = next((child for child in children if trie.state[child] == wanted), -1)
        if node < 0:
            return None
    return float(trie.count[node])


def children_sum(trie: PrefixTrie) -> np.ndarray:
    return np.bincount(trie.parent[1:], weights=trie.count[1:], minlength=trie.n_nodes)


def test_strength_zero_keeps_the_counts() -> None:
    trie = toy_trie()
    assert smoothed_trie(trie, ProductModel(trie), 0.0, step_size=1) is trie
    almost = smoothed_trie(trie, ProductModel(trie), 1e-9, step_size=1)
    assert np.array_equal(almost.state, trie.state)
    assert almost.count == pytest.approx(trie.count)


def test_a_path_forgets_where_it_came_from_as_far_as_the_strength_says() -> None:
    trie = through_ab()
    found = smoothed_trie(trie, MarkovModel(trie), 9, step_size=1, unseen_mass=1.0)
    # Of nine chains in AB three go on: 3 expected in 9 more. Nothing else has two ways in.
    assert count_of(found, [A]) == pytest.approx(10)
    assert count_of(found, [A, AB]) == pytest.approx(4)
    assert count_of(found, [A, AB, ABC]) == pytest.approx(4 * (3 + 3) / (4 + 9))
    assert count_of(found, [B, AB, ABC]) == pytest.approx(5 * (0 + 3) / (5 + 9))
    assert count_of(trie, [B, AB, ABC]) is None


def test_great_strength_is_the_model_itself() -> None:
    trie = through_ab()
    found = smoothed_trie(trie, MarkovModel(trie), 1e12, step_size=1, unseen_mass=0.1)
    assert count_of(found, [A, AB, ABC]) == pytest.approx(4 * 3 / 9)
    assert count_of(found, [B, AB, ABC]) == pytest.approx(5 * 3 / 9)


def test_unseen_prefixes_are_those_expected_often_enough_and_no_more_than_asked() -> None:
    trie = through_ab()
    markov = MarkovModel(trie)
    assert count_of(smoothed_trie(trie, markov, 9, step_size=1, unseen_mass=1.1), [B, AB, ABC]) is None
    assert count_of(smoothed_trie(trie, markov, 9, step_size=1, unseen_mass=None), [B, AB, ABC]) is None
    assert smoothed_trie(trie, markov, 9, step_size=1, unseen_limit=0).n_nodes == trie.n_nodes
    large = toy_trie(prompts=20)
    few, many = (
        smoothed_trie(large, ProductModel(large), 50, step_size=1, unseen_mass=0.2, unseen_limit=limit)
        for limit in (7, 10_000)
    )
    assert few.n_nodes == large.n_nodes + 7
    assert many.n_nodes > few.n_nodes


def test_chains_cut_at_the_depth_limit_say_nothing_of_how_they_go_on() -> None:
    """Under a threshold one state stands at several depths; where it is the last one kept, its future is unknown."""
    chains = [[A, AB, ABC], [AB, ABC], [B, AB, ABC]]
    anchors = AnchorTable.from_chains(chains)
    cut = PrefixTrie.from_anchors(anchors, max_depth=2)
    ids = cut.state_ids([AB, ABC])
    assert MarkovModel(cut).probability(ids[:1], ids[1:], 3) == pytest.approx([1.0])


@pytest.mark.parametrize("rule", STEP)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strength", [0.5, 20.0])
def test_mass_is_conserved_and_the_trie_is_a_trie(rule: str, name: str, strength: float) -> None:
    trie = toy_trie(rule, seed=2, prompts=12, length=9)
    found = smoothed_trie(trie, MODELS[name](trie), strength, step_size=STEP[rule], unseen_mass=0.005)
    assert found.total == trie.total
    assert (children_sum(found) <= found.count * (1 + 1e-9)).all()
    assert found.n_nodes > trie.n_nodes
    # Ordered by depth, then parent, then state; a state holds the one before it.
    depth = np.repeat(np.arange(found.max_depth + 1), np.diff(found.level_ptr))
    order = np.lexsort((found.state, found.parent, depth))
    assert np.array_equal(order, np.arange(found.n_nodes))
    assert np.array_equal(depth[found.parent[1:]], depth[1:] - 1)
    states = [set(state) for state in found.formulas(range(found.n_states))]
    step = STEP[rule]
    for node in range(1, found.n_nodes):
        before, after = states[found.state[found.parent[node]]], states[found.state[node]]
        assert before < after
        assert step is None or len(after) - len(before) == step
    # Every chain still ends at the same prefix.
    nodes = trie.formulas(range(1, min(trie.n_states, 30)))
    assert np.array_equal(accepted_per_anchor(nodes, found), accepted_per_anchor(nodes, trie))


@pytest.mark.parametrize("rule", STEP)
def test_shares_add_up_to_one_with_the_end_of_the_chain(rule: str) -> None:
    """With every successor kept, the children of a prefix weigh what data and model together say, and no more."""
    trie = toy_trie(rule, seed=4, prompts=12)
    strength = 5.0
    found = smoothed_trie(trie, MarkovModel(trie), strength, step_size=STEP[rule], unseen_mass=1e-12)
    goes_on = children_sum(trie)
    state_count = np.bincount(trie.state, weights=trie.count, minlength=trie.n_states)
    state_goes_on = np.bincount(trie.state, weights=goes_on, minlength=trie.n_states) / state_count
    is_last = found.depth == trie.max_depth
    path = {(): 0}  # prefix of ``found`` -> prefix of ``trie``, by their states
    names: dict[int, tuple[int, ...]] = {0: ()}
    for node in range(1, trie.n_nodes):
        names[node] = (*names[trie.parent[node]], int(trie.state[node]))
        path[names[node]] = node
    own: dict[int, tuple[int, ...]] = {0: ()}
    for node in range(1, found.n_nodes):
        own[node] = (*own[found.parent[node]], int(found.state[node]))
    sums = children_sum(found)
    for node in np.flatnonzero(~is_last).tolist():
        seen = path.get(own[node])
        count, went = (0.0, 0.0) if seen is None else (trie.count[seen], goes_on[seen])
        share = (went + strength * state_goes_on[found.state[node]]) / (count + strength)
        assert sums[node] == pytest.approx(found.count[node] * share)


def all_sets(width: int, choices: int, sizes: range) -> list[Formula]:
    return [
        tuple(zip(ranks, tokens, strict=True))
        for size in sizes
        for ranks in combinations(range(1, width + 1), size)
        for tokens in product(range(1, choices + 1), repeat=size)
    ]


def test_the_product_model_is_a_distribution_over_all_sets() -> None:
    """Every formula over 3 position ranks and 2 vocabulary ranks, from the root and from A; one chain in four stops."""
    rng = np.random.default_rng(1)
    singles = all_sets(3, 2, range(1, 4))
    behind = [state for state in all_sets(3, 2, range(2, 4)) if set(A) < set(state)]
    chains = [[state] for state in singles] + [[A, state] for state in behind] + [[]]
    weights = [*rng.integers(1, 9, len(singles) + len(behind)).tolist(), 20]
    trie = PrefixTrie.from_chains(chains, weights)
    model = ProductModel(trie)
    ids = trie.state_ids(singles)
    from_root = model.probability(np.zeros_like(ids), ids, 1)
    assert (from_root > 0).all()
    assert from_root.sum() == pytest.approx(1 - 20 / trie.total)
    ids = trie.state_ids(behind)
    from_a = model.probability(np.full_like(ids, trie.state_ids([A])[0]), ids, 2)
    went = sum(weights[len(singles) : -1])
    assert from_a.sum() == pytest.approx(went / (trie.total - 20))


def test_the_product_model_by_hand() -> None:
    """One pair a step: P(i) in proportion to its share, times the share of its vocabulary rank."""
    chains = [[((1, 1),)], [((1, 2),)], [((2, 1),)]]
    trie = PrefixTrie.from_chains(chains, [5, 2, 3])
    ids = trie.state_ids([chain[0] for chain in chains])
    w1, w2 = (7 + 0.5) / 11, (3 + 0.5) / 11
    first = (5 + 0.8) / 8  # rank 1 of the vocabulary: 8 of 10 over all positions
    expected = [w1 * first / (w1 + w2), w1 * (2 + 0.2) / 8 / (w1 + w2), w2 * (3 + 0.8) / 4 / (w1 + w2)]
    assert ProductModel(trie).probability(np.zeros(3, dtype=np.int64), ids, 1) == pytest.approx(expected)


def test_symmetric_sums_are_sums_over_all_sets() -> None:
    weights = np.random.default_rng(0).random((4, 5))
    found = symmetric_sums(weights, 3)
    for order in range(4):
        naive = [sum(np.prod(row[list(chosen)]) for chosen in combinations(range(5), order)) for row in weights]
        assert found[:, order] == pytest.approx(naive)


@pytest.mark.parametrize("name", MODELS)
def test_smoothing_brings_rare_counts_nearer_to_the_truth(name: str) -> None:
    """Shares of prefixes from a few prompts, against the shares in many others."""
    off = np.zeros(2)
    for seed in range(3):
        few = toy_trie(seed=seed, prompts=3)
        many = toy_trie(seed=100 + seed, prompts=150)
        smooth = smoothed_trie(few, MODELS[name](few), 10.0, step_size=1)
        for n, trie in enumerate((few, smooth)):
            states = trie.formulas(trie.state)
            paths: dict[int, list[Formula]] = {0: []}
            for node in range(1, trie.level_ptr[4]):
                paths[node] = [*paths[trie.parent[node]], states[node]]
                truth = count_of(many, paths[node]) or 0.0
                off[n] += (trie.count[node] / trie.total - truth / many.total) ** 2
    assert off[1] < off[0]


@pytest.mark.parametrize("rule", STEP)
@pytest.mark.parametrize("method", [name for name in METHODS if name != "chain"])
def test_any_search_takes_a_smoothed_trie(method: str, rule: str) -> None:
    trie = toy_trie(rule, seed=1, prompts=8)
    found = smoothed_trie(trie, ProductModel(trie), 8.0, step_size=STEP[rule])
    nodes = find_graphs(method, SearchInput(found, 6, 7, STEP[rule]), [6])[6].nodes
    assert 0 < len(nodes) <= 6
    DraftGraph.from_formulas(nodes, STEP[rule])
    assert 0 <= path_value(nodes, found) <= found.max_depth


def test_greedy_gains_are_the_smoothed_values() -> None:
    trie = toy_trie("threshold:0.3", seed=5, prompts=10)
    found = smoothed_trie(trie, MarkovModel(trie), 12.0, unseen_mass=0.1)
    built = greedy(found, 8)
    values = [path_value(built.nodes[:size], found) for size in range(1, 9)]
    assert np.cumsum(built.gains) == pytest.approx(values)


def test_a_given_parent_graph_gives_the_same_trie() -> None:
    trie = toy_trie(prompts=8)
    options = {"unseen_mass": 0.2}
    own = smoothed_trie(trie, ProductModel(trie), 5.0, step_size=1, **options)
    given = smoothed_trie(trie, ProductModel(trie), 5.0, graph=parent_graph(trie, 1), **options)
    assert np.array_equal(own.count, given.count)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_recorded_stays_nothing(name: str) -> None:
    trie = PrefixTrie.from_chains([])
    assert smoothed_trie(trie, MODELS[name](trie), 3.0, step_size=1) is trie


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_a_strength_is_a_finite_number_of_anchors(strength: float) -> None:
    trie = through_ab()
    with pytest.raises(SmoothingError, match="strength is a number of anchors"):
        smoothed_trie(trie, MarkovModel(trie), strength, step_size=1)


def test_a_bound_of_zero_mass_would_add_prefixes_without_end() -> None:
    trie = through_ab()
    with pytest.raises(SmoothingError, match="unseen_mass must be above 0, or None"):
        smoothed_trie(trie, MarkovModel(trie), 1.0, step_size=1, unseen_mass=0.0)
