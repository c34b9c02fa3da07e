"""The claim that everything rests on: forwards predicted by replaying traces == forwards the runtime counts.

Per prompt, not only in sum, with the same tokens; over policies, cache modes, back-ends and kinds of graphs.
"""

import zlib

import pytest

from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.builder import TraceBuilder
from calibrate.recording.recorder import record
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.chain import confidence_chain
from drafting.searches.greedy import greedy
from drafting.searches.published import published
from drafting.trie import PrefixTrie
from tests.support.models import END_ID, random_formulas, tiny_checkpoint, tiny_denoiser
from verify.decoding import DecodeConfig, decode
from verify.layout import BACKENDS, CACHE_MODES, exactness
from verify.policies.contract import Commits
from verify.policies.specification import make_policy

EXACT = [(c, b) for c in CACHE_MODES for b in BACKENDS if exactness(c, b).exact]
PROMPTS = [(5, 9, 13), (7, 8, 21, 22, 23, 24, 25, 26), (11, 12, 13, 14, 15), (3, 4)]
BUDGET = 8


def graphs_for(traces, policy, block_length):
    """Every kind of graph, by name; calibrated on the very decodes that they are judged on, so drafts are hit."""
    trie = PrefixTrie.from_anchors(AnchorTable.from_traces(traces, max_depth=None))
    size = policy.step_size
    built = {
        "chain": confidence_chain(BUDGET, block_length, size),
        "greedy": greedy(trie, BUDGET),
        "published": published(trie, BUDGET, step_size=size),
    }
    return {name: list(construction.nodes) for name, construction in built.items()}


def agree(denoiser, prompts, policy, config, traces, graphs):
    """Decode every prompt with every graph; returns forwards saved, over all."""
    anchors = AnchorTable.from_traces(traces, max_depth=None)
    written = traces.committed_blocks()
    saved = 0
    for name, nodes in graphs.items():
        predicted = replay(nodes, anchors)
        assert predicted.prompt_indices.tolist() == list(range(len(prompts)))
        visited = []
        for prompt_index, prompt in enumerate(prompts):
            result = decode(denoiser, prompt, policy, config, nodes, prompt_index=prompt_index)
            blocks = [written[key] for key in sorted(written) if key[0] == prompt_index]
            assert result.tokens == [token for block in blocks for _, token in sorted(block.items())], (
                name,
                prompt_index,
            )
            assert result.forwards == predicted.forwards_per_prompt[prompt_index], (name, prompt_index)
            visited += result.accepted
        # Not only how many forwards: also how many of them accepted 0, 1, 2, ... (a refresh forward is no anchor).
        histogram = predicted.visited_histogram.tolist()
        histogram[0] += anchors.n_blocks
        assert [visited.count(m) for m in range(len(histogram))] == histogram
        assert len(visited) == predicted.forwards
        saved += predicted.plain_forwards - predicted.forwards
    return saved


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


def observed(denoiser, policy, config):
    builder = TraceBuilder()
    for prompt_index, prompt in enumerate(PROMPTS):
        decode(denoiser, prompt, policy, config, prompt_index=prompt_index, observer=builder)
    return builder.build()


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize("spec", ["static:1", "static:2", "threshold:0.3", "threshold:0.2"])
def test_on_a_random_model(denoiser, spec, cache, backend):
    policy = make_policy(spec)
    config = DecodeConfig(8, 16, cache, backend, end_token_ids=(END_ID,), top_j=4)
    traces = observed(denoiser, policy, config)
    graphs = graphs_for(traces, policy, 8)
    for k in range(3):
        seed = zlib.crc32(f"{spec} {cache} {k}".encode())
        graphs[f"random {k}"] = random_formulas(seed, BUDGET, policy.step_size, ranks=6, top_j=4)
    graphs["nothing"] = []
    assert agree(denoiser, PROMPTS, policy, config, traces, graphs) > 0


@pytest.mark.parametrize("spec", ["static:1", "threshold:0.2"])
def test_with_sampled_tokens(denoiser, spec):
    """A sampled token may lie outside the ranks recorded; the chain ends there, in replay as at run time."""
    policy = make_policy(spec, temperature=0.7)
    config = DecodeConfig(8, 16, "dual", top_j=2)
    traces = observed(denoiser, policy, config)
    graphs = {f"random {k}": random_formulas(k, 20, policy.step_size, ranks=6, top_j=2) for k in range(4)}
    assert agree(denoiser, PROMPTS, policy, config, traces, graphs) > 0


class EveryOtherStep:
    """static:1 that commits in every second step only; a step without commits ends a chain, as the root is no draft."""

    spec, needs, ranks, monotone, may_do_nothing = "odd:1", "ranks", 1, True, True
    step_size, temperature = 1, 0.0

    def initial_state(self):
        return 0

    def step(self, view, state, rng):
        count = state % 2
        return Commits(view.positions[:count], view.tokens[:count, 0]), state + 1


def test_with_a_policy_that_may_do_nothing(denoiser):
    policy = EveryOtherStep()
    config = DecodeConfig(8, 16, "dual", top_j=2)
    traces = observed(denoiser, policy, config)
    graphs = {f"random {k}": random_formulas(k, 12, 1, top_j=2) for k in range(3)}
    assert agree(denoiser, PROMPTS, policy, config, traces, graphs) >= 0


@pytest.fixture(scope="module")
def bundled():
    from calibrate.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint("bundled")
    prompts = load_prompt_set("bundled", "test", limit=4)
    return checkpoint, encode_prompts(prompts, checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size)


@pytest.mark.parametrize(
    ("number", "spec", "cache", "backend"),
    [
        (0, "static:1", "dual", "packed"),
        (1, "threshold:0.9", "dual", "packed"),
        (2, "static:2", "block_causal", "packed"),
        (3, "threshold:0.9", "block_causal", "expanded"),
    ],
)
def test_on_the_bundled_model(bundled, tmp_path, number, spec, cache, backend):
    """A small sample, one prompt a cell; ``benchmarks/identity.py`` runs the whole grid."""
    checkpoint, prompts = bundled[0], bundled[1][number : number + 1]
    policy = make_policy(spec)
    config = DecodeConfig(32, 64, cache, backend, end_token_ids=checkpoint.end_token_ids)
    traces = record(checkpoint, prompts, policy, config, tmp_path / "trace")
    graphs = graphs_for(traces, policy, 32)
    graphs["random"] = random_formulas(1, BUDGET, policy.step_size)
    assert agree(checkpoint.denoiser, prompts, policy, config, traces, graphs) > 0


def test_a_tiny_checkpoint_records_what_the_observer_sees(denoiser, tmp_path):
    config = DecodeConfig(8, 16, "dual", top_j=4)
    policy = make_policy("static:2")
    traces = record(tiny_checkpoint(denoiser=denoiser), PROMPTS, policy, config, tmp_path / "trace")
    assert traces.trace_hash() == observed(denoiser, policy, config).trace_hash()
