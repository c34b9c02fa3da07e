"""The command line ``draftgraph``; each command is a module of ``studies.cli.commands``."""

import os
import sys


def main() -> None:
    """Entry point of the ``draftgraph`` command."""
    if "WORLD_SIZE" in os.environ:
        # For every word that cannot be sent to a worker that is gone torch prints a page of C++ frames; our own message
        # says it in a line. Read when torch is imported.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Our own messages say what transformers would; likewise read when it is imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        from studies.cli.app import app

        app()
    except KeyboardInterrupt:  # before a command has begun
        print("stopped.", file=sys.stderr)
        sys.exit(130)
