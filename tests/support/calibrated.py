"""Graphs calibrated on the very decodes that they are then used in, so that drafts are hit."""

from calibrate.recording.builder import TraceBuilder
from drafting.anchors import AnchorTable
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from verify.decoding import decode
from verify.graph.file import GraphFile
from verify.graph.validity import Validity
from verify.policies.specification import make_policy


def calibrated(denoiser, prompts, spec, config, budget=8, revision=None):
    """(graph file, traces of the plain decodes, their results), by prompt."""
    builder, policy = TraceBuilder(), make_policy(spec)
    plain = [
        decode(denoiser, prompt, policy, config, prompt_index=index, observer=builder)
        for index, prompt in enumerate(prompts)
    ]
    traces = builder.build()
    anchors = AnchorTable.from_traces(traces, max_depth=None)
    valid = Validity("tiny", revision, policy.spec, config.block_length, config.cache, policy.temperature, config.top_j)
    nodes = greedy(PrefixTrie.from_anchors(anchors), budget).nodes
    return GraphFile.from_nodes(nodes, valid), traces, plain
