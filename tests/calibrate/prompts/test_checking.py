"""Checkers: what counts as a valid answer, and which prompts have none."""

from __future__ import annotations

import pytest

from calibrate.prompts import checking
from calibrate.prompts.benchmarks import load_dataset_prompts
from calibrate.prompts.bundled import CHECKERS as BUNDLED
from calibrate.prompts.checking import CHECKERS, CheckError, checker_for
from calibrate.prompts.prompt import Prompt
from calibrate.prompts.source import load_prompt_set
from tests.calibrate.prompts.test_benchmarks import save


def prompt(answer: str | None, domain: str = "", program: tuple[str, str] | None = None) -> Prompt:
    return Prompt("p", "question", domain=domain, answer=answer, program=program)


@pytest.mark.parametrize(
    ("answer", "text", "valid"),
    [
        ("swap a b = b a \n last c d = d \n", " swap a b = b a\nlast  c d = d", True),
        ("swap a b = b a \n last c d = d \n", "swap a b = b a last c d = d", False),
        ("swap a b = b a \n", "swap a b = a b \n", False),
        ("x", "x y", False),
        ("x", "", False),
    ],
)
def test_exact_match_passes_over_spaces_and_nothing_else(answer: str, text: str, valid: bool) -> None:
    assert checker_for(prompt(answer))(prompt(answer), text) is valid


def test_reference_answers_of_the_bundled_prompts_are_valid_and_others_are_not() -> None:
    prompts = load_prompt_set("bundled/lists+code", "test", 8)
    for own, other in zip(prompts, prompts[2:], strict=False):
        assert own.answer and checker_for(own)(own, own.answer)
        assert not checker_for(own)(own, other.answer or "")


@pytest.mark.parametrize(
    ("answer", "text", "valid"),
    [
        ("1234", "It is 7 and so 1,234.", True),
        ("18", "So she has \\boxed{18}.", True),
        ("18", "That makes $18.00", True),
        ("-3", "from 5 to -3", True),
        ("18", "18 apples, no: 19", False),
        ("18", "eighteen", False),
        ("0.5", "half, .5", True),
    ],
)
def test_the_last_number(answer: str, text: str, valid: bool) -> None:
    own = prompt(answer, "gsm8k")
    assert checker_for(own)(own, text) is valid


@pytest.mark.parametrize(
    ("answer", "text", "valid"),
    [
        ("\\frac{1}{2}", "First \\boxed{3}, then $\\boxed{\\dfrac{1}{2}}$.", True),
        ("\\left(3, \\frac{\\pi}{2}\\right)", "\\boxed{(3,\\frac{\\pi}{2})}", True),
        ("\\frac{1}{2}", "\\boxed{0.5}", False),
        ("3", "the answer is 3", False),
        ("3", "\\boxed{3", False),
        ("\\leftarrow", "\\boxed{arrow}", False),
    ],
)
def test_the_last_box(answer: str, text: str, valid: bool) -> None:
    own = prompt(answer, "math500")
    assert checker_for(own)(own, text) is valid


def test_a_task_may_bring_its_own_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKERS, "shuffle", lambda prompt, text: sorted(text.split()) == ["a", "b"])
    own = prompt(None, "shuffle")
    assert checker_for(own)(own, "b a") and not checker_for(own)(own, "b b")


def test_nothing_is_claimed_where_nothing_can_be_checked() -> None:
    with pytest.raises(CheckError, match="no checker for their domain and no reference answer"):
        checker_for(prompt(None, "poems"))
    with pytest.raises(CheckError, match="answers to mbpp are programs, which run only with --run-code"):
        checker_for(prompt("code", "mbpp", ("", "")))
    with pytest.raises(CheckError, match="no tests in this copy of humaneval"):
        checker_for(prompt("code", "humaneval"), run_code=True)


HEAD = 'def double(x):\n    """Twice x."""\n'
TESTS = (HEAD, "def check(f):\n    assert f(2) == 4\ncheck(double)")


@pytest.mark.parametrize(
    ("domain", "program", "text", "code"),
    [
        ("humaneval", TESTS, "    return 2 * x\n\ndef other():\n    boom", HEAD + "    return 2 * x\n"),
        ("humaneval", TESTS, "Sure:\n```python\ndef double(x):\n    return 2 * x\n```\nDone.",
         HEAD + "def double(x):\n    return 2 * x\n"),
        ("mbpp", ("import math\n", "assert f(1)"), "def f(x):\n    return x\n[DONE]\nmore",
         "import math\ndef f(x):\n    return x\n"),
    ],
)  # fmt: skip
def test_the_program_of_an_answer(
    monkeypatch: pytest.MonkeyPatch, domain: str, program: tuple[str, str], text: str, code: str
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(checking, "passes", lambda source: ran.append(source) or True)
    own = prompt("code", domain, program)
    assert checker_for(own, run_code=True)(own, text)
    assert ran == [f"{code}\n\n{program[1]}\n"]


def test_a_right_and_a_wrong_program_run() -> None:
    own = prompt("code", "humaneval", TESTS)
    check = checker_for(own, run_code=True)
    assert check(own, "    return 2 * x\n")
    assert not check(own, "    return 3 * x\n")


def test_benchmarks_bring_the_tests_of_their_rows(tmp_path) -> None:
    found = load_dataset_prompts(save(tmp_path / "mbpp", "mbpp"), "test")[0]
    assert found.program == ("\n", "\n".join(f"assert f({k}) == {found.id.rpartition('/')[2]}" for k in range(4)))
    bare = load_dataset_prompts(save(tmp_path / "humaneval", "humaneval"), "test")[0]
    assert bare.program is None  # this copy has no column of tests


def test_bundled_domains_have_rules_of_their_own_where_there_is_no_reference_answer() -> None:
    text = "lines : shuffle a b \n"
    assert checker_for(Prompt("1", text, domain="lines", answer="x")).__name__ == "exact_match"
    assert checker_for(Prompt("1", text, domain="lines")) is BUNDLED["lines"]
    with pytest.raises(CheckError, match="no checker for their domain and no reference answer"):
        checker_for(Prompt("1", tokens=(1, 2), domain="lines"))
