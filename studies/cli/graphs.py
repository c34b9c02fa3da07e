"""Graph files as commands read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verify.graph.file import GraphFile


def read_graph(path: Path) -> GraphFile:
    """Read a graph file; whoever names a run's results instead is told where its graphs are.

    Raises:
        verify.graph.file.GraphFileError: as :func:`verify.graph.file.load_graph`.
    """
    from figures.records.run import Run
    from verify.graph.file import GraphFileError, load_graph

    try:
        return load_graph(path)
    except GraphFileError as error:
        if Run.FORMAT not in str(error):
            raise
        raise GraphFileError(f"{error}; these are results, graphs are under {path.parent / 'graphs'}/") from None


def unfit(mismatches: Sequence[str], policy: str | None) -> str:
    """The ``mismatches`` of a graph and a run in one line; says so when a ``--policy`` that was given is among them."""
    own_policy = policy is not None and any(line.startswith("policy:") for line in mismatches)
    return "; ".join(mismatches) + ("; leave --policy out" if own_policy else "")


def short_names(*paths: Path) -> list[str]:
    """The files' names, or their whole paths where two files have the same name."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
