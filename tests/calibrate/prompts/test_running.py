"""Code of a model runs within limits, and only a program that ends well has passed."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from calibrate.prompts.running import passes


def test_a_program_that_ends_well_passes_and_may_print_and_read_nothing() -> None:
    assert passes("import math, sys\nprint('x' * 100000)\nassert sys.stdin.read() == '' and math.sqrt(4) == 2")


@pytest.mark.parametrize(
    "source",
    [
        "assert False",
        "raise SystemExit(0)",
        "import os\nos._exit(0)",
        "def f(:",
        "open('large', 'wb').write(b'x' * 2**22)",
        "import os\nassert os.environ.get('HOME')",
    ],
)
def test_whatever_else_a_program_does_has_not_passed(source: str) -> None:
    assert not passes(source)


def test_time_is_limited() -> None:
    assert not passes("while True: pass", seconds=0.3)
    assert not passes("import subprocess, time\nsubprocess.Popen(['sleep', '60'])\ntime.sleep(60)", seconds=0.3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is not limited everywhere")
def test_memory_is_limited() -> None:
    assert not passes("x = bytearray(400 << 20)", megabytes=256)
    assert passes("x = bytearray(400 << 20)", megabytes=1024)


#: Whether a user may leave the network here; containers often forbid it.
_LEAVES = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000 | 0x40000000) != 0)"


def test_there_is_no_network_where_the_kernel_lets_a_user_leave_it() -> None:
    if subprocess.run([sys.executable, "-c", _LEAVES], capture_output=True).returncode != 0:
        pytest.skip("this kernel lets no user leave the network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)"
        assert subprocess.run([sys.executable, "-c", source]).returncode == 0
        assert not passes(source)
