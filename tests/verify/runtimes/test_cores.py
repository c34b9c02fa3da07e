"""The numpy and the torch core decide every vector as the verifier does: those made by hand, and random ones."""

import json
import os
from collections.abc import Iterator

import pytest

from studies.conformance.cores import CORES, decided
from studies.conformance.vectors import random_cases
from tests.support.paths import DOCS

FILE = DOCS / "test-vectors" / "logits.json"
BY_HAND = json.loads(FILE.read_text(encoding="utf-8"))["cases"]
#: Random cases that the suite tries; docs/runtime-core.md says what a run of 10,000 found.
RANDOM = int(os.environ.get("DRAFTGRAPH_VECTORS", "1000"))


@pytest.fixture(scope="module")
def random_ones() -> list[dict]:
    return list(random_cases(0, RANDOM))


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: case["name"])
def test_a_case_made_by_hand(name: str, case: dict) -> None:
    assert decided(*CORES[name], case) == case["expected"]


@pytest.mark.parametrize("name", CORES)
def test_random_cases(name: str, random_ones: list[dict]) -> None:
    """Some seconds each: a mistake at a border shows in few of many cases."""
    for case in random_ones:
        assert decided(*CORES[name], case) == case["expected"], case


def walks(cases: list[dict]) -> Iterator[int]:
    return (len(case["expected"]["path"]) - 1 for case in cases)


def test_the_random_cases_are_worth_trying(random_ones: list[dict]) -> None:
    """Ties, unusable nodes, accepted drafts, complete blocks and idle steps are common enough to find a mistake."""
    accepted = list(walks(random_ones))
    assert sum(count >= 1 for count in accepted) > 0.2 * len(accepted)
    assert sum(count >= 2 for count in accepted) > 0.02 * len(accepted)
    for wanted in (
        lambda case: not all(case["expected"]["usable"]),
        lambda case: case["mask_token"] not in case["expected"]["state"],
        lambda case: case["complete"] and case["mask_token"] not in case["expected"]["state"],
        lambda case: [] in case["expected"]["commits"],
        lambda case: any(len(step) > 1 for step in case["expected"]["commits"]),
    ):
        assert sum(map(wanted, random_ones)) > 0.005 * len(random_ones)
