"""Replay for another runtime's books, against a count block by block."""

from collections import Counter

import numpy as np
import pytest

from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.runtime_replay import runtime_count
from tests.support.toy import toy_traces
from verify.graph.formulas import formula
from verify.runtimes.profiles import PROFILES, find_profile

#: Chains of the best tokens; the last ones complete a block of four.
GRAPH = [tuple((i, 1) for i in range(1, size + 1)) for size in range(1, 4)] + [((2, 1),), ((1, 2),)]


@pytest.fixture(scope="module")
def traces():
    return toy_traces(3, prompts=20, blocks=3, length=4, rule="threshold:0.1", noise=0.2)


def naive(traces, nodes, profile):
    """Forwards per prompt: {prompt: (plain, with drafts)}, and how many blocks were completed by a draft."""
    rows: dict = {}
    for row, key in enumerate(zip(traces.prompt_index.tolist(), traces.block.tolist(), strict=True)):
        rows.setdefault(key, []).append(row)
    books, adoptions = Counter(), 0
    for (prompt, _), steps in rows.items():
        forwards, at, adopted = 1, 1, False
        while at < len(steps):
            forwards, accepted = forwards + 1, 0
            while at + accepted < len(steps) and state(traces, steps[at - 1], steps[at : at + accepted + 1]) in nodes:
                accepted += 1
            # Without adoption the complete block is no draft; its step is taken from the state before it all the same.
            adopted = at + accepted == len(steps)
            at += accepted + 1
        adopted &= profile.adopts_complete
        adoptions += adopted
        books[prompt, "plain"] += max(len(steps), profile.least_per_block) + profile.added_per_block
        books[prompt, "drafts"] += max(forwards, profile.least_per_block) + (0 if adopted else profile.added_per_block)
    return books, adoptions


def state(traces, anchor, steps):
    """What ``steps`` committed, as a formula under the ranks that the row ``anchor`` gave; None where it has none."""
    span = slice(traces.masked_ptr[anchor], traces.masked_ptr[anchor + 1])
    own = traces.commit_position[traces.commit_ptr[anchor] : traces.commit_ptr[anchor + 1]]
    entries = [e for e in range(span.start, span.stop) if traces.masked_position[e] not in own]
    pairs = []
    for step in steps:
        for commit in range(traces.commit_ptr[step], traces.commit_ptr[step + 1]):
            rank = [traces.masked_position[e] for e in entries].index(traces.commit_position[commit])
            tokens = traces.top_token[entries[rank]].tolist()
            if traces.commit_token[commit] not in tokens:
                return None
            pairs.append((rank + 1, tokens.index(traces.commit_token[commit]) + 1))
    return formula(pairs)


@pytest.mark.parametrize("name", PROFILES)
def test_block_by_block(traces, name):
    profile = find_profile(name)
    books, adoptions = naive(traces, set(GRAPH), profile)
    found = runtime_count(GRAPH, traces, profile)
    prompts = found.prompt_indices.tolist()
    assert found.plain_per_prompt.tolist() == [books[prompt, "plain"] for prompt in prompts]
    assert found.forwards_per_prompt.tolist() == [books[prompt, "drafts"] for prompt in prompts]
    assert found.forwards < found.plain_forwards
    assert (adoptions > 0) == profile.adopts_complete


def test_a_runtime_that_counts_as_we_do(traces):
    anchors = AnchorTable.from_traces(traces, max_depth=None)
    ours, found = replay(GRAPH, anchors), runtime_count(GRAPH, traces, find_profile("fast-dllm-f6b35ec"), anchors)
    np.testing.assert_array_equal(found.prompt_indices, ours.prompt_indices)
    assert (found.plain_forwards, found.forwards) == (ours.plain_forwards, ours.forwards)
    np.testing.assert_array_equal(found.forwards_per_prompt, ours.forwards_per_prompt)


def test_without_drafts_it_is_plain(traces):
    for profile in PROFILES.values():
        found = runtime_count([], traces, profile)
        assert found.forwards_per_prompt.tolist() == found.plain_per_prompt.tolist()
