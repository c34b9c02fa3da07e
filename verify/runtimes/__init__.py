"""What a server embeds: cores that import nothing of this project, readers of exported files, and foreign runtimes."""

from __future__ import annotations

from pathlib import Path


def c_include() -> Path:
    """The folder of ``draftgraph.h``, for a C or C++ compiler: ``cc -I "$(python -c ...)"`` (docs/runtime-c.md)."""
    return Path(__file__).parent / "c"
