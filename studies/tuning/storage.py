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
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError

from studies.tuning.journal import JournalFile, StorageError

MEMORY = "memory"
#: A worker tells a database so often, in seconds, that it is alive.
HEARTBEAT_SECONDS = 15
#: A trial whose worker has not been heard of for so many seconds is given to another, this many times at most.
GRACE_SECONDS = 60
_RETRIES = 3
_CONNECT_SECONDS = 10
_ATTEMPTS = 5
# Optuna lets the errors of its drivers through; none of these modules need be installed.
_DRIVERS = {"sqlalchemy", "psycopg", "psycopg2", "pymysql", "MySQLdb", "grpc", "sqlite3"}


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
