"""Pruned graphs: forwards predicted from plain traces are those that the runtime counts."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from calibrate.models.checkpoint import load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import TraceBuilder
from drafting.anchors import AnchorTable
from drafting.pruned_replay import PrunedReplay
from drafting.replay import replay
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from tests.support.models import END_ID, random_formulas, tiny_denoiser
from tests.support.toy import naive_blocks, naive_forwards, toy_traces
from verify.decoding import DecodeConfig, decode
from verify.drafters.pruned import PrunedGraphDrafter
from verify.graph.pruning import GraphPruner, Score
from verify.policies.specification import make_policy

PROMPTS = [(5, 9, 13), (7, 8, 21, 22, 23, 24, 25, 26), (11, 12, 13, 14, 15), (3, 4)]


def agree(denoiser, prompts, policy, config, large, ks, scores=("own", "mean_child")):
    """Record, predict, decode and compare, prompt by prompt: (forwards saved, replays that pruning changed)."""
    builder, plain = TraceBuilder(), []
    for k, prompt in enumerate(prompts):
        plain.append(decode(denoiser, prompt, policy, config, prompt_index=k, observer=builder))
    recorded = PrunedReplay(builder.build())
    whole = replay(large(recorded.anchors), recorded.anchors)
    saved = changed = 0
    for keep in ks:
        for score in scores:
            drafter = PrunedGraphDrafter(large(recorded.anchors), keep, policy.step_size, score)
            predicted = recorded.replay(drafter.pruner)
            accepted = []
            for k, prompt in enumerate(prompts):
                found = decode(denoiser, prompt, policy, config, drafter, prompt_index=k)
                assert found.tokens == plain[k].tokens
                assert found.forwards == predicted.forwards_per_prompt[k], (keep, score, k)
                accepted += found.accepted
            histogram = predicted.visited_histogram.tolist()
            histogram[0] += recorded.anchors.n_blocks
            assert [accepted.count(m) for m in range(len(histogram))] == histogram
            saved += predicted.plain_forwards - predicted.forwards
            changed += predicted.forwards != whole.forwards
    return saved, changed


@pytest.mark.parametrize("cache", ["dual", "block_causal"])
@pytest.mark.parametrize("spec", ["static:1", "static:2", "threshold:0.3", "threshold:0.2"])
def test_predicted_is_counted_on_a_random_model(spec, cache):
    policy = make_policy(spec)
    config = DecodeConfig(8, 16, cache, end_token_ids=(END_ID,), top_j=4)

    def large(anchors):
        return greedy(PrefixTrie.from_anchors(anchors), 16).nodes

    saved, _ = agree(tiny_denoiser(), PROMPTS, policy, config, large, (2, 5))
    assert saved > 0


def test_predicted_is_counted_with_sampled_tokens():
    policy = make_policy("static:1", temperature=0.7)

    def large(anchors):
        return random_formulas(2, 24, 1, ranks=6, top_j=3)

    saved, changed = agree(
        tiny_denoiser(), PROMPTS, policy, DecodeConfig(8, 16, "dual", top_j=3), large, (3,), get_args(Score)
    )
    assert saved > 0 and changed


@pytest.mark.parametrize(("number", "spec"), [(0, "static:1"), (1, "static:2"), (2, "threshold:0.9")])
def test_predicted_is_counted_on_the_bundled_model(number, spec):
    """One block a policy; up to 32 nodes are filled, 2 are evaluated."""
    checkpoint, policy = load_checkpoint("bundled"), make_policy(spec)
    texts = load_prompt_set("bundled", "test", limit=3)
    prompts = encode_prompts(texts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)
    config = DecodeConfig(32, 32, "dual", end_token_ids=checkpoint.end_token_ids)

    def large(anchors):
        return greedy(PrefixTrie.from_anchors(anchors), 32).nodes

    saved, changed = agree(checkpoint.denoiser, prompts[number : number + 1], policy, config, large, (2,))
    assert saved > 0 and changed


@pytest.mark.parametrize("case", [dict(rule="static:1"), dict(rule="static:2", length=9), dict(rule="threshold:0.5")])
def test_forwards_are_those_of_a_walk_with_the_kept_nodes(case):
    """The walk takes the chain of every anchor from the naive oracle, and prunes each anchor alone."""
    policy = make_policy(case["rule"])
    for seed in range(3):
        traces = toy_traces(seed, idle=0.1, surprises=0.05, **case)
        rng = np.random.default_rng(seed)
        shape = traces.top_probability.shape
        traces = replace(traces, top_probability=np.sort(rng.random(shape))[:, ::-1].astype(np.float32))
        recorded = PrunedReplay(traces)
        large = greedy(PrefixTrie.from_anchors(recorded.anchors), 20).nodes
        pruner = GraphPruner(large, 4, policy.step_size)
        forwards, row = 0, 0
        for block in naive_blocks(traces):
            for step, chain in enumerate(block["chains"]):
                low, high = traces.masked_ptr[row + step : row + step + 2]
                commits = traces.commit_position[slice(*traces.commit_ptr[row + step : row + step + 2])]
                left = ~np.isin(traces.masked_position[low:high], commits)
                probability = traces.top_probability[low:high][left]
                kept = pruner.kept(probability, np.zeros(1, dtype=int), np.array([len(probability)]))[0]
                nodes = {node for node, there in zip(pruner.formulas, kept, strict=True) if there}
                block["chains"][step] = [state if state in nodes else None for state in chain]
            forwards += naive_forwards(set(large), block)[0]
            row += block["steps"]
        assert recorded.replay(pruner).forwards == forwards < traces.n_steps


def test_keeping_all_is_the_replay_of_the_graph():
    traces = toy_traces(1, length=10)
    large = random_formulas(1, 20, 1, ranks=6, top_j=3)
    whole = replay(large, AnchorTable.from_traces(traces, max_depth=None))
    found = PrunedReplay(traces).replay(GraphPruner(large, 20, 1))
    assert found.row() == whole.row()
    assert found.accepted_histogram.tolist() == whole.accepted_histogram.tolist()
    assert PrunedReplay(traces).replay(GraphPruner(large, 0, 1)).forwards == traces.n_steps
    assert PrunedReplay(traces).replay(GraphPruner([], 3, 1)).forwards == traces.n_steps


def test_anchors_in_several_parts_give_the_same(monkeypatch):
    traces, pruner = toy_traces(2, prompts=6), GraphPruner(random_formulas(1, 12, 1), 4, 1)
    whole = PrunedReplay(traces).replay(pruner)
    monkeypatch.setattr("drafting.pruned_replay._CHUNK", 7)
    assert PrunedReplay(traces).replay(pruner).row() == whole.row()


def test_a_rank_without_a_recorded_probability_is_refused():
    with pytest.raises(ValueError, match="vocabulary rank 4, but the trace holds 3; record with a higher top_j"):
        PrunedReplay(toy_traces(0)).replay(GraphPruner([((1, 4),)], 1, 1))


def test_nothing_recorded():
    found = PrunedReplay(toy_traces(0).select([])).replay(GraphPruner([((1, 1),)], 1, 1))
    assert (found.forwards, found.plain_forwards) == (0, 0)
