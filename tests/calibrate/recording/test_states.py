"""State logs: what they hold, that a stop loses nothing, and what is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibrate.recording.recorder import record
from calibrate.recording.states import StateLogBuilder, record_states
from calibrate.traces.state_log import ENTROPY_SCHEMA, read_states, states_of_table
from calibrate.traces.table import TraceError, read_shard, read_traces, write_shard
from tests.support.models import END_ID, MASK_ID, tiny_checkpoint
from verify.decoding import DecodeConfig, ForwardFact, StepFact, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.policies.specification import make_policy
from verify.ranked import RankedBlocks

PROMPTS = [[5, 9, 14, 3, 22, 7], [4, 8, 15, 16, 23], [3, 1 + END_ID, 9]]
CONFIG = DecodeConfig(block_length=8, generation_length=24, cache="block_causal", end_token_ids=(), top_j=2)
RULE = make_policy("static:1")


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint(seed=3)


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log") / "states"
    record_states(checkpoint, PROMPTS, RULE, CONFIG, folder, InformedDrafter(5), batch_size=2, shard_prompts=1)
    return folder


class Watching:
    def __init__(self):
        self.facts = []

    def on_forward(self, fact):
        self.facts.append(fact)


def keys_of(log, fact):
    """What the states of a forward are found by."""
    for state in fact.states:
        yield b"", state
    for complete, state in fact.bridges:
        ended_so = (complete == log.ends[fact.prompt_index, fact.block]).all()
        yield b"" if ended_so else complete.tobytes(), state


def test_every_evaluated_state_is_there_with_its_ranks(checkpoint, folder):
    log, watching = read_states(folder), Watching()
    results = dict(
        decode_batch(
            checkpoint.denoiser, list(enumerate(PROMPTS)), RULE, CONFIG, InformedDrafter(5),
            batch_size=2, forward_observer=watching,
        )
    )  # fmt: skip
    assert log.prompt_indices == [0, 1, 2] and len(log.prompt_hashes()) == 3
    seen, bridges = set(), 0
    for fact in watching.facts:
        for number, state in enumerate(fact.states):
            block = log.blocks[fact.prompt_index, fact.block]
            row = block.index[b"", state.tobytes()]
            seen.add((fact.prompt_index, fact.block, b"", state.tobytes()))
            masked = state == MASK_ID
            np.testing.assert_allclose(
                block.probability[row, masked], fact.ranked.top_probability[number, masked], rtol=1e-4
            )
            assert (block.token[row, masked] == fact.ranked.top_token[number, masked]).all()
            assert np.isnan(block.probability[row, ~masked]).all()
        for complete, state in fact.bridges:
            ended_so = (complete == log.ends[fact.prompt_index, fact.block]).all()
            behind = b"" if ended_so else complete.tobytes()
            assert (behind, state.tobytes()) in log.blocks[fact.prompt_index, fact.block + 1].index
            seen.add((fact.prompt_index, fact.block + 1, behind, state.tobytes()))
            bridges += 1
        found = log.find(fact.prompt_index, fact.block, fact.states, fact.bridges)
        assert len(found) == len(fact.states) + len(fact.bridges)
        for (block, row), (behind, state) in zip(found, keys_of(log, fact), strict=True):
            assert block.index[behind, state.tobytes()] == row
        assert log.find(fact.prompt_index, fact.block, 1 + fact.states[:1], fact.bridges[:, [1, 1]]) == [None] * (
            1 + len(fact.bridges)
        )
    assert bridges and log.states == len(seen)
    for prompt_index, prompt in enumerate(PROMPTS):
        blocks = [log.ends[prompt_index, number] for number in range(len(log.ends) // 3 + 1)
                  if (prompt_index, number) in log.ends]  # fmt: skip
        tail = len(prompt) % 8
        assert np.concatenate(blocks)[tail:].tolist() == results[prompt_index].tokens
        assert log.first[prompt_index].tolist() == prompt[len(prompt) - tail :] + [MASK_ID] * (8 - tail)


def test_a_state_that_was_reached_has_the_distribution_that_the_decode_used():
    """Where a draft of it came before: in a near-lossless mode its distribution is another."""
    builder, reached, draft = StateLogBuilder(), np.array([MASK_ID, MASK_ID]), np.array([7, MASK_ID])
    no_bridges, nothing = np.zeros((0, 2, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)

    def forward(states, tokens):
        states, top = np.array(states), np.array(tokens, dtype=np.int32)[:, :, None]
        probability = np.where((states == MASK_ID)[:, :, None], 0.5, np.nan)
        ranked = RankedBlocks(top, probability, None, np.zeros(states.shape, dtype=np.int64))
        builder.on_forward(ForwardFact(0, 0, states, no_bridges, ranked))

    forward([reached, draft], [[7, 8], [0, 9]])
    forward([draft], [[0, 6]])
    for step, (at, token) in enumerate(((0, 7), (1, 6)), start=1):
        commits = np.array([at]), np.array([token])
        builder.on_step(StepFact(0, 0, step, nothing, nothing, nothing, *commits, ""))
    log = states_of_table(builder.table([0]), {"block_length": 2, "top_j": 1, "mask_token_id": MASK_ID})
    (found,) = log.find(0, 0, draft[None], no_bridges)
    assert found is not None and found[0].token[found[1], 1] == [6]
    assert log.first[0].tolist() == [MASK_ID, MASK_ID] and log.ends[0, 0].tolist() == [7, 6]


def test_a_recording_goes_on_where_it_stopped(checkpoint, folder, tmp_path):
    copy = tmp_path / "states"
    shutil.copytree(folder, copy)
    sorted(copy.glob("shard-*"))[1].unlink()
    with pytest.raises(TraceError, match="holds 2 of 3 prompts"):
        read_states(copy)
    assert read_states(copy, partial=True).prompt_indices == [0, 2]
    done = []
    log = record_states(
        checkpoint, PROMPTS, RULE, CONFIG, copy, InformedDrafter(5), on_prompt=lambda *found: done.append(found)
    )
    assert done == [(2, 3), (3, 3)] and log.prompt_indices == [0, 1, 2]


def test_several_drafters_make_one_log(checkpoint, folder, tmp_path):
    record_states(checkpoint, PROMPTS, RULE, CONFIG, tmp_path / "two", InformedDrafter(2))
    both = read_states([folder, tmp_path / "two"])
    alone = read_states(folder), read_states(tmp_path / "two")
    assert max(log.states for log in alone) < both.states < sum(log.states for log in alone)
    assert [found["drafts"] for found in both.metadata["drafter"]] == [5, 2]
    other = replace(CONFIG, generation_length=16)
    record_states(checkpoint, PROMPTS, RULE, other, tmp_path / "other", InformedDrafter(2))
    with pytest.raises(TraceError, match=r"logs of different decodes \(generation_length differ\)"):
        read_states([folder, tmp_path / "other"])


def test_logs_and_traces_are_not_taken_for_each_other(checkpoint, folder, tmp_path):
    with pytest.raises(TraceError, match=r"a log of evaluated states .* expected a trace of plain decoding"):
        read_traces(folder)
    with pytest.raises(TraceError, match=r"drafter: there .*'informed'.* now None"):
        record(checkpoint, PROMPTS, RULE, CONFIG, folder)
    record(checkpoint, PROMPTS[:1], RULE, CONFIG, tmp_path / "plain")
    with pytest.raises(TraceError, match="a trace of plain decoding, expected a log of evaluated states"):
        read_states(tmp_path / "plain")
    with pytest.raises(TraceError, match="drafter: there None"):
        record_states(checkpoint, PROMPTS[:1], RULE, CONFIG, tmp_path / "plain", InformedDrafter(5))


def test_a_policy_that_reads_all_logits_is_refused(checkpoint, tmp_path):
    rule = make_policy("static:1", temperature=1.0)
    with pytest.raises(TraceError, match="policy static:1@temperature=1 reads all logits"):
        record_states(checkpoint, PROMPTS, rule, CONFIG, tmp_path / "log", InformedDrafter(5))
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("name", ["state", "top_probability"])
def test_shards_that_do_not_fit_the_manifest_are_refused(folder, tmp_path, name):
    manifest = (folder / "manifest.json").read_text(encoding="utf-8")
    copy = tmp_path / "states"
    shutil.copytree(folder, copy)
    changed = {"state": ('"block_length": 8', '"block_length": 4'), "top_probability": ('"top_j": 2', '"top_j": 1')}
    (copy / "manifest.json").write_text(manifest.replace(*changed[name]), encoding="utf-8")
    with pytest.raises(TraceError, match="do not belong together"):
        read_states(copy)


def test_logs_whose_decodes_parted_are_not_read_as_one(folder, tmp_path):
    log = read_states(folder)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    path = sorted(other.glob("shard-*"))[0]
    table = pq.read_table(path)
    states = table.column("state").to_pylist()
    ended = next(row for row, state in enumerate(states) if MASK_ID not in state)
    states[ended] = [3] * len(states[ended])
    column = pa.array(states, type=pa.list_(pa.int32()))
    pq.write_table(table.set_column(table.schema.get_field_index("state"), "state", column), path)
    assert read_states(other).states == log.states
    with pytest.raises(TraceError, match="end block 0 of prompt 0 differently"):
        read_states([folder, other])


def test_a_log_has_entropies_where_the_policy_reads_them(checkpoint, folder, tmp_path):
    rule, watching = make_policy("dream:entropy:4"), Watching()
    log = record_states(checkpoint, PROMPTS[:1], rule, CONFIG, tmp_path / "log", InformedDrafter(5))
    assert log.metadata["entropies"] is True and "entropies" not in read_states(folder).metadata
    assert all(block.entropy is None for block in read_states(folder).blocks.values())
    dict(
        decode_batch(
            checkpoint.denoiser, [(0, PROMPTS[0])], rule, CONFIG, InformedDrafter(5), forward_observer=watching
        )
    )
    for fact in watching.facts:
        block, state = log.blocks[0, fact.block], fact.states[0]
        row = block.index[b"", state.tobytes()]
        np.testing.assert_array_equal(block.entropy[row], fact.ranked.entropy[0])
        assert (np.isnan(block.entropy[row]) == (state != MASK_ID)).all()
    path = next((tmp_path / "log").glob("shard-*"))
    write_shard(path, read_shard(path, ENTROPY_SCHEMA).drop_columns(["entropy"]))
    with pytest.raises(TraceError, match="has columns"):
        read_states(tmp_path / "log")
