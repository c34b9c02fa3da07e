"""Workers of one launch: what they tell each other. Here they are threads that share a store."""

import threading
import time

import pytest
import torch.distributed as dist

from calibrate.recording import workers as module
from calibrate.recording.workers import PeerFailedError, WorkerError, Workers, join_workers


@pytest.fixture
def pair(monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.02)
    monkeypatch.setattr(module, "POLL", 0.01)
    store = dist.HashStore()
    both = [Workers(store, number, 2, number, silence=1.0) for number in range(2)]
    yield both
    for worker in both:
        worker.leave()


def test_a_plan_reaches_the_others_and_totals_the_leader(pair):
    meetings = [worker.recording() for worker in pair]
    got = []
    waiting = threading.Thread(target=lambda: got.append(meetings[1].plan()))
    waiting.start()
    time.sleep(0.05)
    assert not got
    meetings[0].announce([4, 5, 9])
    waiting.join(10)
    assert got == [[4, 5, 9]]
    meetings[1].count(7)
    meetings[0].count(5)
    assert meetings[0].totals() == (2, 12)
    meetings[1].finish(["b"])
    meetings[0].finish(["a"])
    assert sorted(meetings[0].wait_for_all(lambda: None)) == ["a", "b"]


def test_nobody_hears_the_dead(monkeypatch):
    """A launcher starts its processes again and keeps its store: plans, failures and counts of the first are there."""
    monkeypatch.setattr(module, "BEAT", 0.02)
    monkeypatch.setattr(module, "POLL", 0.01)
    store = dist.HashStore()
    dead = [Workers(store, number, 2, number, silence=5) for number in range(2)]
    first = [worker.recording() for worker in dead]
    first[0].announce([0, 1, 2, 3])
    first[1].count(9)
    first[1].finish(["old"])
    assert dead[1].says_first("stopped")
    for worker in dead:
        worker.fail("killed")
        worker.leave()
    time.sleep(0.1)
    late, got = Workers(store, 1, 2, 1, silence=5), []  # comes before the new leader: the old one's words are there

    def join():
        got.append(late.recording().plan())

    joining = threading.Thread(target=join)
    joining.start()
    time.sleep(0.2)
    assert not got
    leader = Workers(store, 0, 2, 0, silence=5)
    meeting = leader.recording()
    leader.check(1)  # the failure of the dead is not its failure
    meeting.announce([3])
    joining.join(10)
    assert got == [[3]] and meeting.totals() == (0, 0)
    assert leader.says_first("stopped")
    for worker in (leader, late):
        worker.leave()


def test_a_leader_that_never_comes():
    alone = Workers(dist.HashStore(), 1, 2, 1, silence=0.3)
    with pytest.raises(WorkerError, match="worker 0 of 2 did not come within 0 s"):
        alone.recording()
    alone.leave()


def test_recordings_do_not_mix(pair):
    first, second = pair[0].recording(), pair[0].recording()
    first.count(3)
    assert first.totals() == (1, 3) and second.totals() == (0, 0)


def test_a_failed_worker_is_named(pair):
    meetings = [worker.recording() for worker in pair]
    meetings[0].finish([])
    pair[1].fail("the model returned NaN")
    with pytest.raises(WorkerError, match="worker 1 of 2 gave up: the model returned NaN"):
        meetings[0].wait_for_all(lambda: None)


def test_a_silent_worker_is_lost_and_a_slow_one_is_not(pair):
    meetings = [worker.recording() for worker in pair]
    meetings[0].finish([])
    told = []
    timer = threading.Timer(1.5, lambda: meetings[1].finish(["late"]))
    timer.start()  # longer than the silence allowed, but it beats meanwhile
    assert meetings[0].wait_for_all(lambda: told.append(1)) == ["late"] and told
    again = [worker.recording() for worker in pair]
    again[0].finish([])
    pair[1].leave()
    with pytest.raises(WorkerError, match=r"worker 1 of 2 has given no sign of life for 1 s and is lost"):
        again[0].wait_for_all(lambda: None)


def test_a_leader_that_failed_before_its_plan_ends_the_others(pair):
    meeting = pair[1].recording()
    pair[0].fail("no such folder")
    with pytest.raises(PeerFailedError, match="worker 0 of 2 gave up: no such folder"):
        meeting.plan()


def test_what_concerns_all_is_said_once(pair):
    assert pair[1].says_first("the prompt file does not exist")
    assert not pair[0].says_first("the prompt file does not exist")
    assert pair[0].says_first("another thing")


def test_every_worker_takes_its_own_device(pair, monkeypatch):
    current = []
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(module.torch.cuda, "set_device", current.append)
    assert [worker.device("cuda") for worker in pair] == ["cuda:0", "cuda:1"] and current == [0, 1]
    assert pair[1].device("cuda:0") == "cuda:0" and pair[1].device("cpu") == "cpu"
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(WorkerError, match=r"worker 1 finds no device of its own: .* which shows 1 CUDA devices"):
        pair[1].device("cuda")
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 0)
    with pytest.raises(WorkerError, match="no CUDA device is there; use --device cpu"):
        pair[0].device("cuda")


def test_a_process_that_was_started_alone_has_no_workers(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert join_workers() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert join_workers() is None


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setattr(module, "_joined", None)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(
        WorkerError, match=r"WORLD_SIZE is 2, but the other workers cannot be met .*MASTER_ADDR.*torchrun"
    ):
        join_workers()
