"""Several workers, one folder: here as threads with a store between them; real processes in tests/studies."""

import errno
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch.distributed as dist

from calibrate.recording import group as group_recorder
from calibrate.recording import workers as module
from calibrate.recording.group import record_in_group
from calibrate.recording.recorder import record
from calibrate.recording.workers import PeerFailedError, WorkerError, Workers
from calibrate.traces import folder as trace_folder
from calibrate.traces.folder import LOCK_NAME, FolderLock
from calibrate.traces.table import TraceError, read_shard, read_traces, shard_paths
from tests.calibrate.recording.test_recorder import Faulty
from tests.support.models import END_ID, tiny_checkpoint, tiny_denoiser
from verify.decoding import DecodeConfig
from verify.policies.specification import make_policy

PROMPTS = [[3 + (5 * n + k * k) % 44 for k in range(1 + (4 * n) % 14)] for n in range(11)]
CONFIG = DecodeConfig(block_length=6, generation_length=12, top_j=3, end_token_ids=(END_ID,))
POLICY = make_policy("threshold:0.2")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(group_recorder, "POLL", 0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, tmp_path_factory.mktemp("group") / "whole")


def together(count, folder, denoisers=None, prompts=None, **options):
    """Record with ``count`` workers; returns what each returned or raised."""
    store = dist.HashStore()
    workers = [Workers(store, number, count, number) for number in range(count)]
    models = [(denoisers or {}).get(number) or tiny_denoiser() for number in range(count)]
    got = [None] * count

    def one(number):
        chosen = (prompts or {}).get(number, PROMPTS)
        try:
            checkpoint = tiny_checkpoint(denoiser=models[number])
            config = options.get("config", CONFIG)
            told = {key: value for key, value in options.items() if key != "config"}
            got[number] = record_in_group(workers[number], checkpoint, chosen, POLICY, config, folder, **told)
        except BaseException as error:
            got[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return got


def prompts_by_worker(folder):
    found = {}
    for path in shard_paths(folder):
        prompt_indices = np.unique(read_shard(path).column("prompt_index").to_numpy()).tolist()
        found.setdefault(path.name[: len("shard-w000")], []).extend(prompt_indices)
    return {name: sorted(prompt_indices) for name, prompt_indices in found.items()}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_workers_record_what_one_process_records(whole, tmp_path, batch_size):
    told, ends = [], []
    got = together(
        3, tmp_path / "trace", batch_size=batch_size, shard_prompts=2,
        on_prompt=lambda *now: told.append(now), on_end=ends.append,
    )  # fmt: skip
    assert got[0].trace_hash() == whole.trace_hash() and got[1:] == [None, None]
    shares = {f"shard-w{number:03d}": list(range(11))[number::3] for number in range(3)}
    assert prompts_by_worker(tmp_path / "trace") == shares
    done = [now for now, _ in told]
    assert done[0] >= 0 and done[-1] == 11 and done == sorted(done)  # the leader tells of all
    assert len(ends) == 1 and ends[0].prompts == 11 and ends[0].tokens > 0
    manifest = json.loads((tmp_path / "trace" / "manifest.json").read_text())
    assert manifest["run"]["prompts"] == 11


@pytest.mark.parametrize("count", [2, 4])
def test_a_lost_part_is_redone_by_any_number_of_workers(whole, tmp_path, count):
    folder = tmp_path / "trace"
    together(3, folder, shard_prompts=2)
    lost = [path for path in shard_paths(folder) if path.name.startswith("shard-w001")]
    for path in lost:
        path.unlink()
    kept = {path.name: path.read_bytes() for path in shard_paths(folder)}
    ends = []
    assert together(count, folder, on_end=ends.append)[0].trace_hash() == whole.trace_hash()
    assert ends[0].prompts == 4
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    # One process finds everything done.
    assert record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, folder).trace_hash() == whole.trace_hash()


def test_a_worker_that_fails_is_named_and_the_others_finish(whole, tmp_path):
    folder = tmp_path / "trace"
    faulty = Faulty(tiny_denoiser(), 6, FloatingPointError("the model returned NaN"))
    got = together(3, folder, {1: faulty}, shard_prompts=2)
    assert isinstance(got[1], FloatingPointError) and got[2] is None
    there = len(np.unique(read_traces(folder, partial=True).prompt_index))
    assert 8 - 1 <= there < 11
    assert isinstance(got[0], WorkerError)
    assert f"worker 1 of 3 gave up: the model returned NaN; {there} of 11 prompts are recorded in" in str(got[0])
    assert together(2, folder)[0].trace_hash() == whole.trace_hash()


def test_a_folder_of_another_run_is_refused_by_the_leader_alone(tmp_path):
    folder = tmp_path / "trace"
    together(2, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    got = together(2, folder, config=replace(CONFIG, seed=3))
    assert isinstance(got[0], TraceError) and "seed: there 0, now 3" in str(got[0])
    assert isinstance(got[1], PeerFailedError)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_worker_with_other_prompts_is_found_out(tmp_path):
    got = together(2, tmp_path / "trace", prompts={1: PROMPTS[:-1]})
    assert isinstance(got[1], TraceError) and "prompts: there 11, now 10" in str(got[1])
    assert isinstance(got[0], WorkerError) and "worker 1 of 2 gave up" in str(got[0])


def test_a_worker_that_sees_another_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(group_recorder, "_FILE_SECONDS", 0.1)
    with pytest.raises(TraceError, match="worker 1 does not see it after 0 s; all workers need one file system"):
        group_recorder._wait_for(lambda: False, "worker 1 does not see it", 0.1)


# ---------------------------------------------------------------- one recording at a time


def test_two_recordings_of_one_folder_are_kept_apart(whole, tmp_path):
    folder = tmp_path / "trace"
    refused = []

    def start_another(done, total):
        if done == 1:
            with pytest.raises(TraceError, match=r"is being recorded by another process \(process \d+ on .+\); wait"):
                record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, folder)
            refused.extend(error for error in together(2, folder) if isinstance(error, TraceError | PeerFailedError))

    traces = record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, folder, on_prompt=start_another)
    assert len(refused) == 2 and traces.trace_hash() == whole.trace_hash()
    assert record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, folder).trace_hash() == whole.trace_hash()


def test_a_straggling_worker_keeps_the_folder_locked(tmp_path):
    """The leader is gone, a worker of it still writes: nobody else may begin."""
    folder = tmp_path / "trace"
    folder.mkdir()
    straggler = FolderLock(folder)
    straggler.acquire(share=True)
    with pytest.raises(TraceError, match="is being recorded by another process"):
        record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, folder)
    straggler.release()
    assert (folder / LOCK_NAME).exists()  # the file stays, the lock does not
    record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, folder)


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def unsupported(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(trace_folder.fcntl, "flock", unsupported)
    with pytest.warns(UserWarning, match="cannot be locked .No locks available.; start one recording only"):
        record(tiny_checkpoint(), PROMPTS[:2], POLICY, CONFIG, tmp_path / "trace")


def test_a_complete_recording_needs_no_lock(whole, tmp_path):
    folder = tmp_path / "trace"
    record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, folder)
    lock = FolderLock(folder)
    lock.acquire()
    assert record(tiny_checkpoint(), PROMPTS, POLICY, CONFIG, folder).trace_hash() == whole.trace_hash()
    lock.release()
