"""Replay of a state log: what the runtime counts, without a model."""

from dataclasses import replace

import numpy as np
import pytest

from calibrate.recording.recorder import record
from calibrate.recording.states import record_states
from calibrate.traces.state_log import read_states
from drafting.anchors import AnchorTable
from drafting.counts import ReplayError
from drafting.replay import replay
from drafting.state_replay import replay_states
from tests.support.models import END_ID, random_formulas, tiny_checkpoint
from verify.decoding import DecodeConfig, decode_batch
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.policies.specification import make_policy

PROMPTS = [[5, 9, 14, 3, 22, 7], [4, 8, 15, 16, 23], [3, 9]]
CONFIG = DecodeConfig(block_length=8, generation_length=16, end_token_ids=(END_ID,), top_j=3)


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint(seed=3)


def counted(checkpoint, policy, config, drafter):
    found = dict(decode_batch(checkpoint.denoiser, list(enumerate(PROMPTS)), policy, config, drafter))
    return [[getattr(found[k], name) for k in range(3)] for name in ("forwards", "query_tokens", "steps")]


@pytest.mark.parametrize(
    ("spec", "cache", "backend", "length"),
    [
        ("static:1", "dual", "packed", 8),
        ("threshold:0.2", "dual", "expanded", 8),
        ("static:1", "block_causal", "packed", 4),
        ("threshold:0.2", "block_causal", "packed", 8),
        ("quota:5/8", "block_causal", "expanded", 8),
        ("static:3", "prefix", "expanded", 8),
        ("static:1", "none", "expanded", 16),
        ("dream:entropy:5", "dual", "packed", 8),
        ("dream:entropy:6", "block_causal", "packed", 8),
        ("dream:margin:5", "dual", "packed", 8),
    ],
)
def test_predicted_equals_counted_for_what_was_recorded(checkpoint, tmp_path, spec, cache, backend, length):
    policy, config = make_policy(spec), replace(CONFIG, cache=cache, backend=backend, block_length=length)
    for drafts in (6, 2):
        record_states(checkpoint, PROMPTS, policy, config, tmp_path / str(drafts), InformedDrafter(drafts))
    log = read_states([tmp_path / "6", tmp_path / "2"])
    for drafts in (6, 2):
        forwards, query_tokens, steps = counted(checkpoint, policy, config, InformedDrafter(drafts))
        found = replay_states(log, InformedDrafter(drafts))
        assert found.exact and found.proposed
        assert found.forwards_per_prompt.tolist() == forwards
        assert found.query_tokens_per_prompt.tolist() == query_tokens
        assert found.plain_per_prompt.tolist() == steps
        widths = found.widths_per_prompt.sum(axis=1)
        assert (widths + found.refreshes_per_prompt).tolist() == forwards
        assert found.visited_histogram.sum() == widths.sum()
        assert found.widths_per_prompt.shape[1] - 1 <= found.widest


@pytest.mark.parametrize(("spec", "backend"), [("static:1", "packed"), ("threshold:0.2", "expanded")])
def test_copies_are_predicted_where_they_were_recorded(checkpoint, tmp_path, spec, backend):
    policy, config = make_policy(spec), replace(CONFIG, backend=backend, block_length=4)
    drafter = InformedDrafter(5, InformedSettings(copies=True))
    log = record_states(checkpoint, PROMPTS, policy, config, tmp_path, drafter)
    forwards, query_tokens, steps = counted(checkpoint, policy, config, drafter)
    found = replay_states(log, drafter)
    assert found.exact and sum(found.refreshes_per_prompt) < 4 * len(PROMPTS)
    assert found.forwards_per_prompt.tolist() == forwards
    assert found.query_tokens_per_prompt.tolist() == query_tokens
    assert found.plain_per_prompt.tolist() == steps
    assert (found.widths_per_prompt.sum(axis=1) + found.refreshes_per_prompt).tolist() == forwards


def test_a_model_without_copies_is_predicted_without_them(tmp_path):
    """A copy of the right end is in every log, as the refresh that it would save; so nothing would be missed."""
    shifted = tiny_checkpoint(seed=3)
    shifted.denoiser.logits_shift = 1
    policy, config = make_policy("static:1"), replace(CONFIG, block_length=4)
    log = record_states(shifted, PROMPTS, policy, config, tmp_path, InformedDrafter(3))
    drafter = InformedDrafter(3, InformedSettings(copies=True))
    forwards, _, _ = counted(shifted, policy, config, drafter)
    assert replay_states(log, drafter).forwards_per_prompt.tolist() == forwards
    offered = replace(log, metadata={**log.metadata, "offers_copies": True})
    assert replay_states(offered, drafter).forwards < sum(forwards)


def test_between_what_was_recorded_it_is_never_too_low_and_says_what_it_missed(checkpoint, tmp_path):
    policy = make_policy("static:1")
    record_states(checkpoint, PROMPTS, policy, CONFIG, tmp_path, InformedDrafter(6))
    log = read_states(tmp_path)
    missed = 0
    for drafts in (1, 3, 4, 12):
        found = replay_states(log, InformedDrafter(drafts))
        forwards, _, _ = counted(checkpoint, policy, CONFIG, InformedDrafter(drafts))
        assert found.exact == (found.missed == 0)
        assert found.forwards_per_prompt.sum() >= sum(forwards)
        if found.exact:
            assert found.forwards_per_prompt.tolist() == forwards
        missed += found.missed
    assert missed


def test_a_static_graph_counts_what_its_own_replay_counts(checkpoint, tmp_path):
    """Its rejected drafts do not matter, so a log of any drafter is as good as a plain trace."""
    policy = make_policy("static:1")
    traces = record(checkpoint, PROMPTS, policy, CONFIG, tmp_path / "plain")
    log = record_states(checkpoint, PROMPTS, policy, CONFIG, tmp_path / "log", InformedDrafter(4))
    for seed in range(5):
        formulas = random_formulas(seed, 6)
        expected = replay(formulas, AnchorTable.from_traces(traces, max_depth=None))
        found = replay_states(log, GraphDrafter(formulas))
        for name in ("forwards_per_prompt", "plain_per_prompt", "tokens_per_prompt", "visited_histogram"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_part_of_the_log_and_what_is_refused(checkpoint, tmp_path):
    policy = make_policy("static:1")
    log = record_states(checkpoint, PROMPTS, policy, replace(CONFIG, top_j=1), tmp_path, InformedDrafter(4))
    whole, part = replay_states(log, InformedDrafter(4)), replay_states(log.select([2, 0]), InformedDrafter(4))
    assert part.prompt_indices.tolist() == [0, 2]
    assert part.forwards_per_prompt.tolist() == whole.forwards_per_prompt[[0, 2]].tolist()
    with pytest.raises(ReplayError, match="reads vocabulary rank 2, but the log keeps 1"):
        replay_states(log, GraphDrafter([[(1, 2)]]))
    with pytest.raises(ReplayError, match="holds no prompt"):
        replay_states(log.select([]), InformedDrafter(4))
    key = (0, 1)
    block = log.blocks[key]
    broken = replace(log, blocks={**log.blocks, key: replace(block, index={})})
    with pytest.raises(ReplayError, match="prompt 0 reached in block 1"):
        replay_states(broken, InformedDrafter(4))
