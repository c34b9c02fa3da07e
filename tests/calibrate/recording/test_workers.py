"""Workers of one launch: what they tell each other. Here they are threads that share a store."""

import threading
import time

import pytest
import torch.distributed as dist

from calibrate.recording import workers as module
from calibrate.recording.workers import WorkerError, Workers, join_workers


@pytest.fixture
def pair():
    store = dist.HashStore()
    return [Workers(store, number, 2, number) for number in range(2)]


def met(store, number, count, found):
    """Call ``meet`` in a thread, as it waits for the others."""
    thread = threading.Thread(target=lambda: found.__setitem__(number, module.meet(store, number, count)))
    thread.start()
    return thread


def test_nobody_hears_the_dead(monkeypatch):
    """A launcher starts its processes again and keeps its store: plans, failures and counts of the first are there."""
    monkeypatch.setattr(module, "POLL", 0.01)
    store, dead, found = dist.HashStore(), {}, {}
    for thread in [met(store, number, 3, dead) for number in (1, 0, 2)]:
        thread.join(10)
    first = [Workers(dead[number], number, 3, number) for number in range(3)]
    first[0].recording().set("todo", "[0, 1, 2, 3]")
    first[1].recording().add("tokens", 9)
    assert first[1].says_first("stopped") and not first[2].says_first("stopped")
    first[1].fail("killed")
    late = [met(store, number, 3, found) for number in (2, 1)]  # they come before the new leader
    time.sleep(0.1)
    assert not found
    for thread in [*late, met(store, 0, 3, found)]:
        thread.join(10)
    leader, other = Workers(found[0], 0, 3, 0), Workers(found[1], 1, 3, 1)
    store, others = leader.recording(), other.recording()
    assert leader.failure(1) is None and leader.says_first("stopped")
    assert not others.check(["todo"]) and store.add("tokens", 0) == 0
    store.set("todo", "[3]")
    assert others.get("todo") == b"[3]"


@pytest.mark.parametrize("number", [0, 1])
def test_a_worker_that_never_comes(monkeypatch, number):
    monkeypatch.setattr(module, "JOIN_SECONDS", 0.3)
    with pytest.raises(WorkerError, match=f"worker {number} of 2 waited 0 s for the others; start all of them"):
        module.meet(dist.HashStore(), number, 2)


def test_recordings_do_not_mix(pair):
    first, second = pair[0].recording(), pair[0].recording()
    first.add("tokens", 3)
    assert (first.add("tokens", 0), second.add("tokens", 0)) == (3, 0)


def test_a_failed_worker_is_named(pair):
    pair[1].fail("the model returned NaN")
    assert pair[0].failure(1) == "worker 1 of 2 gave up: the model returned NaN" and pair[0].failure(0) is None


def test_a_store_that_went_away_is_a_message():
    message = r"the store of the launch cannot be reached any more \(gone\): the launcher"
    with pytest.raises(WorkerError, match=message), module.reaching():
        raise dist.DistError("gone\nframe 1")


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
