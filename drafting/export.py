"""Graphs in forms that other runtimes load without our code."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import save_file

from verify.files.writing import write_atomically
from verify.graph.buffers import static_buffers
from verify.graph.file import GRAPH_FORMAT_VERSION, GraphFile, check_graph


def export_static_buffers(graph: GraphFile, path: str | Path) -> None:
    """Write the static buffers of ``graph`` as safetensors: whole or not at all.

    The metadata say for whom the graph is valid, because arrays alone would fit any model. The buffers are
    those of :func:`verify.graph.buffers.static_buffers`; the JSON file stays the one that is checked and
    kept.

    Raises:
        GraphFileError: the graph breaks the format.
        OSError: the file cannot be written.
    """
    check_graph(graph, str(path))
    metadata = {"format": "draftgraph-buffers", "version": str(GRAPH_FORMAT_VERSION)}
    metadata |= {"rank_origin": graph.rank_origin, "tie_rule": graph.tie_rule}
    metadata |= {name: str(value) for name, value in vars(graph.validity).items() if value is not None}
    with write_atomically(path) as temporary:
        save_file(static_buffers(graph), temporary, metadata=metadata)
