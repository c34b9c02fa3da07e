"""A latency table: what a forward pass costs on a device, against the number of draft blocks in it.

Latency against rows is a staircase: a device computes tiles, and a few more rows are free until they are not. So every
number of drafts is measured (``calibrate.measuring.latency``), never extrapolated. No torch is needed to read a table.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


class LatencyError(ValueError):
    """A latency table that cannot be measured or read."""


@dataclass(frozen=True)
class LatencyTable:
    """Measured forward times, in milliseconds.

    Attributes:
        device, dtype, model: what was measured.
        backend: ``packed`` or ``expanded``.
        block_length: rows per block, ``L``.
        context_length: cached rows.
        batch: sequences per forward.
        drafts: numbers of drafts ``D``, ascending, 0 first.
        query_tokens: rows of each forward, ``batch * L * (1 + D)``.
        latency: median of ``repeats`` forwards, the ranking of their logits included.
        low, high: quartiles.
        refresh: median time of a block's refresh forward: of all rows under ``dual``, of the block before and the
            new one under ``block_causal``.
        repeats: timed forwards per entry, in rounds over all entries, so that drift hits all alike.
        note: what a reader must know besides, for example that larger entries did not fit into memory.
        cache: the cache mode whose forwards were timed; empty in files that older versions wrote.
        engine: ``slots`` (one forward over static buffers; ``slots, compiled`` and the like where steps are not run
            eagerly) or ``rows`` (one call per sequence); empty as above.
    """

    device: str
    dtype: str
    model: str
    backend: str
    block_length: int
    context_length: int
    batch: int
    drafts: tuple[int, ...]
    query_tokens: tuple[int, ...]
    latency: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    refresh: float
    repeats: int
    unit: str = "ms"
    note: str = ""
    cache: str = ""
    engine: str = ""

    def at(self, drafts: int) -> float:
        """Milliseconds of a forward with ``drafts`` drafts.

        Raises:
            LatencyError: it was not measured; nothing is interpolated, as a staircase has no slope.
        """
        if drafts not in self.drafts:
            raise LatencyError(
                f"no latency was measured for {drafts} drafts, only for {list(self.drafts)}; measure with --drafts"
            )
        return self.latency[self.drafts.index(drafts)]

    def graph_section(self) -> dict[str, Any]:
        """The table as graph files hold it (docs/graph-format.md)."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
