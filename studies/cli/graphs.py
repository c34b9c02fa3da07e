"""Graph files as commands read them, and for whom a graph from traces is valid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrate.traces.table import Traces
    from verify.graph.file import GraphFile, Validity


def read_graph(path: Path) -> GraphFile:
    """Read a graph file; whoever names a run's results instead is told where its graphs are.

    Raises:
        verify.graph.file.GraphFileError: as :func:`verify.graph.file.load_graph`.
    """
    from studies.runs.run_directory import RESULTS_FORMAT
    from verify.graph.file import GraphFileError, load_graph

    try:
        return load_graph(path)
    except GraphFileError as error:
        if RESULTS_FORMAT not in str(error):
            raise
        raise GraphFileError(f"{error}; these are results, graphs are under {path.parent / 'graphs'}/") from None


def unfit(mismatches: Sequence[str], policy: str | None) -> str:
    """The ``mismatches`` of a graph and a run in one line; says so when a ``--policy`` that was given is among them."""
    own_policy = policy is not None and any(line.startswith("policy:") for line in mismatches)
    return "; ".join(mismatches) + ("; leave --policy out" if own_policy else "")


def trace_validity(traces: Traces) -> Validity:
    """For whom a graph from these traces is valid."""
    from verify.graph.file import Validity

    run = traces.metadata
    return Validity(
        model=run["model"],
        model_revision=run["model_revision"],
        policy=run["policy"],
        block_length=run["block_length"],
        cache=run["cache"],
        temperature=run["temperature"],
        top_j=run["top_j"],
    )
