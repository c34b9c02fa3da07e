"""The command line ``draftgraph``; commands live beside this file, one module a family."""

from studies.cli.app import main

__all__ = ["main"]
