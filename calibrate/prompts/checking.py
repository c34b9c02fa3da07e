"""Is an answer valid? One checker per task, found by the domain of the prompt.

A checker is a function of the prompt and of the answer's text. A task whose answers are not unique (a sentence of a
grammar, a permutation) has one of its own in :data:`CHECKERS`; a prompt of any other domain is checked against its
reference answer, and without one, in a domain of the bundled prompts, by that domain's rules. Benchmarks have what
their usual harnesses do: GSM8K's last number, MATH-500's boxed answer, and tests that are run for HumanEval and MBPP.
The last are in :data:`CODE_CHECKERS` and are used only where the caller says that code of the model may run. A prompt
without any of these is never called valid or invalid: it has no checker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from calibrate.prompts.bundled import CHECKERS as BUNDLED
from calibrate.prompts.bundled import Checker
from calibrate.prompts.prompt import Prompt
from calibrate.prompts.running import passes


class CheckError(ValueError):
    """A prompt whose answers cannot be checked; the message says why, and what would mend it."""


def exact_match(prompt: Prompt, text: str) -> bool:
    """Whether ``text`` is the reference answer, line by line; how many spaces stand between words does not matter."""
    return prompt.answer is not None and _lines(text) == _lines(prompt.answer)


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().split("\n")]


_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def last_number(prompt: Prompt, text: str) -> bool:
    """Whether the last number in ``text`` equals that of the reference; commas between digits are passed over.

    As "flexible-extract" of lm-evaluation-harness for GSM8K.
    """
    found, expected = _last_number(text), _last_number(prompt.answer or "")
    return expected is not None and found == expected


def _last_number(text: str) -> Decimal | None:
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def boxed(prompt: Prompt, text: str) -> bool:
    """Whether the content of the last ``\\boxed{}`` in ``text`` is the reference, as written.

    White space, ``$``, ``\\left``, ``\\right``, thin spaces and a last full stop do not count, and ``\\dfrac`` and
    ``\\tfrac`` are ``\\frac``; beyond that nothing is simplified, so 0.5 is not 1/2. Without a box nothing matches.
    """
    found = _last_box(text)
    return found is not None and prompt.answer is not None and _plain_tex(found) == _plain_tex(prompt.answer)


def _last_box(text: str) -> str | None:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    start = text.index("{", start) + 1
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None


def _plain_tex(text: str) -> str:
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:left|right)(?![a-zA-Z])|\\[!,;: ]|\\?\$|\s", "", text)
    return text.rstrip(".")


_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
#: Where lm-evaluation-harness stops a completion: what follows is no longer part of the function.
_AFTER_A_FUNCTION = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def _code(text: str, ends: Iterable[str]) -> str:
    """The first fenced block of ``text``, or else all of it up to the first of ``ends``."""
    if fenced := _FENCE.search(text):
        return fenced[1]
    return text[: min((place for end in ends if (place := text.find(end)) >= 0), default=len(text))]


def _runs(prompt: Prompt, code: str) -> bool:
    before, behind = prompt.program or ("", "raise AssertionError")
    return passes(f"{before}{code}\n\n{behind}\n")


def mbpp_tests(prompt: Prompt, text: str) -> bool:
    """Whether the code in ``text``, up to ``[DONE]``, passes the tests of its row. Runs it."""
    return _runs(prompt, _code(text, ("[DONE]",)))


def humaneval_tests(prompt: Prompt, text: str) -> bool:
    """Whether the code in ``text``, behind the head of the function, passes the tests of its row. Runs it."""
    return _runs(prompt, _code(text, _AFTER_A_FUNCTION))


#: By domain: tasks whose valid answers are told by more than a comparison with the reference answer.
CHECKERS: dict[str, Checker] = {"gsm8k": last_number, "math500": boxed}

#: By domain: those that run code of the model.
CODE_CHECKERS: dict[str, Checker] = {"humaneval": humaneval_tests, "mbpp": mbpp_tests}


def checker_for(prompt: Prompt, *, run_code: bool = False) -> Checker:
    """What says whether an answer to ``prompt`` is valid.

    Args:
        prompt: its domain names the task.
        run_code: whether code that a model wrote may run here (:mod:`calibrate.prompts.running`).

    Raises:
        CheckError: the answers to this prompt cannot be checked.
    """
    if prompt.domain in CODE_CHECKERS:
        if prompt.program is None:
            raise CheckError(f"no tests in this copy of {prompt.domain}; take the data set with all its columns")
        if not run_code:
            raise CheckError(f"answers to {prompt.domain} are programs, which run only with --run-code")
        return CODE_CHECKERS[prompt.domain]
    if prompt.domain in CHECKERS:
        return CHECKERS[prompt.domain]
    if prompt.answer is None and prompt.text is not None and prompt.domain in BUNDLED:
        return BUNDLED[prompt.domain]
    if prompt.answer is None:
        raise CheckError("no checker for their domain and no reference answer; give each line an 'answer'")
    return exact_match
