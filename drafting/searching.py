"""From recorded traces to a draft graph in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.provenance import search_provenance, trace_validity
from drafting.searches.methods import SearchInput, find_graphs
from drafting.searches.result import check_budget
from drafting.trie import PrefixTrie
from verify.policies.specification import step_sizes

if TYPE_CHECKING:
    from calibrate.traces.table import Traces


class NothingToDraftError(ValueError):
    """Traces in which no draft was ever possible."""


def search(traces: Traces, method: str = "exact", budget: int = 10, *, time_limit: float = 30.0) -> DraftGraph:
    """The draft graph of ``budget`` draft nodes that a method finds in recorded traces.

    The graph is annotated with the traces and carries what was found out about it: ``value`` (drafts accepted per
    anchor on these traces), ``bound`` (no graph of this budget is worth more on them) and ``gap``; ``save(path)``
    writes a graph file. Traces of *other* prompts say what it is really worth:
    ``graph.expected_accepted_length(other)``, or ``draftgraph evaluate``.

    Args:
        traces: of the search prompts, from ``calibrate.record`` or ``calibrate.read_traces``.
        method: a name of ``drafting.searches.methods``; "exact" and "greedy" are good choices (docs/search.md).
        budget: draft nodes, the root not counted. The graph has fewer when the traces hold no further candidates.
        time_limit: seconds for the proof of "exact", after greedy and the price sweep; a proof that was not finished
            shows as a gap above 0.

    Complexity: that of the method, and of one price sweep for the bound (docs/search.md has times).

    Raises:
        drafting.searches.methods.MethodError: no such method; the message lists those there are.
        NothingToDraftError: no draft was ever possible in these traces.
        ValueError: a negative budget, or traces of a rule that takes committed tokens back.

    >>> import tempfile
    >>> from calibrate import encode_for, load_checkpoint, load_prompt_set, record
    >>> from verify import DecodeConfig, make_policy
    >>> checkpoint = load_checkpoint("bundled")
    >>> prompts = encode_for(checkpoint, load_prompt_set("bundled", limit=2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     traces = record(checkpoint, prompts, make_policy("static:1"), DecodeConfig(), folder)
    >>> graph = search(traces, method="exact", budget=5)
    >>> graph.budget, graph.gap, graph.value == graph.bound
    (5, 0.0, True)
    """
    check_budget(budget)
    validity = trace_validity(traces.metadata)
    anchors = AnchorTable.from_traces(traces, max_depth=None)
    if anchors.n_anchors == 0:
        raise NothingToDraftError(
            "the traces hold no anchor (every block was complete after one step): there is nothing to draft"
        )
    trie = PrefixTrie.from_anchors(anchors)
    step_size = step_sizes(validity.policy)
    problem = SearchInput(trie, validity.block_length, step_size, time_limit)
    found = find_graphs(method, problem, [budget], certify=True)[budget]
    if budget and not found.nodes:
        raise NothingToDraftError(f"{method} found no draft node: no draft was ever possible under {validity.policy}")
    graph = DraftGraph.from_formulas(found.nodes, step_size).annotate(trie)
    provenance = search_provenance(
        traces.metadata, traces.trace_hash(), method, budget, traces.prompt_hashes(), chosen=found.chosen or None
    )
    graph.graph.update(search=found, validity=validity, provenance=provenance)
    return graph
