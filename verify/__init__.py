"""The runtime: policies, the block decode loop, the graph file, lossless verification. torch and numpy only.

The public names are imported on first use, so that reading a graph file costs no import of torch.
"""

from verify.lazy import public_names

# public name -> the module that defines it
_HOMES = {
    "DecodeConfig": "verify.decoding",
    "DecodeResult": "verify.sequence",
    "DrafterFile": "verify.drafters.file",
    "DrafterFileError": "verify.drafters.file",
    "load_drafter": "verify.drafters.file",
    "save_drafter": "verify.drafters.file",
    "InformedDrafter": "verify.drafters.informed",
    "InformedSettings": "verify.drafters.settings",
    "decode": "verify.decoding",
    "Verifier": "verify.verifier",
    "ValidityMismatchError": "verify.verifier",
    "Formula": "verify.graph.formulas",
    "FormulaError": "verify.graph.formulas",
    "ROOT": "verify.graph.formulas",
    "formula": "verify.graph.formulas",
    "format_formula": "verify.graph.formulas",
    "is_subset": "verify.graph.formulas",
    "GRAPH_FORMAT_VERSION": "verify.graph.file",
    "GraphFile": "verify.graph.file",
    "GraphFileError": "verify.graph.file",
    "Validity": "verify.graph.validity",
    "check_graph": "verify.graph.file",
    "load_graph": "verify.graph.file",
    "save_graph": "verify.graph.file",
    "make_policy": "verify.policies.specification",
    "static_buffers": "verify.graph.buffers",
    "load_buffers": "verify.runtimes.buffers",
}

__getattr__, __dir__, __all__ = public_names(__name__, _HOMES)
