"""Replay of a graph that is pruned at every anchor: what is kept follows from the recorded ranks and probabilities.

The kept nodes depend on the newest distribution alone, and a trace holds its ranks and, as float32, its
probabilities. The same code (``verify.graph.pruning``) chooses them here and at run time, on numbers rounded alike, so
the count is the runtime's, forward for forward. Forwards of different shape differ in the last bits of a probability;
here that matters only where two scores lie so close that it changes which of them is the higher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from drafting.anchors import AnchorTable
from drafting.chains import masked_at_anchors
from drafting.codes import formula_codes
from drafting.ragged import ptr_of
from drafting.replay import ReplayResult, result_of
from drafting.values import beginnings_inside
from verify.graph.pruning import GraphPruner

if TYPE_CHECKING:
    from calibrate.traces.table import Traces

_CHUNK = 1 << 12  # anchors pruned at once; some 30 MB of temporary arrays at 64 nodes


class PrunedReplay:
    """Recorded decodes, ready to be replayed under pruned graphs.

    Args:
        traces: the recording.

    Raises:
        ValueError: traces that are not a monotone decode (see ``drafting.anchors``).
    """

    def __init__(self, traces: Traces) -> None:
        self.anchors = AnchorTable.from_traces(traces, max_depth=None)
        # Every step of a block but the last is followed by an anchor.
        block_of = np.repeat(np.arange(self.anchors.n_blocks), np.diff(self.anchors.block_ptr))
        owner, entry, _ = masked_at_anchors(traces, np.arange(self.anchors.n_anchors) + block_of)
        self._probability = traces.top_probability[entry]
        self._masked = np.bincount(owner, minlength=self.anchors.n_anchors)
        self._start = ptr_of(self._masked)

    def replay(self, pruner: GraphPruner) -> ReplayResult:
        """Count the forward passes of the recorded decodes when ``pruner`` chooses the drafts at every anchor.

        Complexity: that of :meth:`GraphPruner.kept` over all anchors, visited or not, and O(N log D) for N
        chain states.

        Raises:
            ValueError: the graph reads a vocabulary rank that was not recorded, so its probability is not known.
        """
        depth = self._probability.shape[1]
        if pruner.max_vocabulary_rank > depth:
            raise ValueError(
                f"the graph reads vocabulary rank {pruner.max_vocabulary_rank}, but the trace holds {depth}; "
                "record with a higher top_j"
            )
        inside, drafts = self._inside(pruner)
        return result_of(beginnings_inside(inside, self.anchors.chain_ptr), drafts, self.anchors)

    def _inside(self, pruner: GraphPruner) -> tuple[np.ndarray, np.ndarray]:
        """bool [N], which chain states are kept at the anchor of their chain; int64 [A], how many nodes are kept."""
        anchors = self.anchors
        inside, drafts = np.zeros(len(anchors.code), dtype=bool), np.zeros(anchors.n_anchors, dtype=np.int64)
        if not pruner.formulas:
            return inside, drafts
        codes = formula_codes(pruner.formulas)
        order = np.argsort(codes)
        node = order[np.minimum(np.searchsorted(codes, anchors.code, sorter=order), len(codes) - 1)]
        in_graph = codes[node] == anchors.code
        for low in range(0, anchors.n_anchors, _CHUNK):
            high = min(low + _CHUNK, anchors.n_anchors)
            first, last = self._start[low], self._start[high]
            kept = pruner.kept(self._probability[first:last], self._start[low:high] - first, self._masked[low:high])
            drafts[low:high] = np.count_nonzero(kept, axis=1)
            states = np.arange(anchors.chain_ptr[low], anchors.chain_ptr[high])
            states = states[in_graph[states]]
            inside[states] = kept[anchors.chain_of(states) - low, node[states]]
        return inside, drafts
