"""Draft graphs as models: chains, the prefix trie, the networkx DAG, values, searches, replay. No torch.

The public names are imported on first use (PEP 562).
"""

from importlib import import_module
from typing import Any

# public name -> the module that defines it
_HOME = {
    "AnchorTable": "drafting.anchors",
    "DepthError": "drafting.values",
    "DraftGraph": "drafting.graph",
    "DraftGraphError": "drafting.graph",
    "ParentGraph": "drafting.parents",
    "PrefixTrie": "drafting.trie",
    "ReplayResult": "drafting.replay",
    "accepted_per_anchor": "drafting.values",
    "connected_weight": "drafting.values",
    "parent_graph": "drafting.parents",
    "path_value": "drafting.values",
}
# ``replay`` is left out: it names the module drafting.replay, which holds the function.

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'drafting' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
