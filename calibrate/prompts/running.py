"""Running code that a model wrote, in a process of its own with limits. The limits stop accidents, not an attacker.

What the process may not do: run longer than its time, take more memory, write files larger than a MiB, or speak to the
network where the kernel lets an ordinary user leave it (Linux, with user namespaces). It has an empty folder as its
working directory, no variables of the environment and nothing on its standard input. It can still read what its user
can read, so run code of a model that you do not trust in a container.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress

SECONDS = 10.0
MEGABYTES = 1024

#: Limits are set by the process itself, before the program: a hook between fork and exec is not safe in a process with
#: threads. The word comes last and on a channel of its own, so that a program that leaves early has not passed.
_RUNNER = """
import ctypes, os, sys
word, seconds, megabytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
source = sys.stdin.buffer.read().decode()
channel = os.dup(1)
nothing = os.open(os.devnull, os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(nothing, number)
try:
    import resource
    for kind, most in (("RLIMIT_CPU", seconds), ("RLIMIT_AS", megabytes << 20), ("RLIMIT_FSIZE", 1 << 20),
                       ("RLIMIT_CORE", 0)):
        try:
            resource.setrlimit(getattr(resource, kind), (most, most))
        except (AttributeError, OSError, ValueError):
            pass  # a platform without this limit; the time is kept from outside
except ImportError:
    pass
try:
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)  # CLONE_NEWUSER | CLONE_NEWNET: a network without devices
except (AttributeError, OSError, TypeError):
    pass
sys.argv = ["answer.py"]
exec(compile(source, "answer.py", "exec"), {"__name__": "__main__"})
os.write(channel, word.encode())
"""


def passes(source: str, *, seconds: float = SECONDS, megabytes: int = MEGABYTES) -> bool:
    """Whether the Python program ``source`` runs to its end without an error, within the limits.

    Args:
        source: the program.
        seconds: of wall time; of processor time as many, rounded up.
        megabytes: of address space, where the platform limits it.
    """
    word = secrets.token_hex(16)
    # -I: neither the folder nor the environment adds modules; -S would leave out site-packages, which answers may use.
    command = [sys.executable, "-I", "-c", _RUNNER, word, str(int(seconds + 1)), str(megabytes)]
    with tempfile.TemporaryDirectory(prefix="draftgraph-answer-") as folder:
        process = subprocess.Popen(
            command, cwd=folder, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            said, _ = process.communicate(source.encode(errors="replace"), timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)
    return process.returncode == 0 and said == word.encode()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it has started; these are a session of their own."""
    with suppress(ProcessLookupError, PermissionError, AttributeError):  # Windows has no killpg
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
