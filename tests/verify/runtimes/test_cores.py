"""The numpy core decides every vector as the verifier does: those made by hand, and random ones."""

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from studies.conformance.vectors import random_cases
from tests.support.paths import DOCS
from verify.graph.buffers import pad_formulas
from verify.graph.formulas import formula
from verify.runtimes import numpy_core

FILE = DOCS / "test-vectors" / "logits.json"
BY_HAND = json.loads(FILE.read_text(encoding="utf-8"))["cases"]
#: Random cases that the suite tries; docs/runtime-core.md says what a run of 10,000 found.
RANDOM = int(os.environ.get("DRAFTGRAPH_VECTORS", "1000"))


class Numpy:
    """The numpy core as tests call it."""

    core = numpy_core

    def array(self, values: Any, kind: type = np.int64) -> Any:
        return np.array(values, dtype=kind)

    def plain(self, values: Any) -> Any:
        return values.tolist()


def rule_of(core: Any, rule: dict) -> Any:
    return core.Rule(rule["k"]) if rule["name"] == "static" else core.Rule(rule["least"], rule["tau"], rule["strict"])


def decided(library: Any, case: dict) -> dict:
    """What a core makes of a case, in the form of its ``expected``; a batch of two, the second one the same."""
    core, mask = library.core, case["mask_token"]
    rule = rule_of(core, case["rule"])
    formulas, lengths = map(library.array, pad_formulas([formula(node) for node in case["nodes"]]))
    state = library.array([case["state"]] * 2)
    ranks = core.rank(library.array([case["logits"]] * 2, np.float32), state, mask, case["top_j"])
    drafts, usable = core.fill(formulas, lengths, ranks, state, case["complete"])
    rows = np.array([case["rows"]] * 2, dtype=np.float32)
    rows[~np.array(library.plain(usable))] = np.nan  # must not be read
    rows = library.array(rows, np.float32)
    found = core.accept(rows, drafts, usable, mask, rule)
    following = library.plain(core.next_states(rows, drafts, usable, mask, rule))[1]
    path = [row for row in library.plain(found.path)[1] if row >= 0]
    assert library.plain(found.count) == [len(path) - 1] * 2 and library.plain(found.last) == [path[-1]] * 2
    states = [case["state"], *(following[row] for row in path)]
    commits = [
        [[position, token] for position, token in enumerate(after) if before[position] != token]
        for before, after in itertools.pairwise(states)
        if mask in before
    ]
    return {
        "order": library.plain(ranks.order)[1],
        "tokens": library.plain(ranks.tokens)[1],
        "usable": library.plain(usable)[1],
        "drafts": library.plain(drafts)[1],
        "path": path,
        "commits": commits,
        "state": library.plain(found.state)[1],
    }


LIBRARIES = [Numpy()]


@pytest.fixture(scope="module")
def random_ones() -> list[dict]:
    return list(random_cases(0, RANDOM))


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: type(library).__name__.lower())
@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: case["name"])
def test_a_case_made_by_hand(library: Any, case: dict) -> None:
    assert decided(library, case) == case["expected"]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: type(library).__name__.lower())
def test_random_cases(library: Any, random_ones: list[dict]) -> None:
    for case in random_ones:
        assert decided(library, case) == case["expected"], case


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
