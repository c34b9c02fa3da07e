"""Being stopped without losing what is done: SIGTERM as an interrupt, and signals held back while results are written.

Launchers stop their processes with SIGTERM (torchrun when one of them has died, a batch system before it takes the
machine away) and with SIGKILL some seconds later. Python's answer to SIGTERM is to end at once; here it is an
exception, as Ctrl-C is one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """The process was sent SIGTERM."""


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Within the context SIGTERM raises :class:`Terminated` in the main thread; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, _restorable(before))


@contextmanager
def signals_held() -> Iterator[None]:
    """Within the context SIGINT and SIGTERM do nothing: for the last writes of a process that is stopping anyway.

    Ctrl-C under a launcher comes twice, from the terminal and, as SIGTERM, from the launcher.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, _restorable(handler))


def _restorable(handler: Any) -> Any:
    """A handler that was not set from Python reads as None, which cannot be set again."""
    return signal.SIG_DFL if handler is None else handler
