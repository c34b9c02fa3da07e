"""Readings of the published rule, and the one that does best on the traces searched.

What the paper leaves open are choices of ours (``drafting.searches.published``), and each of them changes the graph:
how far counts accumulate, which parents count, and whether rare states are candidates at all. The method ``published``
makes these choices per budget and on the search prompts alone, as a user of the paper would have to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from drafting.nested_replay import NestedReplay
from drafting.parents import Accumulation, ParentGraph, parent_graph
from drafting.searches.published import Parents, published
from drafting.searches.result import SearchResult
from drafting.trie import PrefixTrie
from drafting.values import require_depth

#: Minimum counts to choose from: a state that fewer anchors reach is not a candidate. 1 keeps every state.
MINIMUM_COUNTS = (1, 5, 10, 20, 50)


@dataclass(frozen=True)
class Reading:
    """One reading of the published rule.

    Attributes:
        accumulation: how far counts accumulate.
        parents: which parents count; None with "degree0", which looks at none.
        minimum_count: states that fewer anchors reach are left out, with all that stands behind them.
    """

    accumulation: Accumulation
    parents: Parents | None = None
    minimum_count: int = 1

    @property
    def rule(self) -> str:
        """Accumulation and parents as they are spelled in names of methods, for example "degree1/all"."""
        return self.accumulation + (f"/{self.parents}" if self.parents else "")

    def __str__(self) -> str:
        return f"{self.rule}, minimum count {self.minimum_count}"

    def search(
        self, trie: PrefixTrie, budget: int, step_size: int | None, graph: ParentGraph | None = None
    ) -> SearchResult:
        """The published rule in this reading; arguments and errors as :func:`drafting.searches.published.published`.

        ``trie`` and ``graph`` are those of all states that the minimum count leaves, see :meth:`candidates`.
        """
        found = published(
            trie,
            budget,
            step_size=step_size,
            accumulation=self.accumulation,
            parents=self.parents or "all",
            graph=graph,
        )
        return replace(found, chosen=str(self))

    def candidates(self, trie: PrefixTrie) -> PrefixTrie:
        """The trie of the states that the minimum count leaves."""
        return trie if self.minimum_count == 1 else trie.prune(self.minimum_count)


#: All readings of accumulation and parents, those that accumulate less first.
READINGS = (
    Reading("degree0"),
    Reading("degree1", "all"),
    Reading("degree1", "chosen"),
    Reading("total", "all"),
    Reading("total", "chosen"),
)


def best_readings(trie: PrefixTrie, budgets: Sequence[int], step_size: int | None) -> dict[int, SearchResult]:
    """Per budget, the graph of the reading that needs the fewest forwards on the searched traces.

    All :data:`READINGS` with all :data:`MINIMUM_COUNTS` are tried. Ties go to the reading that accumulates less, then
    to the smaller minimum count. ``chosen`` names the reading, and ``seconds`` are those of the whole choice.

    Raises:
        ValueError: a trie of literal chains, which cannot be replayed.
        drafting.values.DepthError: a graph reaches deeper than the chains of the table were kept.
    """
    begin = time.perf_counter()
    anchors = trie.anchors
    if anchors.n_anchors and not anchors.n_blocks:
        raise ValueError(
            "the method 'published' chooses its reading by replayed forwards, and literal chains have no blocks to "
            "replay; build the table with AnchorTable.from_traces, or name a reading, for example 'published:degree0'"
        )
    replays = NestedReplay(trie, anchors, budgets)
    best: dict[int, tuple[int, SearchResult]] = {}
    tries = {count: Reading("degree0", None, count).candidates(trie) for count in MINIMUM_COUNTS}
    graphs = {count: parent_graph(kept, step_size) for count, kept in tries.items()}
    for reading in READINGS:
        for count, kept in tries.items():
            found = replace(reading, minimum_count=count).search(kept, max(budgets), step_size, graphs[count])
            require_depth(found.nodes, anchors)
            forwards = replays.forwards(trie.state_ids(found.nodes).tolist()).sum(axis=1).tolist()
            for budget, needed in zip(budgets, forwards, strict=True):
                if budget not in best or needed < best[budget][0]:
                    best[budget] = needed, found.first(budget)
    seconds = time.perf_counter() - begin
    return {budget: replace(found, method="published", seconds=seconds) for budget, (_, found) in best.items()}
