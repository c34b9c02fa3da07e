"""draftgraph.h in tests: the compilers that are there, and a driver that answers through a pipe."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.paths import ROOT
from verify.runtimes import c_include

SOURCES = ROOT / "tests" / "verify" / "runtimes" / "c"
STRICT = ["-Wall", "-Wextra", "-pedantic", "-Werror"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compilers(*names: str) -> list[str]:
    """Those of ``names`` that are installed."""
    return [name for name in names if shutil.which(name)]


def build(compiler: str, source: Path, target: Path, *options: str, standard: str = "c99") -> str:
    """Compile ``source`` to the program ``target``; returns what the compiler had to say, "" where it made one."""
    command = [compiler, f"-std={standard}", *STRICT, *options, "-I", str(c_include()), str(source), "-o", str(target)]
    done = subprocess.run([*command, "-lm"], capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


def ints(*values: Any) -> bytes:
    """Whole numbers and arrays of them, as the driver reads them."""
    return b"".join(np.asarray(value, dtype="<i4").tobytes() for value in values)


def doubles(*values: Any) -> bytes:
    return b"".join(np.asarray(value, dtype="<f8").tobytes() for value in values)


def rule_bytes(least: int, tau: float | None, strict: bool) -> bytes:
    return ints(least, tau is not None, strict) + doubles(0.0 if tau is None else tau)


def answers(program: Path, commands: Sequence[bytes]) -> list[list[Any]]:
    """What the driver answers to each command: its frames, arrays and bytes; an error is a status and its message."""
    done = subprocess.run([program], input=b"".join(commands), capture_output=True)
    if done.returncode:
        raise AssertionError(done.stderr.decode(errors="replace")[-4000:])
    found: list[list[Any]] = [[]]
    at, data = 0, done.stdout
    while at < len(data):
        kind, count = np.frombuffer(data, dtype="<i4", count=2, offset=at).tolist()
        at += 8
        if kind < 0:
            found.append([])
            continue
        size = count * (4, 8, 1)[kind]
        part = data[at : at + size]
        found[-1].append(part if kind == 2 else np.frombuffer(part, dtype="<i4" if kind == 0 else "<f8"))
        at += size
    assert not found.pop() and len(found) == len(commands)
    return found
