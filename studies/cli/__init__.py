"""The command line ``draftgraph``; commands live beside this file, one module a family."""

import os

if "WORLD_SIZE" in os.environ:
    # For every word that cannot be sent to a worker that is gone torch prints a page of C++ frames; our own message
    # says it in a line. Read when torch is imported, so it stands before that.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from studies.cli.app import main

__all__ = ["main"]
