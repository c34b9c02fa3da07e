"""The parametric constructor: known rules at known values, every parameter counts; replay of all budgets at once."""

import time
from dataclasses import replace

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.nested_replay import NestedReplay
from drafting.parametric.candidates import Candidates
from drafting.parametric.construction import parametric, parametric_order, prefix_weights
from drafting.parametric.parameters import NEUTRAL, PARAMETERS, WARM_STARTS, check_parameters
from drafting.replay import replay, walk
from drafting.searches.greedy import greedy
from drafting.searches.published import published
from drafting.trie import PrefixTrie
from tests.support.toy import toy_traces

STEPS = {"static:1": 1, "static:2": 2, "threshold:0.3": None}


def table(seed: int, rule: str = "static:1", prompts: int = 12) -> AnchorTable:
    return AnchorTable.from_traces(toy_traces(seed, prompts=prompts, length=8, noise=0.3, rule=rule), None)


def two_domains(anchors: AnchorTable) -> dict[int, str]:
    return {int(prompt_index): "even" if prompt_index % 2 == 0 else "odd" for prompt_index in anchors.prompt_indices()}


def drawn(rng: np.random.Generator) -> dict[str, float]:
    return {p.name: float(rng.uniform(p.low, p.high)) for p in PARAMETERS}


@pytest.mark.parametrize("rule", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_neutral_values_are_greedy(rule: str, seed: int) -> None:
    anchors = table(seed, rule)
    candidates = Candidates.from_anchors(anchors, 16, STEPS[rule], two_domains(anchors))
    found = parametric(candidates, {}, 16)
    expected = greedy(PrefixTrie.from_anchors(anchors), 16)
    assert found.nodes == expected.nodes
    assert [gain / anchors.n_anchors for gain in found.gains] == pytest.approx(expected.gains)
    np.testing.assert_array_equal(prefix_weights(candidates, NEUTRAL), candidates.trie.count)


@pytest.mark.parametrize("rule", STEPS)
@pytest.mark.parametrize("accumulation", ["degree1/all", "degree0"])
def test_the_published_rule_is_a_corner(rule: str, accumulation: str) -> None:
    anchors = table(7, rule)
    candidates = Candidates.from_anchors(anchors, 16, STEPS[rule], max_states=10**9)
    found = parametric(candidates, WARM_STARTS[f"published:{accumulation}"], 16)
    kind = accumulation.partition("/")[0]
    trie = PrefixTrie.from_anchors(anchors, max_depth=16)
    expected = published(trie, 16, step_size=STEPS[rule], accumulation=kind)  # type: ignore[arg-type]
    assert found.nodes == expected.nodes
    assert found.gains == pytest.approx(expected.gains)


@pytest.mark.parametrize("name", [p.name for p in PARAMETERS])
def test_every_parameter_changes_the_graph(name: str) -> None:
    anchors = table(3, prompts=20)
    candidates = Candidates.from_anchors(anchors, 24, 1, two_domains(anchors))
    # The model that "markov" mixes shows only where something is smoothed.
    base = {"smoothing": 0.5} if name == "markov" else {}
    parameter = next(p for p in PARAMETERS if p.name == name)
    orders = {
        parametric(candidates, {**base, name: value}, 24).nodes
        for value in (parameter.low, parameter.neutral, parameter.high)
    }
    assert len(orders) > 1


@pytest.mark.parametrize("rule", STEPS)
def test_any_values_give_draft_graphs_of_every_budget(rule: str) -> None:
    anchors = table(1, rule)
    candidates = Candidates.from_anchors(anchors, 20, STEPS[rule], two_domains(anchors))
    rng = np.random.default_rng(0)
    for _ in range(10):
        found = parametric(candidates, drawn(rng), 20)
        assert len(set(found.nodes)) == 20
        for budget in (1, 7, 20):
            DraftGraph.from_formulas(found.nodes[:budget], STEPS[rule])


def test_weights_of_the_mixed_domains() -> None:
    anchors = table(2)
    domains = two_domains(anchors)
    candidates = Candidates.from_anchors(anchors, 8, 1, domains)
    alone = anchors.select([prompt_index for prompt_index, domain in domains.items() if domain == "even"])
    expected = greedy(PrefixTrie.from_anchors(alone), 8)
    assert candidates.domains == ("even", "odd")
    assert parametric(candidates, {"domain_mix": 1.0}, 8).nodes == expected.nodes


def test_visited_counts_the_anchors_that_greedy_visits() -> None:
    anchors = table(4)
    candidates = Candidates.from_anchors(anchors, 8, 1)
    _, visits = walk(greedy(PrefixTrie.from_anchors(anchors), 8).nodes, anchors)
    weighed = PrefixTrie.from_anchors(anchors, visits * (len(visits) / visits.sum()))
    assert parametric(candidates, {"visited": 1.0}, 8).nodes == greedy(weighed, 8).nodes


def test_smoothing_by_hand() -> None:
    """Two orders of one state: with the Markov model alone, a prefix seen once borrows from its state's others."""
    a, b, ab, abc = ((1, 1),), ((2, 1),), ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))
    chains = [[a, ab, abc]] * 3 + [[a, ab]] * 1 + [[b, ab]] * 2
    candidates = Candidates.from_anchors(with_blocks(AnchorTable.from_chains(chains)), 5, 1)
    weights = prefix_weights(candidates, {**NEUTRAL, "smoothing": 1.0, "markov": 1.0})
    trie = candidates.trie
    names = {trie.formulas([trie.state[t]])[0]: weights[t] for t in range(1, trie.n_nodes) if trie.parent[t] == 0}
    # root: 4 of 6 go to a, and the Markov model of the root says the same, so nothing moves.
    assert names[a] == pytest.approx(4.0)
    assert names[b] == pytest.approx(2.0)
    deep = [t for t in range(trie.n_nodes) if trie.depth[t] == 3]
    # ab -> abc: 3 of 4 by this path, 3 of 6 by the state: (3 + 64 * 0.5) / (4 + 64), and ab follows a always.
    assert weights[deep] == pytest.approx([4 * (3 + 64 * 0.5) / (4 + 64)])


def with_blocks(anchors: AnchorTable) -> AnchorTable:
    """Literal chains as blocks of one anchor each, so that they can be replayed."""
    n = anchors.n_anchors
    return replace(
        anchors,
        block_ptr=np.arange(n + 1),
        block_prompt=anchors.prompt_index,
        block_index=np.zeros(n, dtype=np.int32),
        block_steps=np.full(n, 2, dtype=np.int32),
        block_tokens=np.full(n, 2, dtype=np.int32),
    )


def test_a_budget_beyond_the_candidates_says_so() -> None:
    anchors = table(0, prompts=2)
    candidates = Candidates.from_anchors(anchors, 10**4, 1)
    found = parametric(candidates, {}, 10**4)
    assert not found.complete
    assert len(found.nodes) == candidates.trie.n_states - 1


def test_few_states_are_kept_when_asked_for() -> None:
    anchors = table(5, prompts=30)
    everything = Candidates.from_anchors(anchors, 4, 1)
    few = Candidates.from_anchors(anchors, 4, 1, max_states=60)
    assert few.trie.n_states <= 61 < everything.trie.n_states
    assert parametric(few, {}, 4).nodes == parametric(everything, {}, 4).nodes


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown parameter smooth; expected some of smoothing, markov"):
        check_parameters({"smooth": 0.5})
    with pytest.raises(ValueError, match=r"depth_discount must lie between 0\.7 and 1\.1, got 2\.0"):
        check_parameters({"depth_discount": 2.0})
    with pytest.raises(ValueError, match="visited must lie between"):
        check_parameters({"visited": float("nan")})
    with pytest.raises(ValueError, match="no domain is known for 11 prompts, first prompt 1"):
        Candidates.from_anchors(table(0), 4, 1, {0: "only"})
    with pytest.raises(ValueError, match="nothing to draft"):
        Candidates.from_anchors(AnchorTable.from_chains([]), 4, 1)


@pytest.mark.parametrize("rule", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_nested_replay_is_replay(rule: str, seed: int) -> None:
    anchors = table(seed, rule)
    prompt_indices = anchors.prompt_indices()
    candidates = Candidates.from_anchors(anchors.select(prompt_indices[::2]), 12, STEPS[rule])
    other = anchors.select(prompt_indices[1::2])
    budgets = (1, 2, 5, 12)
    fast = NestedReplay(candidates.trie, other, budgets)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        order, _ = parametric_order(candidates, {k: v for k, v in drawn(rng).items() if k in candidates.names}, 12)
        nodes = candidates.trie.formulas(order)
        forwards = fast.forwards(order)
        for row, budget in zip(forwards, budgets, strict=True):
            slow = replay(nodes[:budget], other)
            np.testing.assert_array_equal(row, slow.forwards_per_prompt)
            np.testing.assert_array_equal(fast.prompt_indices, slow.prompt_indices)
            np.testing.assert_array_equal(fast.plain, slow.plain_per_prompt)


def test_a_trial_takes_milliseconds() -> None:
    """Processor time, so that a busy machine does not fail it; benchmarks/storage_cost.py times more anchors."""
    anchors = AnchorTable.from_traces(toy_traces(0, prompts=40, blocks=5, length=32, noise=0.15), None)
    assert anchors.n_anchors > 2_000
    candidates = Candidates.from_anchors(anchors, 16, 1)
    fast = NestedReplay(candidates.trie, anchors, (3, 5, 8, 10, 16))
    rng = np.random.default_rng(0)
    values = [{k: v for k, v in drawn(rng).items() if k in candidates.names} for _ in range(10)]
    parametric_order(candidates, values[0], 16)
    start = time.process_time()
    for value in values:
        fast.forwards(parametric_order(candidates, value, 16)[0])
    assert (time.process_time() - start) / len(values) < 0.05
