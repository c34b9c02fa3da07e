"""The runtime: policies, the block decode loop, the graph file, lossless verification. torch and numpy only.

The public names are imported on first use (PEP 562), so that reading a graph file costs no import of torch.
"""

from importlib import import_module
from typing import Any

# public name -> the module that defines it
_HOME = {
    "Formula": "verify.graph.formulas",
    "FormulaError": "verify.graph.formulas",
    "ROOT": "verify.graph.formulas",
    "formula": "verify.graph.formulas",
    "format_formula": "verify.graph.formulas",
    "is_subset": "verify.graph.formulas",
    "GRAPH_FORMAT_VERSION": "verify.graph.file",
    "GraphFile": "verify.graph.file",
    "GraphFileError": "verify.graph.file",
    "Validity": "verify.graph.file",
    "check_graph": "verify.graph.file",
    "load_graph": "verify.graph.file",
    "save_graph": "verify.graph.file",
    "static_buffers": "verify.graph.buffers",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'verify' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
