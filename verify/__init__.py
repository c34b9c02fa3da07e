"""The runtime: policies, the block decode loop, the graph file, lossless verification. torch and numpy only.

The public names are imported on first use (PEP 562), so that reading a graph file costs no import of torch.
"""

from importlib import import_module
from typing import Any

# public name -> the module that defines it
_HOME = {
    "Formula": "verify.formulas",
    "FormulaError": "verify.formulas",
    "ROOT": "verify.formulas",
    "formula": "verify.formulas",
    "format_formula": "verify.formulas",
    "is_subset": "verify.formulas",
    "GRAPH_FORMAT_VERSION": "verify.graph_file",
    "GraphFile": "verify.graph_file",
    "GraphFileError": "verify.graph_file",
    "Validity": "verify.graph_file",
    "check_graph": "verify.graph_file",
    "load_graph": "verify.graph_file",
    "save_graph": "verify.graph_file",
    "static_buffers": "verify.buffers",
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
