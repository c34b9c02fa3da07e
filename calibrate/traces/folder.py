"""The folder of a recording: whose it is, who writes to it, and what is in it already.

A recording is named by its folder and by the facts in its manifest. Started again with the same facts it goes on; with
others it is refused, so that no trace mixes two decode rules. One recording at a time writes to a folder.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from calibrate.files import write_json
from calibrate.traces.table import (
    MANIFEST_NAME,
    TRACE_FORMAT_VERSION,
    TRACE_SCHEMA,
    TraceError,
    differing_facts,
    read_manifest,
    read_shard,
    shard_paths,
)

if sys.platform != "win32":
    import fcntl

LOCK_NAME = ".recording.lock"

#: Facts that may differ between a recording and its continuation: acceptance does not depend on them, or (chat
#: template, source and hashes of the prompts; whether the model offers copies) another fact, the hash of all prompts'
#: token ids or the model, tells them apart.
FREE_FACTS = frozenset(
    {"tool_version", "model_source", "device_name", "chat", "prompt_source", "prompt_hashes", "offers_copies"}
)


class FolderLock:
    """An advisory lock (``flock``) on a trace folder. It goes with its process, so that a kill leaves nothing behind.

    The leader of a recording takes it alone; with several workers it then shares it, and every worker takes a share.
    A new recording needs it alone again, so it waits for nobody and is refused while any worker lives.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._held: int | None = None

    def acquire(self, *, share: bool = False) -> None:
        """Take the lock alone or a share of it; one that is held already is converted.

        Raises:
            TraceError: another recording has it.
        """
        if sys.platform == "win32":
            return
        descriptor = self._held if self._held is not None else os.open(self.path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if share else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            self._held = None
            os.close(descriptor)
            raise TraceError(
                f"{self.path.parent} is being recorded by another process ({holder or 'unknown'}); wait for it, stop "
                "it, or give another folder"
            ) from error
        except OSError as error:
            # Some network file systems know no locks. Then the user must see to it, and is told so.
            warnings.warn(f"{self.path} cannot be locked ({error.strerror}); start one recording only", stacklevel=2)
        self._held = descriptor
        if not share:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        if self._held is not None:
            os.close(self._held)  # closing gives the lock up
            self._held = None


def check_folder(folder: Path, facts: dict[str, Any], mend: str = "give another folder or delete this one") -> bool:
    """Whether ``folder`` holds a recording of ``facts`` already; nothing is written.

    Args:
        folder: the trace folder, there or not.
        facts: of the recording that is to be made or continued.
        mend: what the user can do when the folder holds another recording, for the message.

    Raises:
        TraceError: it holds a trace of other facts, files that are no trace, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise TraceError(f"{folder} is a file, expected a folder for the trace; give another name")
    if not (folder / MANIFEST_NAME).exists():
        if folder.is_dir() and any(path.suffix != ".tmp" and path.name != LOCK_NAME for path in folder.iterdir()):
            raise TraceError(f"{folder} exists and is not a trace folder; give another one or empty it")
        return False
    found = read_manifest(folder)["run"]
    different = differing_facts(found, facts, [key for key in facts if key not in FREE_FACTS])
    if different:
        listed = "; ".join(f"{key}: there {found.get(key)!r}, now {facts[key]!r}" for key in different)
        raise TraceError(f"{folder} holds a trace of another run ({listed}); {mend}")
    return True


def claim_folder(folder: Path, facts: dict[str, Any], *, share: bool = False) -> FolderLock:
    """Lock ``folder`` for this recording and write its manifest if there is none; the caller releases the lock.

    Args:
        share: let other workers take a share of the lock once the manifest is written.

    Raises:
        TraceError: as :func:`check_folder`, or another recording is writing there.
    """
    check_folder(folder, facts)  # before the lock file is made in a folder that is not ours
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        if not check_folder(folder, facts):
            write_json(folder / MANIFEST_NAME, {"version": TRACE_FORMAT_VERSION, "run": facts})
        if share:
            lock.acquire(share=True)
    except BaseException:
        lock.release()
        raise
    return lock


def recorded_prompts(folder: Path, schema: pa.Schema = TRACE_SCHEMA) -> set[int]:
    """The indices of the prompts in whole shards of ``folder``; ``schema`` is that of its shards.

    Raises:
        TraceError: a broken shard, named.
    """
    done: set[int] = set()
    for path in shard_paths(folder):
        done.update(np.unique(read_shard(path, schema).column("prompt_index").to_numpy()).tolist())
    return done
