"""Where a study is kept: in memory, in a journal file, in a database, or behind a gRPC proxy.

=========================  =====================================================================================
``memory`` (default)       fastest, one process, gone when it ends
``PATH`` or                a journal: one file that several local workers append to, and that a killed study resumes
``journal:PATH``           from
``sqlite:///PATH``, ...    any database that Optuna and SQLAlchemy know; ``postgresql://`` for many machines
``grpc://HOST:PORT``       a proxy started with ``optuna.storages.run_grpc_proxy_server``, in front of a database
=========================  =====================================================================================
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import (
    BaseStorage,
    GrpcStorageProxy,
    InMemoryStorage,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MEMORY = "memory"
#: A worker tells a database so often, in seconds, that it is alive.
HEARTBEAT_SECONDS = 15
#: A trial whose worker has not been heard of for so many seconds is given to another, this many times at most.
GRACE_SECONDS = 60
_RETRIES = 3
_CONNECT_SECONDS = 10
_ATTEMPTS = 5
_BEGINNING = b'{"op_code":'
_START = re.compile(re.escape(_BEGINNING))
# Optuna lets the errors of its drivers through; none of these modules need be installed.
_DRIVERS = {"sqlalchemy", "psycopg", "psycopg2", "pymysql", "MySQLdb", "grpc", "sqlite3"}


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
        lock = JournalFileOpenLock(str(self.path)) if fcntl is None else None
        if lock is not None:
            lock.acquire()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0))
            with os.fdopen(descriptor, "rb+") as file:
                if fcntl is not None:
                    fcntl.flock(descriptor, fcntl.LOCK_EX)  # closing the file unlocks it
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
            # The beginning of an operation: its text ends before JSON does, in a string or between two signs.
            message = error.msg if isinstance(error, json.JSONDecodeError) else ""
            unfinished = message.startswith("Unterminated") or not text.endswith(b"}") or error.pos >= len(text)
            if message and _BEGINNING.startswith(text[: len(_BEGINNING)]) and unfinished:
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


def is_shared(where: str | None) -> bool:
    """Whether other processes can join a study kept there."""
    return where not in (None, MEMORY)


def open_storage(where: str | None) -> BaseStorage:
    """Open or create a storage (see the table of this module).

    Raises:
        StorageError: it cannot be reached, or what it needs is not installed. The message says which and how to mend.
    """
    if not is_shared(where):
        return InMemoryStorage()
    assert where is not None
    with storage_guard(where, "cannot be opened"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        scheme, separator, rest = where.partition("://")
        if scheme == "grpc" and separator:
            return _open_grpc(where, rest)
        if separator:
            return _open_database(where)
        journal = JournalFile(Path(where.removeprefix("journal:")))
        try:
            return JournalStorage(journal)
        except (AssertionError, LookupError, TypeError, ValueError) as error:  # what Optuna says of a wrong operation
            raise journal.damaged() from error


def shown(where: str | None) -> str:
    """The storage for messages, with the password of a URL left out."""
    if where is None:
        return MEMORY
    scheme, separator, rest = where.partition("://")
    user, at, host = rest.rpartition("@")
    if not at:
        return where
    return f"{scheme}{separator}{user.partition(':')[0]}@{host}"


@contextmanager
def storage_guard(where: str | None, trouble: str, finished: Callable[[], int] | None = None) -> Iterator[None]:
    """Turn whatever a storage raises when it is not there into one :class:`StorageError`.

    ``finished`` says how many trials were finished when it went away.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as outer:
        # When a storage goes away in a trial, ``Study.optimize`` trips over it once more and raises something else.
        error: BaseException | None = outer
        while error is not None and not _is_storage_trouble(error):
            error = error.__cause__ or error.__context__
        if error is None:
            raise
        kept = ""
        if finished is not None and is_shared(where):
            kept = f". {finished()} finished trials stay in it; when it is back, run the same command again to go on"
        raise StorageError(f"the storage {shown(where)} {trouble}: {_cause(error)}{kept}") from outer


def _is_storage_trouble(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, StorageInternalError)):
        return True
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(modules & _DRIVERS)


def _cause(error: BaseException) -> str:
    """The first line of what the driver says; Optuna and gRPC wrap it in words of their own."""
    details = getattr(error, "details", None)
    inner = error.__cause__ if isinstance(error, StorageInternalError) else None
    text = details() if callable(details) else str(inner or error)
    lines = [line.strip(" :.") for line in str(text).splitlines() if line.strip(" :.")]
    return lines[0] if lines else type(error).__name__


def _open_database(where: str) -> BaseStorage:
    scheme = where.partition("://")[0]
    engine: dict[str, Any] = {"pool_pre_ping": True}
    if scheme.startswith("sqlite"):
        engine["connect_args"] = {"timeout": 60}
    elif scheme.startswith("postgresql"):
        engine["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
        if scheme == "postgresql" and not _installed("psycopg2") and _installed("psycopg"):
            # SQLAlchemy takes the plain scheme to mean psycopg2.
            where = where.replace("postgresql://", "postgresql+psycopg://", 1)
    options: dict[str, Any] = {
        "engine_kwargs": engine,
        "heartbeat_interval": HEARTBEAT_SECONDS,
        "grace_period": GRACE_SECONDS,
        "heartbeat_stale_trial_callback": RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES),
    }
    for attempt in range(_ATTEMPTS):
        try:
            return optuna.storages.get_storage(RDBStorage(where, **options))
        except ImportError as error:
            extra = "; pip install 'draftgraph[postgres]'" if scheme.startswith("postgresql") else ""
            raise StorageError(f"no driver for {scheme}:// is installed ({error.__cause__ or error}){extra}") from error
        except ArgumentError as error:
            expected = "expected for example sqlite:///x.db"
            raise StorageError(f"{shown(where)} is not a database URL ({error}); {expected}") from error
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            # Two workers that open an empty database at once both make its tables, and one of them fails.
            if "exist" not in str(error) or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _open_grpc(where: str, address: str) -> BaseStorage:
    host, separator, port = address.rstrip("/").rpartition(":")
    if not separator or not port.isdigit():
        raise StorageError(f"{where} is not a proxy address; expected grpc://HOST:PORT")
    if not _installed("grpc"):
        raise StorageError("a grpc:// storage needs the package grpcio; pip install grpcio protobuf")
    proxy = GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=_CONNECT_SECONDS)
    return proxy


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
