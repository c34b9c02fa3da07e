"""Draft graphs as models: chains, the prefix trie, the networkx DAG, values, replay, searches. No torch.

The public names are imported on first use.
"""

from verify.lazy import public_names

# public name -> the module that defines it
_HOMES = {
    "AnchorTable": "drafting.anchors",
    "DepthError": "drafting.values",
    "DraftGraph": "drafting.graph",
    "DraftGraphError": "drafting.graph",
    "ParentGraph": "drafting.parents",
    "PrefixTrie": "drafting.trie",
    "ReplayResult": "drafting.replay",
    "StateReplay": "drafting.state_replay",
    "accepted_per_anchor": "drafting.values",
    "connected_weight": "drafting.values",
    "parent_graph": "drafting.parents",
    "path_value": "drafting.values",
    "replay_states": "drafting.state_replay",
    "search": "drafting.searching",
}
# ``replay`` is left out: it names the module drafting.replay, which holds the function.

__getattr__, __dir__, __all__ = public_names(__name__, _HOMES)
