"""The kit under pytest: ``pytest --pyargs studies.conformance`` checks every registered rule (docs/conformance.md)."""

from __future__ import annotations

import pytest

from studies.conformance.suite import Case, cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for every check of every policy."""
    config = metafunc.config
    chosen = cases(config.getoption("draftgraph_policies", None), bool(config.getoption("draftgraph_full", False)))
    metafunc.parametrize("case", chosen, ids=str)


def test_conforms(case: Case) -> None:
    """One check of one policy."""
    case.run()
