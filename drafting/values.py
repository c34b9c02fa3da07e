"""Values of a draft graph, as numbers of the traces: path_value and connected_weight (docs/glossary.md).

They are different objectives and are never mixed; the third, replayed forwards, lives in
``drafting.replay``. Everywhere ``nodes`` is an iterable of formulas (a :class:`~drafting.graph.DraftGraph`
is one); the root and repeated formulas are ignored, and so are formulas that no chain contains.
"""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx
import numpy as np

from drafting.anchors import AnchorTable
from drafting.codes import formula_codes
from drafting.parents import Accumulation, ancestor_weight, parent_graph
from drafting.trie import PrefixTrie
from verify.graph.formulas import ROOT, Formula


class DepthError(ValueError):
    """Chains were cut shallower than the graph reaches, so a count would be too small."""


def longest_chain(nodes: Iterable[Formula]) -> int:
    """The most formulas that nest in one another: no anchor can accept more. O(|nodes|^2)."""
    states = sorted(set(nodes) - {ROOT}, key=len)
    graph = nx.DiGraph()
    graph.add_nodes_from(states)
    sets = {state: frozenset(state) for state in states}
    for n, large in enumerate(states):
        graph.add_edges_from((small, large) for small in states[:n] if sets[small] < sets[large])
    return nx.dag_longest_path_length(graph) + 1 if states else 0


def require_depth(nodes: Iterable[Formula], source: PrefixTrie | AnchorTable) -> None:
    """Raise :class:`DepthError` when ``nodes`` could accept more states than ``source`` keeps of some
    chain."""
    anchors = source.anchors if isinstance(source, PrefixTrie) else source
    limit = anchors.max_depth if anchors.truncated.any() else None
    remedy = "build the table with AnchorTable.from_traces(traces, max_depth=None)"
    if isinstance(source, PrefixTrie) and source.depth_limit is not None:
        deepest = int(anchors.lengths().max(initial=0))
        if deepest > source.depth_limit:
            limit = source.depth_limit
            remedy = "build the trie without max_depth, or value the graph on the table"
    distinct = set(nodes) - {ROOT}
    if limit is None or len(distinct) <= limit:
        return
    reach = longest_chain(distinct)
    if reach > limit:
        raise DepthError(
            f"the graph accepts up to {reach} states in a row, but chains were cut at depth {limit}; {remedy}"
        )


def accepted_per_anchor(nodes: Iterable[Formula], source: PrefixTrie | AnchorTable) -> np.ndarray:
    """Accepted drafts at every anchor: the longest prefix of its chain that lies inside ``nodes``.

    Returns:
        int64 [A], in the order of the anchors.

    Complexity: O(T + A) from a trie, O(N log |nodes|) from a table. Both give the same numbers.

    Raises:
        DepthError: see :func:`require_depth`.

    A trie pruned of states that ``nodes`` contains gives lower bounds: value such a graph on the table.
    """
    distinct = set(nodes) - {ROOT}
    if isinstance(source, PrefixTrie):
        require_depth(distinct, source)
        return _accepted_at(distinct, source)[source.leaf]
    require_depth(distinct, source)
    if not distinct:
        return np.zeros(source.n_anchors, dtype=np.int64)
    codes = np.sort(formula_codes(distinct))
    at = np.minimum(np.searchsorted(codes, source.code), len(codes) - 1)
    return beginnings_inside(codes[at] == source.code, source.chain_ptr)


def beginnings_inside(inside: np.ndarray, chain_ptr: np.ndarray) -> np.ndarray:
    """int64 [A]: how many states from the start of each chain are inside, for ``inside`` bool [N] of chain states."""
    starts, ends = chain_ptr[:-1], chain_ptr[1:]
    misses = np.append(np.flatnonzero(~inside), len(inside))
    return np.minimum(misses[np.searchsorted(misses, starts)], ends) - starts


def alive_nodes(nodes: Iterable[Formula], trie: PrefixTrie) -> np.ndarray:
    """bool [T]: prefixes whose states all lie inside ``nodes`` (trie node 0 always). O(T)."""
    inside = np.zeros(trie.n_states, dtype=bool)
    ids = trie.state_ids(set(nodes) - {ROOT})
    inside[ids[ids >= 0]] = True
    inside[0] = True
    return trie.carry_down(inside[trie.state], np.logical_and)


def _accepted_at(nodes: set[Formula], trie: PrefixTrie) -> np.ndarray:
    """int64 [T]: accepted drafts of a chain that ends at each trie node."""
    accepted = alive_nodes(nodes, trie).astype(np.int64)
    accepted[0] = 0
    return trie.carry_down(accepted, np.add)


def path_value(nodes: Iterable[Formula], source: PrefixTrie | AnchorTable) -> float:
    """Expected accepted drafts over all anchors, with no model assumption.

    F(V) = mean over anchors of the longest prefix of the anchor's chain that lies inside V
         = (1 / total) * sum over distinct prefixes of count(prefix) * [all its states are in V].

    Monotone and supermodular in V. It weighs all anchors alike, while a decode visits a biased sample of
    them: what the user pays is ``drafting.replay``. 0.0 when there is no anchor. Anchor weights count when
    ``source`` is a trie.

    Source: docs/glossary.md, "path value".
    """
    distinct = set(nodes)
    if isinstance(source, AnchorTable):
        accepted = accepted_per_anchor(distinct, source)
        return float(accepted.mean()) if len(accepted) else 0.0
    require_depth(distinct, source)
    if source.total <= 0:
        return 0.0
    alive = alive_nodes(distinct, source)
    return float(source.count[1:][alive[1:]].sum() / source.total)


def connected_weight(
    nodes: Iterable[Formula],
    trie: PrefixTrie,
    accumulation: Accumulation = "degree1",
    *,
    step_size: int | None = None,
    parents: str = "all",
    relation: str | None = None,
) -> float:
    """The published objective: counts of the nodes, plus counts of what can come before them.

    With count(q) = number of anchors whose chain contains q (count(root) = 0) and Q = ``nodes``:

    * degree0: sum over q in Q of count(q);
    * degree1: sum over q in Q of (count(q) + sum over parents p of q of count(p));
    * total:   as degree1 with all ancestors of q in place of its parents.

    It over-counts: an anchor that reached q through a parent outside Q accepts nothing of q, yet is counted
    for q; and a parent's anchors are counted again for each of its children. So it is not a number of accepted
    drafts: its unit is "anchors, some of them counted several times". Nothing checks that Q is connected.

    Args:
        nodes: the chosen formulas Q.
        trie: where the counts come from.
        accumulation: see above.
        step_size: pairs that one denoising step adds, None when any number (see ``drafting.parents``).
        parents: "all" counts every parent that some chain contains, "chosen" only those in Q.
        relation: what a parent is, see :func:`drafting.parents.parent_edges`.

    Source: arXiv 2509.18085, calibration of the draft graph (Algorithm 2 and its accumulation ablation), as
    read in ``drafting.searches.published``.
    """
    ids = np.unique(trie.state_ids(set(nodes) - {ROOT}))
    ids = ids[ids > 0]
    if accumulation == "degree0":
        return float(trie.state_count[ids].sum())
    graph = parent_graph(trie, step_size, relation)
    inside = set(ids.tolist()) if parents == "chosen" else None
    return float(sum(ancestor_weight(graph, trie, q, accumulation, inside) for q in ids.tolist()))
