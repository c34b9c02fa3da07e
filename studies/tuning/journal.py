"""A study's journal: one file of operations, one a line, that several local workers append to."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from optuna.exceptions import StorageInternalError
from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock

#: The locks of Unix; None on Windows.
_FCNTL: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None
_BEGINNING = b'{"op_code":'
_START = re.compile(re.escape(_BEGINNING))


class StorageError(RuntimeError):
    """A storage that cannot be opened, or that went away while a study ran."""


class JournalWarning(UserWarning):
    """A torn line of a journal was left out."""


class JournalFile(BaseJournalBackend):
    """A journal that outlives workers which are killed while they write, and that says so when it is damaged.

    Optuna's own file backend appends to a line that a killed worker tore, reads neither of the two, and from the next
    line on refuses the whole file. Here whoever appends ends a torn line first, and readers leave it out: its writer
    died before it heard that the operation was stored, so nothing that follows depends on it. An operation that
    another program glued to a torn line is read. Anything else that is not an operation is damage, and refused.

    A file that was deleted or replaced while the study runs is an error too: the study would go on writing into
    nothing that anyone reads.

    Args:
        path: the file; made, with its folder, where it is not there.

    Raises:
        optuna.exceptions.StorageInternalError: the operating system refuses; so do reading and appending.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = (0, 0, 0)  # operations, bytes and lines that were read
        with _as_storage_error():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                self._identity = _identity(file.fileno())

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        operations, place, lines = self._position if self._position[0] == log_number_from else (0, 0, 0)
        with _as_storage_error(), self.path.open("rb") as file:
            file.seek(place)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # its writer is at work, or was killed
                place, lines = place + len(line), lines + 1
                operation = self._operation(line[:-1], lines)
                operations += operation is not None
                self._position = (operations, place, lines)
                if operation is not None and operations > log_number_from:
                    yield operation

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with _as_storage_error(), self._locked() as file:
            if _identity(file.fileno()) != self._identity:
                raise FileNotFoundError(f"the journal {self.path} was replaced by another file")
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else b"\n" + text
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The open journal, which no other worker appends to meanwhile.

        The operating system's lock wakes the next in line at once and ends with its process. Optuna's lock is a file
        that waiting workers poll with pauses of up to a second: two busy workers starve each other, and a killed one
        leaves it behind for 30 seconds.
        """
        lock = JournalFileOpenLock(str(self.path)) if _FCNTL is None else None
        if lock is not None:
            lock.acquire()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0))
            with os.fdopen(descriptor, "rb+") as file:
                if _FCNTL is not None:
                    _FCNTL.flock(descriptor, _FCNTL.LOCK_EX)  # closing the file unlocks it
                yield file
        finally:
            if lock is not None:
                lock.release()

    def damaged(self) -> StorageError:
        """The error about the line that was read last."""
        line = self._position[2]
        if line <= 1:
            return StorageError(f"{self.path} is not the journal of a study; give another file with --storage")
        return StorageError(
            f"line {line} of {self.path} is not an operation of a study: the file was damaged after it was written. "
            f"What stands before that line is whole: keep it with `head -n {line - 1} {self.path} > mended.journal`, "
            "and go on with --storage mended.journal"
        )

    def _operation(self, text: bytes, line: int) -> dict[str, Any] | None:
        """The operation of a line; None where it is torn, with a warning.

        Raises:
            StorageError: neither.
        """
        try:
            return _parsed(text)
        except ValueError as error:
            for start in _START.finditer(text, 1):
                with suppress(ValueError):
                    return _parsed(text[start.start() :])
            if _is_torn(text, error):
                warnings.warn(
                    f"line {line} of {self.path} is torn (a worker was killed while it wrote) and was left out; no "
                    "trial needs it",
                    JournalWarning,
                    stacklevel=2,
                )
                return None
        self._position = (*self._position[:2], line)
        raise self.damaged()


def _parsed(text: bytes) -> dict[str, Any]:
    operation = json.loads(text)
    if not isinstance(operation, dict):
        raise ValueError("not an object")
    return operation


def _is_torn(text: bytes, error: ValueError) -> bool:
    """Whether ``text`` is the beginning of an operation: it ends before JSON does, in a string or between two signs."""
    if not isinstance(error, json.JSONDecodeError) or not _BEGINNING.startswith(text[: len(_BEGINNING)]):
        return False
    return error.msg.startswith("Unterminated") or error.pos >= len(text) or not text.endswith(b"}")


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


@contextmanager
def _as_storage_error() -> Iterator[None]:
    """Name what the operating system refuses a journal as Optuna does, so that no other file is meant by it."""
    try:
        yield
    except OSError as error:
        raise StorageInternalError(str(error)) from error
