"""The file of ``draftgraph latency``: one measured table (:class:`calibrate.measuring.latency_table.LatencyTable`)."""

from __future__ import annotations

from pathlib import Path

from calibrate.measuring.latency_table import LatencyTable
from figures.records.record import FigureDataError, load_record

#: Tables of a folder that a message lists.
_NAMED = 4


def load_latency(path: str | Path) -> LatencyTable:
    """Read a latency table; :func:`figures.records.record.save_record` writes one.

    Raises:
        FigureDataError: there is no such file, or it is a folder, of another format, or no table: text among numbers,
            columns of different length, query tokens that do not follow from the numbers of drafts.
    """
    path = Path(path)
    if path.is_dir():
        tables = sorted(str(table) for table in path.glob("batch-*-context-*.json"))
        if tables:
            listed = ", ".join(tables[:_NAMED]) + (", ..." if len(tables) > _NAMED else "")
            raise FigureDataError(f"{path} is a folder of tables; name one: {listed}")
        raise FigureDataError(f"{path} is a folder, expected a latency file of `draftgraph latency`")
    if not path.exists():
        raise FigureDataError(f"{path} does not exist; measure one with `draftgraph latency --out {path}`")
    return load_record(LatencyTable, path)
