"""Recording by several workers: one folder, one manifest, a share of the prompts and shards of its own for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from calibrate.models.checkpoint import Checkpoint
from calibrate.recording.recorder import RecordingSpeed, Share, run_facts
from calibrate.recording.workers import POLL, Recording, WorkerError, Workers
from calibrate.traces.folder import FolderLock, check_folder, claim_folder, recorded_prompts
from calibrate.traces.table import TraceError, Traces, read_traces
from verify.decoding import DecodeConfig, DecodeResult, StepFact
from verify.policies.contract import Policy

#: Seconds that a network file system may take to show one machine what another wrote.
_FILE_SECONDS = 90.0
_LOOK_SECONDS = 1.0


def record_in_group(
    workers: Workers,
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    config: DecodeConfig,
    folder: str | Path,
    *,
    batch_size: int = 1,
    chat: bool = False,
    prompt_source: str | None = None,
    shard_prompts: int = 4,
    on_prompt: Callable[[int, int], None] | None = None,
    on_end: Callable[[RecordingSpeed], None] | None = None,
) -> Traces | None:
    """Record ``prompts`` together with the other ``workers``, all of which make this call with the same arguments.

    The leader claims the folder, looks what is there, and announces the rest; worker ``w`` of ``n`` takes every n-th
    prompt of it from the w-th on. A rerun does the same with what is left, so the number of workers may change and the
    part of a worker that was lost is redone. The folder must be on a file system that all workers see.

    Args:
        workers: from :func:`calibrate.recording.workers.join_workers`.
        checkpoint, prompts, policy, config, folder, batch_size, chat, prompt_source, shard_prompts: as in
            :func:`calibrate.recording.recorder.record`; the batch is that of one worker.
        on_prompt, on_end: as there, called on the leader and about all workers.

    Returns:
        The whole trace on the leader, None on the others.

    Raises:
        TraceError: as in ``record``; or a worker that does not see the folder, or sees other prompts or weights.
        WorkerError: on the leader, a worker that failed or is lost, once the others are done; what they
            finished is kept.
        PeerFailedError: on the others, the leader failed (and said why) before it announced the prompts.
    """
    folder = Path(folder)
    lock: FolderLock | None = None
    try:
        meeting = workers.recording()
        facts = run_facts(checkpoint, policy, config, prompts, chat=chat, prompt_source=prompt_source)
        if workers.leads:
            lock = claim_folder(folder, facts, share=True)
            done = recorded_prompts(folder)
            todo = [prompt_index for prompt_index in range(len(prompts)) if prompt_index not in done]
            meeting.announce(todo)
        else:
            todo = meeting.plan()
            unseen = f"worker {workers.number} does not see the trace in {folder}"
            _wait_for(lambda: check_folder(folder, facts), unseen)
            lock = FolderLock(folder)
            lock.acquire(share=True)
        watch = _Watch(meeting, len(prompts) - len(todo), len(prompts), on_prompt if workers.leads else None)
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
        meeting.finish(share.shards)
        if not workers.leads:
            return None
        try:
            shards = meeting.wait_for_all(watch.look)
        except WorkerError as error:
            there = len(recorded_prompts(folder))
            raise WorkerError(
                f"{error}; {there} of {len(prompts)} prompts are recorded in {folder}, run the same command again for "
                "the rest, with any number of workers"
            ) from error
        if on_end is not None:
            on_end(RecordingSpeed(*meeting.totals(), time.perf_counter() - start))
        _wait_for(lambda: all((folder / name).exists() for name in shards), f"not all shards can be seen in {folder}")
        return read_traces(folder)
    except BaseException as error:
        workers.fail(str(error) or type(error).__name__)
        raise
    finally:
        if lock is not None:
            lock.release()


def _wait_for(there: Callable[[], bool], failure: str, seconds: float = _FILE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            raise TraceError(f"{failure} after {seconds:.0f} s; all workers need one file system, and the same --out")
        time.sleep(POLL)


class _Watch:
    """Counts this worker's prompts for all; on the leader it also tells how far all are, at most once a second."""

    def __init__(
        self, meeting: Recording, before: int, total: int, on_prompt: Callable[[int, int], None] | None
    ) -> None:
        self._meeting, self._before, self._total, self._on_prompt = meeting, before, total, on_prompt
        self._told, self._next = -1, 0.0

    def on_step(self, fact: StepFact) -> None:
        """The leader's own steps are when it looks at the others: its prompts may take minutes."""
        if self._on_prompt is not None and time.monotonic() >= self._next:
            self.look()

    def count(self, result: DecodeResult) -> None:
        self._meeting.count(result.end)
        self.look()

    def look(self) -> None:
        self._next = time.monotonic() + _LOOK_SECONDS
        if self._on_prompt is not None:
            done = self._before + self._meeting.totals()[0]
            if done != self._told:
                self._told = done
                self._on_prompt(done, self._total)
