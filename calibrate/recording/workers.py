"""Several processes that record one prompt set: who they are, and the few words they exchange.

Started by ``torchrun`` (or whatever sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and
``MASTER_PORT``), the processes meet in the launcher's key/value store. Nothing else connects them: no process group, no
collective, no tensor. Each decodes prompts of its own, and a word about each prompt is all the store carries, so a slow
worker delays nobody and a dead one hangs nobody.

What torch calls the rank of a process is a worker's *number* here; ranks are those of positions and tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

#: Seconds: between two signs of life; without one, after which a worker is lost; between two looks into the store, and
#: two of the leader for who has come.
BEAT, SILENCE, POLL, GREET = 5.0, 300.0, 0.2, 0.5
_JOIN_SECONDS = 300


class WorkerError(RuntimeError):
    """A recording by several workers that cannot be finished, as one of them failed or was lost."""


class PeerFailedError(WorkerError):
    """Another worker failed and has said why; this one only leaves."""


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    """Within the context a store that went away is a message, not torch's stack of C++ frames."""
    try:
        yield
    except WorkerError:
        raise
    except RuntimeError as error:  # dist.DistError and its kin
        raise WorkerError(
            f"the store of the launch cannot be reached any more ({str(error).splitlines()[0]}): the launcher, or "
            "worker 0 where that holds it, is gone. What is finished is kept; run the same command again"
        ) from error


class Workers:
    """The workers of one launch, as one of them sees them.

    A launcher that restarts its processes keeps its store, with every word of those that died in it. So each process
    says hello under its number with a name that nobody had before, the leader greets that name with its own, and under
    the leader's name they speak: nobody hears the dead.

    Attributes:
        number: of this worker, from 0; worker 0 leads: it owns manifest, progress and messages.
        count: how many there are.
        local_number: of this worker among those on its machine.
    """

    def __init__(
        self, store: dist.Store, number: int, count: int, local_number: int, *, silence: float = SILENCE
    ) -> None:
        self._store, self.number, self.count, self.local_number = store, number, count, local_number
        self._silence = silence
        self._name = uuid.uuid4().hex
        self._leader = self._name if number == 0 else ""
        self._seen: dict[int, tuple[int, float]] = {}
        self._recordings = 0
        self._stop = threading.Event()
        self._store.set(f"hello/{number}", self._name)
        self._store.add(f"beat/{self._name}", 1)
        threading.Thread(target=self._live, daemon=True).start()

    @property
    def leads(self) -> bool:
        return self.number == 0

    def device(self, device: str) -> str:
        """``cuda`` becomes this worker's own device, ``cuda:LOCAL_RANK``, and current; all else is taken as it is.

        Raises:
            WorkerError: the machine has no CUDA device, or fewer than workers.
        """
        if device != "cuda":
            return device
        there = torch.cuda.device_count()
        if there == 0:
            raise WorkerError(  # the same words on all workers: they are printed once
                "no CUDA device is there; use --device cpu, or install torch with CUDA where the machine has a GPU"
            )
        if self.local_number >= there:
            raise WorkerError(
                f"worker {self.number} finds no device of its own: it is worker {self.local_number} (from 0) of its "
                f"machine, which shows {there} CUDA devices; start as many workers as there are devices, or name the "
                "device where every worker sees only its own (--device cuda:0)"
            )
        torch.cuda.set_device(self.local_number)  # for what allocates on the current device: graphs, compiled kernels
        return f"cuda:{self.local_number}"

    def says_first(self, message: str) -> bool:
        """Whether no worker has said ``message`` before: what concerns all of them is printed once."""
        key = hashlib.sha256(message.encode()).hexdigest()[:16]
        try:
            leader = self._leader or (self._word("hello/0") if self._store.check(["hello/0"]) else "")
            return self._store.add(f"{leader}/said/{key}", 1) == 1
        except RuntimeError:
            return True  # the launcher is gone; better twice than never

    def fail(self, reason: str) -> None:
        """Tell the others that this worker gives up."""
        with contextlib.suppress(RuntimeError):  # the launcher is gone, and with it whoever would read this
            self._store.set(f"failed/{self._name}", reason or "no reason was given")

    def leave(self) -> None:
        """Give no more signs of life; nothing waits for this worker afterwards."""
        self._stop.set()

    def recording(self) -> Recording:
        """The exchange about the next recording. All workers ask for the same recordings in the same order.

        Raises:
            WorkerError: the leader did not come.
        """
        if not self._leader:
            self._meet_leader()
        self._recordings += 1
        return Recording(self, dist.PrefixStore(f"{self._leader}/recording-{self._recordings}", self._store))

    def _meet_leader(self) -> None:
        deadline = time.monotonic() + self._silence
        with _reaching():
            while not self._store.check([f"greeting/{self._name}"]):
                if time.monotonic() > deadline:
                    raise WorkerError(f"worker 0 of {self.count} did not come within {self._silence:.0f} s")
                time.sleep(POLL)
            self._leader = self._word(f"greeting/{self._name}")
            self._store.set(f"{self._leader}/joined/{self.number}", self._name)

    def check(self, number: int) -> None:
        """Look whether worker ``number`` is there.

        Raises:
            PeerFailedError: it has failed, and has said why.
            WorkerError: it gave no sign of life for too long.
        """
        with _reaching():
            joined = f"{self._leader}/joined/{number}"
            name = self._leader if number == 0 else self._word(joined) if self._store.check([joined]) else ""
            if name and self._store.check([f"failed/{name}"]):
                raise PeerFailedError(f"worker {number} of {self.count} gave up: {self._word(f'failed/{name}')}")
            now, beats = time.monotonic(), self._store.add(f"beat/{name}", 0) if name else 0
        before = self._seen.get(number)
        if before is None or before[0] != beats:
            self._seen[number] = (beats, now)
        elif now - before[1] > self._silence:
            raise WorkerError(
                f"worker {number} of {self.count} has given no sign of life for {self._silence:.0f} s and is lost"
            )

    def _word(self, key: str) -> str:
        return self._store.get(key).decode(errors="replace")

    def _live(self) -> None:
        """Give signs of life; as the leader, greet whoever says hello until all have answered."""
        missing = set(range(1, self.count)) if self.leads else set()
        next_beat = time.monotonic() + BEAT
        while not self._stop.wait(min(GREET, BEAT) if missing else BEAT):
            try:
                for number in sorted(missing):
                    if self._store.check([f"{self._name}/joined/{number}"]):
                        missing.remove(number)
                    elif self._store.check([f"hello/{number}"]):
                        self._store.set(f"greeting/{self._word(f'hello/{number}')}", self._name)
                if time.monotonic() >= next_beat or not missing:
                    self._store.add(f"beat/{self._name}", 1)
                    next_beat = time.monotonic() + BEAT
            except RuntimeError:
                return  # the store went away with the launcher


class Recording:
    """What the workers of one recording tell each other: the plan, prompts as they are done, who is finished."""

    def __init__(self, workers: Workers, store: dist.Store) -> None:
        self.workers, self._store = workers, store

    def announce(self, todo: list[int]) -> None:
        """Leader: the prompts that are still to be done; the others wait for this."""
        with _reaching():
            self._store.set("plan", json.dumps(todo))

    def plan(self) -> list[int]:
        """The prompt_indices still to be done, once the leader has announced them.

        Raises:
            PeerFailedError: the leader failed first.
            WorkerError: the leader is lost.
        """
        with _reaching():
            while not self._store.check(["plan"]):
                self.workers.check(0)
                time.sleep(POLL)
            todo: list[int] = json.loads(self._store.get("plan"))
        return todo

    def count(self, tokens: int) -> None:
        """One more prompt is done."""
        with _reaching():
            self._store.add("tokens", tokens)
            self._store.add("prompts", 1)

    def totals(self) -> tuple[int, int]:
        """Prompts and tokens that all workers have done since the start."""
        with _reaching():
            return self._store.add("prompts", 0), self._store.add("tokens", 0)

    def finish(self, shards: list[str]) -> None:
        """This worker's part is done and lies in ``shards``."""
        with _reaching():
            self._store.set(f"finished/{self.workers.number}", json.dumps(shards))

    def wait_for_all(self, meanwhile: Callable[[], Any]) -> list[str]:
        """Leader: wait until every worker has finished, failed or is lost; returns the names of their shards.

        Raises:
            WorkerError: a worker failed or is lost. The others have finished their parts by then.
        """
        missing = set(range(self.workers.count))
        shards: list[str] = []
        failure: WorkerError | None = None
        while missing:
            for number in sorted(missing):
                with _reaching():
                    if self._store.check([f"finished/{number}"]):
                        missing.remove(number)
                        shards += json.loads(self._store.get(f"finished/{number}"))
                        continue
                try:
                    self.workers.check(number)
                except WorkerError as error:
                    missing.remove(number)
                    failure = failure or error
            meanwhile()
            if missing:
                time.sleep(POLL)
        if failure is not None:
            raise failure
        return shards


_joined: Workers | None = None


def current_workers() -> Workers | None:
    """What :func:`join_workers` returned last; None before."""
    return _joined


def join_workers() -> Workers | None:
    """Meet the other workers of this launch; None where this process was started alone.

    Raises:
        WorkerError: the environment of a launcher that is not complete, or a store that cannot be reached.
    """
    global _joined
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        return None
    if _joined is None:
        try:
            limit = timedelta(seconds=_JOIN_SECONDS)
            store, number, count = next(iter(dist.rendezvous("env://", timeout=limit)))
        except (ValueError, RuntimeError) as error:
            raise WorkerError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but the other workers cannot be met ({error}); start with "
                "`torchrun --nproc-per-node N ...`, or unset WORLD_SIZE"
            ) from error
        _joined = Workers(store, number, count, int(os.environ.get("LOCAL_RANK", number)))
    return _joined
