"""Recording by several workers: one folder, one manifest, a share of the prompts and shards of its own for each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from calibrate.models.checkpoint import Checkpoint
from calibrate.recording.recorder import RecordingSpeed, Share, run_facts
from calibrate.recording.workers import POLL, PeerFailedError, WorkerError, Workers, reaching
from calibrate.traces.folder import FolderLock, check_folder, claim_folder, recorded_prompts
from calibrate.traces.table import TraceError, Traces, read_traces
from verify.decoding import DecodeConfig, DecodeResult, StepFact
from verify.policies.contract import Policy

#: Seconds that a network file system may take to show one machine what another wrote, and between two looks at the
#: others while there is work of one's own.
_FILE_SECONDS, _LOOK_SECONDS = 90.0, 1.0


def record_in_group(
    workers: Workers,
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    config: DecodeConfig,
    folder: str | Path,
    *,
    batch_size: int = 1,
    shard_prompts: int = 4,
    on_prompt: Callable[[int, int], None] | None = None,
    on_end: Callable[[RecordingSpeed], None] | None = None,
    **facts_of_prompts: Any,
) -> Traces | None:
    """Record ``prompts`` together with the other ``workers``, all of which make this call with the same arguments.

    The leader claims the folder, looks what is there, and announces the rest; worker ``w`` of ``n`` takes every n-th
    prompt of it from the w-th on. A rerun does the same with what is left, so the number of workers may change and the
    part of a worker that was lost is redone. The folder must be on a file system that all workers see.

    Args:
        workers: from :func:`calibrate.recording.workers.join_workers`.
        checkpoint, prompts, policy, config, folder, batch_size, shard_prompts: as in
            :func:`calibrate.recording.recorder.record`; the batch is that of one worker.
        on_prompt, on_end: as there, called on the leader and about all workers.
        facts_of_prompts: ``chat`` and ``prompt_source``, as there.

    Returns:
        The whole trace on the leader, None on the others.

    Raises:
        TraceError: as in ``record``; or a worker that does not see the folder, or sees other prompts or weights.
        WorkerError: on the leader, a worker that failed, once the others are done; what they finished is kept. Or the
            store of the launch is gone.
        PeerFailedError: on the others, the leader failed (and said why) before it announced the prompts.
    """
    folder = Path(folder)
    lock: FolderLock | None = None
    try:
        store = workers.recording()
        facts = run_facts(checkpoint, policy, config, prompts, **facts_of_prompts)
        if workers.leads:
            lock = claim_folder(folder, facts, share=True)
            done = recorded_prompts(folder)
            todo = [prompt_index for prompt_index in range(len(prompts)) if prompt_index not in done]
            with reaching():
                store.set("todo", json.dumps(todo))
        else:
            todo = _announced(workers, store)
            unseen = f"worker {workers.number} does not see the trace in {folder}"
            _wait_for(lambda: check_folder(folder, facts), unseen)
            lock = FolderLock(folder)
            lock.acquire(share=True)
        watch = _Watch(store, len(prompts) - len(todo), len(prompts), on_prompt if workers.leads else None)
        share = Share(
            checkpoint,
            prompts,
            policy,
            config,
            folder,
            batch_size=batch_size,
            shard_prompts=shard_prompts,
            prefix=f"shard-w{workers.number:03d}-",
            observer=watch,
        )
        watch.look()
        start = time.perf_counter()
        share.record(todo[workers.number :: workers.count], watch.count)
        with reaching():
            store.set(f"finished/{workers.number}", json.dumps(share.shards))
        if not workers.leads:
            return None
        shards = _shards_of_all(workers, store, watch, folder)
        if on_end is not None:
            on_end(RecordingSpeed(*watch.totals(), time.perf_counter() - start))
        _wait_for(lambda: all((folder / name).exists() for name in shards), f"not all shards can be seen in {folder}")
        return read_traces(folder)
    except BaseException as error:
        workers.fail(str(error) or type(error).__name__)
        raise
    finally:
        if lock is not None:
            lock.release()


def _announced(workers: Workers, store: dist.Store) -> list[int]:
    """The prompts that are still to be done, once the leader has announced them."""
    with reaching():
        while not store.check(["todo"]):
            if (reason := workers.failure(0)) is not None:
                raise PeerFailedError(reason)
            time.sleep(POLL)
        todo: list[int] = json.loads(store.get("todo"))
    return todo


def _shards_of_all(workers: Workers, store: dist.Store, watch: _Watch, folder: Path) -> list[str]:
    """Wait until every worker has finished or failed; the names of their shards."""
    keys = [f"finished/{number}" for number in range(workers.count)]
    with reaching():
        while True:
            missing = [number for number, key in enumerate(keys) if not store.check([key])]
            failures = [reason for number in missing if (reason := workers.failure(number)) is not None]
            watch.look()
            if len(failures) == len(missing):
                break
            time.sleep(POLL)
        if failures:
            raise WorkerError(
                f"{failures[0]}; {len(recorded_prompts(folder))} of {watch.total} prompts are recorded in {folder}, "
                "run the same command again for the rest, with any number of workers"
            )
        return [name for key in keys for name in json.loads(store.get(key))]


def _wait_for(there: Callable[[], bool], failure: str, seconds: float = _FILE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            raise TraceError(f"{failure} after {seconds:.0f} s; all workers need one file system, and the same --out")
        time.sleep(POLL)


class _Watch:
    """Counts this worker's prompts for all; on the leader it also tells how far all are, at most once a second."""

    def __init__(
        self, store: dist.Store, before: int, total: int, on_prompt: Callable[[int, int], None] | None
    ) -> None:
        self._store, self._before, self.total, self._on_prompt = store, before, total, on_prompt
        self._shown, self._next = -1, 0.0

    def on_step(self, fact: StepFact) -> None:
        """The leader's own steps are when it looks at the others: its prompts may take minutes."""
        if self._on_prompt is not None and time.monotonic() >= self._next:
            self.look()

    def count(self, result: DecodeResult) -> None:
        """One more prompt is done."""
        with reaching():
            self._store.add("tokens", result.end)
            self._store.add("prompts", 1)
        self.look()

    def totals(self) -> tuple[int, int]:
        """Prompts and tokens that all workers have done since the start."""
        with reaching():
            return self._store.add("prompts", 0), self._store.add("tokens", 0)

    def look(self) -> None:
        self._next = time.monotonic() + _LOOK_SECONDS
        if self._on_prompt is not None:
            done = self._before + self.totals()[0]
            if done != self._shown:
                self._shown = done
                self._on_prompt(done, self.total)
