"""Recording: what is recorded is what was decoded, and nothing that was finished is ever lost."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from calibrate.recording import recorder
from calibrate.recording.builder import TraceBuilder
from calibrate.recording.recorder import record
from calibrate.traces.table import TraceError, read_shard, read_traces
from tests.support.models import END_ID, CountingDenoiser, tiny_checkpoint, tiny_denoiser
from tests.support.paths import ROOT
from verify.decoding import DecodeConfig, decode
from verify.policies.specification import make_policy

PROMPTS = [(5, 9, 13), (7, 8), (11, 12, 13, 14), (3, 4, 5), (21, 22), (30, 31, 32)]
CONFIG = DecodeConfig(block_length=6, generation_length=12, top_j=3, end_token_ids=(END_ID,))
POLICY = make_policy("static:2")


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


@pytest.fixture(scope="module")
def whole(denoiser, tmp_path_factory):
    """An uninterrupted recording of all prompts."""
    folder = tmp_path_factory.mktemp("recording") / "whole"
    return record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, folder)


class Faulty(CountingDenoiser):
    """Raises at its n-th call, once."""

    def __init__(self, inner, at, error):
        super().__init__(inner)
        self.at, self.error = at, error

    def __call__(self, *args, **kwargs):
        if self.calls + 1 == self.at:
            self.at = -1
            raise self.error
        return super().__call__(*args, **kwargs)


def prompts_in(folder):
    """The prompts of each shard, shard by shard."""
    return [
        np.unique(read_shard(path).column("prompt_index").to_numpy()).tolist() for path in sorted(folder.glob("shard*"))
    ]


def recorded(folder):
    return [prompt_index for shard in prompts_in(folder) for prompt_index in shard]


@pytest.mark.parametrize(
    "policy", [make_policy("static:2"), make_policy("threshold:0.2"), make_policy("static:1", 0.7)]
)
@pytest.mark.parametrize("cache", ["dual", "block_causal"])
def test_what_is_recorded_is_what_is_decoded(denoiser, tmp_path, policy, cache):
    config = replace(CONFIG, cache=cache)
    traces = record(tiny_checkpoint(denoiser=denoiser), PROMPTS, policy, config, tmp_path / "trace")
    written = traces.committed_blocks()
    for prompt_index, prompt in enumerate(PROMPTS):
        result = decode(denoiser, prompt, policy, config, prompt_index=prompt_index)
        blocks = [dict(written[key]) for key in sorted(written) if key[0] == prompt_index]
        tokens = [block[offset] for block in blocks for offset in sorted(block)]
        assert tokens == result.tokens
        assert np.count_nonzero(traces.prompt_index == prompt_index) == result.steps


def test_every_row_shows_the_block_before_its_step(whole):
    masked = np.diff(whole.masked_ptr)
    commits = np.diff(whole.commit_ptr)
    for row in range(whole.n_steps):
        positions = whole.masked_position[whole.masked_ptr[row] : whole.masked_ptr[row + 1]].tolist()
        committed = whole.commit_position[whole.commit_ptr[row] : whole.commit_ptr[row + 1]].tolist()
        assert set(committed) <= set(positions)
        if whole.step[row] == 1:
            assert sorted(positions) == list(range(6))
        else:
            assert masked[row] == masked[row - 1] - commits[row - 1]
    assert commits.tolist() == np.minimum(2, masked).tolist()
    assert (np.diff(whole.top_probability, axis=1) <= 0).all()
    assert whole.top_j == 3


def test_the_manifest_tells_the_facts(whole):
    facts = whole.metadata
    assert facts["model"] == "tiny" and facts["model_revision"] == "seed-0"
    assert (facts["policy"], facts["temperature"], facts["cache"]) == ("static:2", 0.0, "dual")
    assert (facts["block_length"], facts["generation_length"], facts["top_j"]) == (6, 12, 3)
    assert (facts["dtype"], facts["device"], facts["mask_token_id"]) == ("float32", "cpu", 1)
    assert (facts["prompts"], facts["seed"], facts["end_token_ids"]) == (len(PROMPTS), 0, [END_ID])
    assert len(facts["prompt_set_hash"]) == 64 and facts["tool_version"]


def test_events_and_shards(denoiser, tmp_path):
    record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, tmp_path / "trace", shard_prompts=4)
    assert prompts_in(tmp_path / "trace") == [[0, 1, 2, 3], [4, 5]]
    table = read_shard(tmp_path / "trace" / "shard-000000.parquet")
    for step, event in zip(table.column("step").to_pylist(), table.column("event").to_pylist(), strict=True):
        assert event == ("refresh" if step == 1 else "block_end" if step == 3 else ""), (step, event)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_length": 32768, "generation_length": 32768}, "block length is 32768.*at most 32767"),
        ({"top_j": 40000}, "top_j is 40000.*at most 32767"),
    ],
)
def test_ranks_that_16_bits_cannot_hold_are_refused(tmp_path, change, message):
    checkpoint = tiny_checkpoint(denoiser=tiny_denoiser(vocabulary=50000))
    with pytest.raises(TraceError, match=message):
        record(checkpoint, PROMPTS, POLICY, replace(CONFIG, **change), tmp_path / "trace")
    assert not (tmp_path / "trace").exists()


def test_one_revision_goes_on_by_whatever_name(denoiser, tmp_path):
    record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, tmp_path / "trace")
    record(tiny_checkpoint(denoiser=denoiser, name="copy"), PROMPTS, POLICY, CONFIG, tmp_path / "trace")
    for revision in (None, "seed-1"):
        other = tiny_checkpoint(denoiser=denoiser, name="copy", revision=revision)
        with pytest.raises(TraceError, match=r"holds a trace of another run.*model_revision: there 'seed-0'"):
            record(other, PROMPTS, POLICY, CONFIG, tmp_path / "trace")


def test_progress_is_told(denoiser, tmp_path):
    told = []
    checkpoint = tiny_checkpoint(denoiser=denoiser)
    record(checkpoint, PROMPTS[:3], POLICY, CONFIG, tmp_path / "trace", on_prompt=lambda *now: told.append(now))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    told.clear()
    record(checkpoint, PROMPTS[:3], POLICY, CONFIG, tmp_path / "trace", on_prompt=lambda *now: told.append(now))
    assert told == [(3, 3)]


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize("at", [1, 4, 8, 13, 20, 31, 36])
def test_an_interrupted_recording_keeps_what_is_done_and_goes_on(denoiser, whole, tmp_path, at):
    """Six calls a prompt here. Ctrl-C at any of them: finished prompts are on disk, and none is decoded twice."""
    folder = tmp_path / "trace"
    faulty = Faulty(denoiser, at, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        record(tiny_checkpoint(denoiser=faulty), PROMPTS, POLICY, CONFIG, folder, shard_prompts=2)
    done = (at - 1) // 6
    assert recorded(folder) == list(range(done))
    counting = CountingDenoiser(denoiser)
    traces = record(tiny_checkpoint(denoiser=counting), PROMPTS, POLICY, CONFIG, folder, shard_prompts=2)
    assert traces.trace_hash() == whole.trace_hash()
    # The counting wrapper offers no slots, so another engine ran it: the same ranks, other last bits.
    np.testing.assert_allclose(traces.top_probability, whole.top_probability, rtol=1e-5)
    assert counting.calls == 6 * (len(PROMPTS) - done)


def test_an_error_of_the_model_loses_nothing_either(denoiser, whole, tmp_path):
    faulty = Faulty(denoiser, 15, FloatingPointError("the model returned NaN"))
    with pytest.raises(FloatingPointError):
        record(tiny_checkpoint(denoiser=faulty), PROMPTS, POLICY, CONFIG, tmp_path / "trace")
    assert prompts_in(tmp_path / "trace") == [[0, 1]]
    traces = record(tiny_checkpoint(denoiser=faulty), PROMPTS, POLICY, CONFIG, tmp_path / "trace")
    assert traces.trace_hash() == whole.trace_hash()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interruption_while_a_shard_is_written(denoiser, whole, tmp_path, monkeypatch, moment):
    write, interrupted = recorder.write_shard, []

    def interrupt(path, table, facts):
        if moment == "after" or interrupted:
            write(path, table, facts)
        if not interrupted:
            interrupted.append(path)
            raise KeyboardInterrupt

    monkeypatch.setattr(recorder, "write_shard", interrupt)
    folder = tmp_path / "trace"
    with pytest.raises(KeyboardInterrupt):
        record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, folder, shard_prompts=2)
    assert prompts_in(folder) == [[0, 1]]
    traces = record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, folder, shard_prompts=2)
    assert traces.trace_hash() == whole.trace_hash()


def test_an_interruption_while_progress_is_told(denoiser, whole, tmp_path):
    for stop in range(len(PROMPTS)):
        folder = tmp_path / f"trace-{stop}"

        def report(done, total, stop=stop):
            if done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            record(
                tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, folder, shard_prompts=2, on_prompt=report
            )
        assert recorded(folder) == list(range(stop))
    traces = record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, tmp_path / "trace-3")
    assert traces.trace_hash() == whole.trace_hash()


KILLED = """
import os, signal, sys
import pyarrow.parquet
from calibrate.recording.builder import TraceBuilder
from calibrate.recording.recorder import record
from tests.calibrate.recording.test_recorder import CONFIG, POLICY, PROMPTS
from tests.support.models import tiny_checkpoint

write, calls = pyarrow.parquet.write_table, []

def killed_in_the_middle(table, path, **options):
    calls.append(path)
    write(table, path, **options)
    if len(calls) == 2:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

pyarrow.parquet.write_table = killed_in_the_middle
record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, sys.argv[1], shard_prompts=2)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this platform")
def test_a_killed_recording_leaves_whole_shards(denoiser, whole, tmp_path):
    """SIGKILL when the second shard is half written: no handler runs, only the renaming protects."""
    folder = tmp_path / "trace"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, env=environment, capture_output=True, timeout=300
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert prompts_in(folder) == [[0, 1]]
    assert len(list(folder.glob(".*.tmp"))) == 1  # what the kill left: never taken for a shard
    traces = record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, folder, shard_prompts=2)
    assert traces.trace_hash() == whole.trace_hash()


def test_a_complete_recording_decodes_nothing_again(denoiser, whole, tmp_path):
    folder = tmp_path / "trace"
    record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, folder)
    counting = CountingDenoiser(denoiser)
    traces = record(tiny_checkpoint(denoiser=counting), PROMPTS, POLICY, CONFIG, folder)
    assert counting.calls == 0
    assert traces.trace_hash() == whole.trace_hash()


def test_the_size_of_shards_changes_nothing(denoiser, whole, tmp_path):
    for size in (1, 4, 100):
        checkpoint = tiny_checkpoint(denoiser=denoiser)
        traces = record(checkpoint, PROMPTS, POLICY, CONFIG, tmp_path / str(size), shard_prompts=size)
        assert traces.trace_hash() == whole.trace_hash()


# ---------------------------------------------------------------- folders that are not ours


@pytest.fixture
def folder(denoiser, tmp_path):
    record(tiny_checkpoint(denoiser=denoiser), PROMPTS[:4], POLICY, CONFIG, tmp_path / "trace", shard_prompts=2)
    return tmp_path / "trace"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": make_policy("static:1")}, "policy: there 'static:2', now 'static:1'"),
        (
            {"policy": make_policy("static:2", 0.5)},
            "policy: there 'static:2', now 'static:2@temperature=0.5'; temperature: there 0.0, now 0.5",
        ),
        ({"config": replace(CONFIG, block_length=4)}, "block_length: there 6, now 4"),
        ({"config": replace(CONFIG, generation_length=6)}, "generation_length: there 12, now 6"),
        ({"config": replace(CONFIG, cache="prefix")}, "cache: there 'dual', now 'prefix'"),
        ({"config": replace(CONFIG, top_j=2)}, "top_j: there 3, now 2"),
        ({"config": replace(CONFIG, seed=1)}, "seed: there 0, now 1"),
        ({"config": replace(CONFIG, end_token_ids=())}, r"end_token_ids: there \[2\], now \[\]"),
        ({"prompts": PROMPTS[:3]}, "prompts: there 4, now 3; prompt_set_hash: there"),
        ({"prompts": PROMPTS[1:5]}, "prompt_set_hash: there"),
        ({"checkpoint": {"revision": "other"}}, "model_revision: there 'seed-0', now 'other'"),
        ({"checkpoint": {"dtype": "bfloat16"}}, "dtype: there 'float32', now 'bfloat16'"),
    ],
)
def test_another_run_is_refused_and_nothing_touched(denoiser, folder, change, message):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    checkpoint = tiny_checkpoint(denoiser=denoiser, **change.get("checkpoint", {}))
    run = {"prompts": PROMPTS[:4], "policy": POLICY, "config": CONFIG, **change}
    with pytest.raises(TraceError, match=rf"holds a trace of another run \(.*{message}.*give another folder or delete"):
        record(checkpoint, run["prompts"], run["policy"], run["config"], folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_tool_version_goes_on(denoiser, folder):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["run"]["tool_version"] = "0.0.1"
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "shard-000002.parquet").unlink()
    traces = record(tiny_checkpoint(denoiser=denoiser), PROMPTS[:4], POLICY, CONFIG, folder)
    assert np.unique(traces.prompt_index).tolist() == [0, 1, 2, 3]


def test_a_corrupted_shard_is_named_and_only_its_prompts_are_decoded_again(denoiser, folder):
    expected = read_traces(folder).trace_hash()
    shard = folder / "shard-000000.parquet"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 3 : len(damaged) // 3 + 40] = bytes(40)
    shard.write_bytes(damaged)
    counting = CountingDenoiser(denoiser)
    checkpoint = tiny_checkpoint(denoiser=counting)
    with pytest.raises(TraceError, match=r"shard-000000.parquet cannot be read.*delete shard-000000.parquet and rerun"):
        record(checkpoint, PROMPTS[:4], POLICY, CONFIG, folder)
    assert counting.calls == 0
    shard.unlink()
    assert record(checkpoint, PROMPTS[:4], POLICY, CONFIG, folder).trace_hash() == expected
    assert counting.calls == 6 * 2


def test_a_folder_with_other_files_is_refused(denoiser, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(TraceError, match="exists and is not a trace folder"):
        record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_place_of_the_folder_is_refused(denoiser, tmp_path):
    (tmp_path / "trace").write_text("mine", encoding="utf-8")
    with pytest.raises(TraceError, match="is a file, expected a folder"):
        record(tiny_checkpoint(denoiser=denoiser), PROMPTS, POLICY, CONFIG, tmp_path / "trace")


def test_a_broken_manifest_is_refused(denoiser, folder):
    (folder / "manifest.json").write_text('{"version": 1, "run"', encoding="utf-8")
    with pytest.raises(TraceError, match=r"manifest.json is not valid JSON"):
        record(tiny_checkpoint(denoiser=denoiser), PROMPTS[:4], POLICY, CONFIG, folder)


def test_recording_asks_for_plain_decoding(denoiser, tmp_path):
    """No drafts: every call after a refresh has the rows of one block."""
    seen = []

    class Watching(CountingDenoiser):
        def __call__(self, tokens, *args, **kwargs):
            seen.append(tuple(tokens.shape))
            return super().__call__(tokens, *args, **kwargs)

    record(tiny_checkpoint(denoiser=Watching(denoiser)), PROMPTS[:1], POLICY, CONFIG, tmp_path / "trace")
    assert seen == [(1, 15), (1, 6), (1, 6)] * 2


def test_an_interruption_right_after_a_shard_was_written(denoiser, tmp_path, monkeypatch):
    """Ctrl-C between the rename of a shard and the builder's forgetting is an interruption and nothing else."""
    forget = TraceBuilder.drop_prompts

    def interrupted(self, prompt_indices):
        forget(self, prompt_indices)
        monkeypatch.setattr(TraceBuilder, "drop_prompts", forget)
        raise KeyboardInterrupt

    monkeypatch.setattr(TraceBuilder, "drop_prompts", interrupted)
    checkpoint = tiny_checkpoint(denoiser=denoiser)
    with pytest.raises(KeyboardInterrupt):
        record(checkpoint, PROMPTS[:4], POLICY, CONFIG, tmp_path / "trace", shard_prompts=2)
    assert len(list((tmp_path / "trace").glob("shard-*"))) == 1
    assert record(checkpoint, PROMPTS[:4], POLICY, CONFIG, tmp_path / "trace", shard_prompts=2).n_steps > 0
