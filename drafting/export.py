"""Graphs in forms that other runtimes load without our code."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import save_file

from verify.files.tensors import MAX_HEADER_BYTES
from verify.files.writing import write_atomically
from verify.graph.buffers import MAX_BUFFER_BYTES, buffer_metadata, static_buffers
from verify.graph.file import GraphFile, GraphFileError, check_graph


def export_static_buffers(graph: GraphFile, path: str | Path) -> None:
    """Write the static buffers of ``graph`` as safetensors: whole or not at all.

    The metadata say for whom the graph is valid, because arrays alone would fit any model
    (:func:`verify.graph.buffers.buffer_metadata`). The buffers are those of
    :func:`verify.graph.buffers.static_buffers`, and :func:`verify.runtimes.buffers.load_buffers` reads them; the JSON
    file stays the one that is kept.

    Raises:
        GraphFileError: the graph breaks the format, or its formulas are so long that padded they fill more than
            :data:`verify.graph.buffers.MAX_BUFFER_BYTES`.
        OSError: the file cannot be written.
    """
    check_graph(graph, str(path))
    # Each node has its pairs, 8 bytes each, and ten numbers; each edge stands twice.
    size = len(graph.nodes) * (8 * max(map(len, graph.nodes)) + 40) + 8 * len(graph.edges)
    if size + MAX_HEADER_BYTES > MAX_BUFFER_BYTES:
        raise GraphFileError(
            f"{path}: static buffers: expected at most {MAX_BUFFER_BYTES} bytes, found some {size}, because formulas "
            f"are padded to the largest ({max(map(len, graph.nodes))} pairs); leave that out or use the JSON file"
        )
    with write_atomically(path) as temporary:
        save_file(static_buffers(graph), temporary, metadata=buffer_metadata(graph))
