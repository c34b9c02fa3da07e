"""How commands end: errors become one message and an exit code, and a stop keeps what is done."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.text import Text

from calibrate.recording.stopping import Terminated, signals_held, termination_as_interrupt
from studies.cli.printing import complain, red, yellow

if TYPE_CHECKING:
    from calibrate.recording.workers import Workers

EXIT_BAD_INPUT = 1
EXIT_BROKEN_PROMISE = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

#: Errors whose own message is meant for a person.
_EXPECTED = (ValueError, RuntimeError, OSError, ArithmeticError, MemoryError)

Command = TypeVar("Command", bound=Callable[..., Any])


def command(resumes: bool = False, together: bool = False) -> Callable[[Command], Command]:
    """Let the errors of a command become one message and an exit code.

    Every error exits with 1 and says what went wrong; Ctrl-C exits with 130, SIGTERM (which then keeps what Ctrl-C
    would keep) with 143. ``DRAFTGRAPH_DEBUG=1`` shows tracebacks. What concerns all workers of a launch is said once.
    The function ``record_command`` is the command ``record`` (see ``studies.cli.app.COMMANDS``).

    Args:
        resumes: whether a stopped command keeps what is done and goes on when it is run again.
        together: whether several processes of one launch share the work; others are refused, as each would do it all.
    """

    def guard(function: Command) -> Command:
        name = function.__name__.removesuffix("_command").replace("_", "-")

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                if not together and int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
                    raise ValueError(
                        f"{name} is work for one process, but this is one of {os.environ['WORLD_SIZE']} (WORLD_SIZE); "
                        "start it without torchrun"
                    )
                with termination_as_interrupt():
                    return function(*args, **kwargs)
            except (typer.Exit, typer.Abort):  # typer.Exit is a RuntimeError: an exit code, not a failure
                raise
            except KeyboardInterrupt as stop:
                again = "again, without --overwrite-traces," if kwargs.get("overwrite_traces") else "again"
                kept = f" What is finished is kept; run the same command {again} to go on." if resumes else ""
                how = " by SIGTERM" if isinstance(stop, Terminated) else ""
                others = " (launchers send it when another worker failed)" if how and _workers() else ""
                with signals_held():  # under a launcher Ctrl-C comes twice
                    _complain(yellow(f"stopped{how}{others}."), kept)
                raise typer.Exit(EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED) from None
            except Exception as error:
                if _is_failure_of_a_peer(error):  # the other worker has said why
                    raise typer.Exit(EXIT_BAD_INPUT) from None
                if os.environ.get("DRAFTGRAPH_DEBUG"):
                    raise
                message = str(error) or type(error).__name__
                if not isinstance(error, _EXPECTED):
                    message = f"{type(error).__name__}: {message} (not foreseen; DRAFTGRAPH_DEBUG=1 shows where)"
                _complain(red("error: "), message)
                raise typer.Exit(EXIT_BAD_INPUT) from None

        return guarded  # type: ignore[return-value]

    return guard


def _workers() -> Workers | None:
    """The workers that this process has met; the module is not imported for that, as it takes torch with it."""
    module = sys.modules.get("calibrate.recording.workers")
    return module.current_workers() if module is not None else None


def _is_failure_of_a_peer(error: Exception) -> bool:
    module = sys.modules.get("calibrate.recording.workers")
    return module is not None and isinstance(error, module.PeerFailedError)


def _complain(*parts: str | Text) -> None:
    """Print ``parts`` on stderr; of several workers with the same message only the first does."""
    workers = _workers()
    if workers is not None:
        message = "".join(str(part) for part in parts)
        workers.fail(message)
        if not workers.says_first(message):
            return
        complain(f"worker {workers.number} of {workers.count}: ", *parts)
    else:
        complain(*parts)
