"""docs/test-vectors/logits.json: what the verifier makes of cases that begin at logits.

``python -m tests.verify.runtimes.test_vectors`` writes the file anew.
"""

import pytest

from studies.conformance.vectors import format_cases, is_decided, random_cases, verified
from tests.support.logit_cases import CASES
from tests.support.paths import DOCS

FILE = DOCS / "test-vectors" / "logits.json"


def test_the_file_is_what_the_verifier_makes() -> None:
    assert FILE.read_text(encoding="utf-8") == text()


def text() -> str:
    return format_cases([case | {"expected": verified(case)} for case in CASES])


def expected(part: str) -> dict:
    """What is expected of the only case whose name holds ``part``."""
    (found,) = [case for case in CASES if part in case["name"]]
    return verified(found)


def test_the_cases_show_what_they_say() -> None:
    """Literal answers, so that the verifier cannot be wrong in the way that the file is."""
    whole = expected("a chain is met as a whole")
    assert whole["order"] == [3, 1, 4, 5, -1, -1] and whole["tokens"][1] == [3, 1, 2]
    assert whole["path"] == [0, 1, 2, 3] and whole["state"] == [5, 3, 5, 1, 2, 5]
    assert whole["commits"] == [[[3, 1]], [[1, 3]], [[4, 2]], [[5, 5]]]
    assert expected("is reached by the first")["path"] == [0, 1, 4]
    assert expected("by the other one")["path"] == [0, 2, 4]
    assert expected("the lower position is the better rank")["order"] == [1, 3, 4, 5, -1, -1]
    assert expected("equal tokens")["tokens"][3] == [1, 2, 3]
    assert expected("16777217")["tokens"][3] == [2, 3, 1]
    assert expected("mask token is the best")["tokens"][5] == [5, 4, 1]
    assert expected("as float64")["order"] == [3, 1, 4, 5, -1, -1]
    assert expected("is enough for >=")["commits"][0] == [[1, 3], [3, 1]]
    assert expected("not enough for >")["commits"][0] == [[3, 1]]
    assert expected("reach tau = 1/3 for >=")["commits"][0] == [[1, 3], [3, 1]]
    assert expected("not reach tau = 1/3")["commits"][0] == [[3, 1]]
    assert expected("a rank beyond the masked")["usable"] == [True, True, False, False, True]
    assert expected("beyond those that are kept")["usable"] == [True, False, True, False, True]
    assert expected("a vocabulary of four")["usable"] == [True, True, False]
    assert expected("two masks are left: drafts")["usable"] == [True, True, True, True, False, False]
    assert expected("two masks are left, and")["path"] == [0, 1, 4]
    assert expected("one mask is left, and the draft")["path"] == [0, 1]
    assert expected("with another token than")["path"] == [0]
    assert expected("the anchor stays")["commits"] == [[]]
    waits = expected("not its own successor")
    assert waits["path"] == [0, 1] and waits["commits"] == [[[3, 1]], []]
    assert expected("more positions a step")["state"] == [5, 3, 5, 1, 2, 5]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_every_case_has_one_answer(case: dict) -> None:
    assert is_decided(case)


def test_random_cases_follow_from_the_seed_and_have_one_answer() -> None:
    cases = list(random_cases(3, 40))
    assert cases == list(random_cases(3, 40)) != list(random_cases(4, 40))
    assert all(is_decided(case) for case in cases)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
