"""The conformance kit: whether an unmasking policy holds to the contract, for any policy (docs/conformance.md).

Checks are plain functions of a policy that raise :class:`Nonconformance`; none needs pytest. The public names are
imported on first use.
"""

from verify.lazy import public_names

# public name -> the module that defines it
_HOMES = {
    "Case": "studies.conformance.suite",
    "Nonconformance": "studies.conformance.failures",
    "cases": "studies.conformance.suite",
    "registered_specs": "studies.conformance.suite",
    "side_of": "studies.conformance.steps",
    "view_of": "studies.conformance.views",
}

__getattr__, __dir__, __all__ = public_names(__name__, _HOMES)
