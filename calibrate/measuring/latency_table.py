"""A latency table: what a forward pass costs on a device, against the number of draft blocks in it.

Latency against query tokens is a staircase: a device computes tiles, and a few more rows are free until they are not.
So every number of drafts is measured, never extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from verify.files.strict_json import Words, fail
from verify.files.typed_json import AboveZero, Count, Name, Positive, to_json


class LatencyError(ValueError):
    """A latency that cannot be measured, or that was not."""


@dataclass(frozen=True)
class LatencyTable:
    """Measured forward times, in milliseconds; also the content of the file of ``draftgraph latency``.

    Attributes:
        device, dtype, model: what was measured.
        backend: ``packed`` or ``expanded``.
        block_length: positions per block, ``L``.
        context_length: cached positions.
        batch: sequences per forward.
        drafts: numbers of drafts ``D``, ascending, 0 first.
        query_tokens: of each forward, ``batch * L * (1 + D)``.
        latency: median of ``repeats`` forwards, the ranking of their logits included.
        low, high: quartiles.
        refresh: median time of a block's refresh forward: of all positions under ``dual``, of the block before and the
            new one under ``block_causal``.
        repeats: timed forwards per entry, in rounds over all entries, so that drift hits all alike.
        unit: of all times; "ms" is the only one.
        note: what a reader must know besides, for example that larger entries did not fit into memory.
        cache: the cache mode whose forwards were timed.
        engine: ``slots`` (one forward over static buffers; ``slots, compiled`` and the like where steps are not run
            eagerly) or ``rows`` (one call per sequence).
    """

    FORMAT: ClassVar[str] = "draftgraph-latency"

    device: Name
    dtype: Name
    model: Name
    backend: Name
    block_length: Positive
    context_length: Positive
    batch: Positive
    drafts: tuple[Count, ...]
    query_tokens: tuple[Count, ...]
    latency: tuple[AboveZero, ...]
    low: tuple[AboveZero, ...]
    high: tuple[AboveZero, ...]
    refresh: AboveZero
    repeats: Positive
    unit: Literal["ms"] = "ms"
    note: str = ""
    cache: str = ""
    engine: str = ""

    def check(self, where: str) -> None:
        """Refuse columns that do not fit each other.

        Raises:
            verify.files.strict_json.StrictJsonError: columns of different length, drafts that do not ascend from 0,
                query tokens that do not follow from the drafts, quartiles that do not enclose the median.
        """
        columns = (self.drafts, self.query_tokens, self.latency, self.low, self.high)
        lengths = sorted({len(column) for column in columns})
        if len(lengths) != 1 or lengths == [0]:
            columns_of = "drafts, query_tokens, latency, low and high of one length"
            fail(where, columns_of, Words(f"lengths {', '.join(map(str, lengths))}"))
        if self.drafts[0] != 0 or list(self.drafts) != sorted(set(self.drafts)):
            fail("drafts", "numbers that ascend from 0", list(self.drafts))
        for index, (drafts, tokens) in enumerate(zip(self.drafts, self.query_tokens, strict=True)):
            expected = self.batch * self.block_length * (1 + drafts)
            if tokens != expected:
                fail(f"query_tokens[{index}]", f"batch * block_length * (1 + drafts) = {expected}", tokens)
        for index, (low, median, high) in enumerate(zip(self.low, self.latency, self.high, strict=True)):
            if not low <= median <= high:
                fail(f"latency[{index}]", "low <= latency <= high", [low, median, high])

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
        return dict(to_json(self))
