"""Graph files as commands read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verify.graph.file import GraphFile


def read_graph(path: Path) -> GraphFile:
    """Read a graph file; whoever names another file of ours instead is told what to name.

    Raises:
        verify.graph.file.GraphFileError: as :func:`verify.graph.file.load_graph`.
    """
    from figures.records.run import Run
    from verify.drafters.file import DRAFTER_FORMAT
    from verify.graph.file import GraphFileError, load_graph

    try:
        return load_graph(path)
    except GraphFileError as error:
        if f'found "{DRAFTER_FORMAT}"' in str(error):
            raise GraphFileError(f"{error}; this is a drafter file, which --drafter takes") from None
        if Run.FORMAT not in str(error):
            raise
        raise GraphFileError(f"{error}; these are results, graphs are under {path.parent / 'graphs'}/") from None


def short_names(*paths: Path) -> list[str]:
    """The files' names, or their whole paths where two files have the same name."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
