"""Several processes that record one prompt set: who they are, and the few words they exchange.

Started by ``torchrun`` (or whatever sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and
``MASTER_PORT``), the processes meet in the launcher's key/value store. There is no process group, no collective and no
tensor, so a slow worker delays nobody. When one of them dies, torchrun ends the others and, where it is asked to,
starts all again. What is recorded lies in shards on disk.

What torch calls the rank of a process is a worker's *number* here; ranks are those of positions and tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

#: Seconds that a worker waits for the others to come, and between two looks into the store.
JOIN_SECONDS, POLL = 300.0, 0.2


class WorkerError(RuntimeError):
    """A recording by several workers that cannot be finished, as one of them failed."""


class PeerFailedError(WorkerError):
    """Another worker failed and has said why; this one only leaves."""


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Within the context a store that went away is a message, not torch's stack of C++ frames."""
    try:
        yield
    except dist.DistError as error:
        raise WorkerError(
            f"the store of the launch cannot be reached any more ({str(error).splitlines()[0]}): the launcher, or "
            "worker 0 where that holds it, is gone. What is finished is kept; run the same command again"
        ) from error


@dataclass(eq=False)
class Workers:
    """The workers of one launch, as one of them sees them.

    Attributes:
        store: in which they speak (:func:`meet`).
        number: of this worker, from 0; worker 0 leads: it owns manifest, progress and messages.
        count: how many there are.
        local_number: of this worker among those on its machine.
    """

    store: dist.Store
    number: int
    count: int
    local_number: int
    _recordings: int = field(default=0, init=False)

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
        devices = torch.cuda.device_count()
        if devices == 0:
            raise WorkerError(  # the same words on all workers: they are printed once
                "no CUDA device is there; use --device cpu, or install torch with CUDA where the machine has a GPU"
            )
        if self.local_number >= devices:
            raise WorkerError(
                f"worker {self.number} finds no device of its own: it is worker {self.local_number} (from 0) of its "
                f"machine, which shows {devices} CUDA devices; start as many workers as there are devices, or name the "
                "device where every worker sees only its own (--device cuda:0)"
            )
        torch.cuda.set_device(self.local_number)  # for what allocates on the current device: graphs, compiled kernels
        return f"cuda:{self.local_number}"

    def says_first(self, message: str) -> bool:
        """Whether no worker has said ``message`` before: what concerns all of them is printed once."""
        try:
            return self.store.add(f"message/{hashlib.sha256(message.encode()).hexdigest()[:16]}", 1) == 1
        except RuntimeError:
            return True  # the launcher is gone; better twice than never

    def fail(self, reason: str) -> None:
        """Tell the others that this worker gives up."""
        with contextlib.suppress(RuntimeError):  # the launcher is gone, and with it whoever would read this
            self.store.set(f"failed/{self.number}", reason or "no reason was given")

    def failure(self, number: int) -> str | None:
        """Why worker ``number`` gave up, None where it did not."""
        key = f"failed/{number}"
        if not self.store.check([key]):
            return None
        return f"worker {number} of {self.count} gave up: {self.store.get(key).decode(errors='replace')}"

    def recording(self) -> dist.Store:
        """The store of the next recording. All workers ask for the same recordings in the same order."""
        self._recordings += 1
        return dist.PrefixStore(f"recording-{self._recordings}", self.store)


def meet(store: dist.Store, number: int, count: int) -> dist.Store:
    """The store in which the workers of this launch speak, once all are there.

    A launcher that starts its processes again keeps its store, with every word of those that died in it. So each
    process says hello under its number with a name that nobody had before, the leader greets that name with its own,
    and under the leader's name they speak: nobody hears the dead.

    Raises:
        WorkerError: not all came in time.
    """
    name, deadline = uuid.uuid4().hex, time.monotonic() + JOIN_SECONDS
    store.set(f"hello/{number}", name)
    session = dist.PrefixStore(name, store) if number == 0 else None
    while time.monotonic() < deadline:
        if session is not None:
            for key in (f"hello/{other}" for other in range(1, count)):
                if store.check([key]):
                    store.set(f"greeting/{store.get(key).decode()}", name)
            if session.add("joined", 0) == count - 1:
                return session
        elif store.check([f"greeting/{name}"]):
            session = dist.PrefixStore(store.get(f"greeting/{name}").decode(), store)
            session.add("joined", 1)
            return session
        time.sleep(POLL)
    raise WorkerError(f"worker {number} of {count} waited {JOIN_SECONDS:.0f} s for the others; start all of them")


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
            limit = timedelta(seconds=JOIN_SECONDS)
            store, number, count = next(iter(dist.rendezvous("env://", timeout=limit)))
            session = meet(store, number, count)
        except (ValueError, RuntimeError) as error:
            raise WorkerError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but the other workers cannot be met ({error}); start with "
                "`torchrun --nproc-per-node N ...`, or unset WORLD_SIZE"
            ) from error
        _joined = Workers(session, number, count, int(os.environ.get("LOCAL_RANK", number)))
    return _joined
