"""Options of the kit for pytest: ``pytest -p studies.conformance.plugin --pyargs studies.conformance --policy ...``.

A ``conftest.py`` could not add them: pytest reads that of an installed package after it has read the command line.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--policy`` and ``--full``."""
    group = parser.getgroup("draftgraph", "conformance of unmasking policies")
    group.addoption(
        "--policy",
        action="append",
        dest="draftgraph_policies",
        metavar="SPEC",
        help="check this policy, for example mine:0.5; may be given several times (default: every registered rule)",
    )
    group.addoption(
        "--full",
        action="store_true",
        dest="draftgraph_full",
        help="every exact context with every drafter and batch, in place of a rotating part",
    )
