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
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MEMORY = "memory"
_CONNECT_SECONDS = 10
_ATTEMPTS = 5
# Optuna lets the errors of its drivers through; none of these modules need be installed.
_DRIVERS = {"sqlalchemy", "psycopg", "psycopg2", "pymysql", "MySQLdb", "grpc", "sqlite3"}


class StorageError(RuntimeError):
    """A storage that cannot be opened, or that went away while a study ran."""


class FileLock(JournalFileOpenLock):
    """A lock of the operating system (``flock``) on a file beside the journal.

    Optuna's locks are files that exist or not: whoever waits polls, with pauses up to a second, so that two busy
    workers starve each other; and one that was killed leaves its lock behind for 30 seconds. This one wakes the next in
    line at once and goes with its process. It is for workers of one machine: a network file system may not honour it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path.with_name(path.name + ".flock")
        self._held: int | None = None

    def acquire(self) -> bool:
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        self._held = descriptor
        return True

    def release(self) -> None:
        if self._held is not None:
            os.close(self._held)  # which unlocks
            self._held = None


class JournalFile(JournalFileBackend):
    """Optuna's journal file, with two gaps closed.

    A file that was deleted or replaced in mid-study would be made anew, empty, and the study would go on writing into
    nothing that anyone reads: that is an error here. And a last line that a crash left half-written would spoil the
    line that is appended to it: it is cut off when the file is opened, under the lock.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock: JournalFileOpenLock = FileLock(path) if fcntl is not None else JournalFileOpenLock(str(path))
        super().__init__(str(path), lock)
        self.path = path
        self._identity = self._found()
        if not self._ends_whole():
            lock.acquire()
            try:
                self._cut_torn_line()
            finally:
                lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self._found() != self._identity:
            raise FileNotFoundError(f"the journal {self.path} was replaced by another file")
        super().append_logs(logs)

    def _found(self) -> tuple[int, int]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino

    def _ends_whole(self) -> bool:
        content = self.path.read_bytes()
        return not content or content.endswith(b"\n")

    def _cut_torn_line(self) -> None:
        content = self.path.read_bytes()
        os.truncate(self.path, content.rfind(b"\n") + 1)


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
        return JournalStorage(JournalFile(Path(where.removeprefix("journal:"))))


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
def storage_guard(where: str | None, trouble: str, finished: int | None = None) -> Iterator[None]:
    """Turn whatever a storage raises when it is not there into one :class:`StorageError`."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if not _is_storage_trouble(error):
            raise
        kept = ""
        if finished is not None and is_shared(where):
            kept = f". {finished} finished trials stay in it; when it is back, run the same command again to go on"
        raise StorageError(f"the storage {shown(where)} {trouble}: {_cause(error)}{kept}") from error


def _is_storage_trouble(error: Exception) -> bool:
    if isinstance(error, (OSError, StorageInternalError)):
        return True
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(modules & _DRIVERS)


def _cause(error: Exception) -> str:
    """The first line of what the driver says; Optuna and gRPC wrap it in words of their own."""
    details = getattr(error, "details", None)
    inner = error.__cause__ if isinstance(error, StorageInternalError) else None
    said = details() if callable(details) else str(inner or error)
    lines = [line.strip(" :.") for line in str(said).splitlines() if line.strip(" :.")]
    return lines[0] if lines else type(error).__name__


def _open_database(where: str) -> BaseStorage:
    scheme = where.partition("://")[0]
    options: dict[str, Any] = {"pool_pre_ping": True}
    if scheme.startswith("sqlite"):
        options["connect_args"] = {"timeout": 60}
    elif scheme.startswith("postgresql"):
        options["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
        if scheme == "postgresql" and not _installed("psycopg2") and _installed("psycopg"):
            # SQLAlchemy takes the plain scheme to mean psycopg2.
            where = where.replace("postgresql://", "postgresql+psycopg://", 1)
    for attempt in range(_ATTEMPTS):
        try:
            return optuna.storages.get_storage(RDBStorage(where, engine_kwargs=options))
        except ImportError as error:
            extra = "; pip install 'draftgraph[postgres]'" if scheme.startswith("postgresql") else ""
            raise StorageError(f"no driver for {scheme}:// is installed ({error.__cause__ or error}){extra}") from error
        except ArgumentError as error:
            expected = "expected for example sqlite:///x.db"
            raise StorageError(f"{shown(where)} is no database URL ({error}); {expected}") from error
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            # Two workers that open an empty database at once both make its tables, and one of them fails.
            if "exist" not in str(error) or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _open_grpc(where: str, address: str) -> BaseStorage:
    host, separator, port = address.rstrip("/").rpartition(":")
    if not separator or not port.isdigit():
        raise StorageError(f"{where} is no proxy address; expected grpc://HOST:PORT")
    if not _installed("grpc"):
        raise StorageError("a grpc:// storage needs the package grpcio; pip install grpcio protobuf")
    proxy = GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=_CONNECT_SECONDS)
    return proxy


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def states_of(trials: list[optuna.trial.FrozenTrial], *wanted: TrialState) -> int:
    """How many trials are in one of these states."""
    return sum(trial.state in wanted for trial in trials)
