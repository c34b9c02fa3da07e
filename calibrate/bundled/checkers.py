"""Whether an answer of the bundled model is valid: one checker for each domain, none of which needs a model.

A checker is given the prompt and the text of the answer. It looks at the prompt alone, never at a reference answer: the
domains ``stories`` and ``lines`` have many valid answers, the others have one.
"""

from __future__ import annotations

from collections.abc import Callable

from calibrate.bundled.grammar import Grammar, OneText, bits
from calibrate.bundled.lines import LineGrammar
from calibrate.bundled.rules import solve_code, solve_lists, solve_totals
from calibrate.bundled.stories import StoryGrammar
from calibrate.prompts.prompt import Prompt

Checker = Callable[[Prompt, str], bool]
#: The symbol that ends an answer.
END = "<|endoftext|>"


def _one_right_answer(solve: Callable[[str], str]) -> Callable[[str], Grammar]:
    return lambda prompt: OneText(tuple(solve(prompt).split(" ")))


#: Domain -> the grammar of all valid answers to a prompt's text.
GRAMMARS: dict[str, Callable[[str], Grammar]] = {
    "lists": _one_right_answer(solve_lists),
    "code": _one_right_answer(solve_code),
    "stories": StoryGrammar.of_prompt,
    "lines": LineGrammar.of_prompt,
    "totals": _one_right_answer(solve_totals),
}


def answer_symbols(answer: str) -> list[str]:
    """The symbols of an answer up to its end token, if it has one."""
    symbols = answer.strip(" ").split(" ")
    return symbols[: symbols.index(END)] if END in symbols else symbols


def is_valid(domain: str, prompt: Prompt, answer: str) -> bool:
    """Whether ``answer`` is a whole valid answer to ``prompt``; one that breaks off or goes on is not.

    Complexity: O(symbols of the answer).

    Raises:
        ValueError: a prompt without a text, or one that is none of the domain.
    """
    if prompt.text is None:
        raise ValueError(f"prompt {prompt.id!r} is given as token ids; to check an answer its text is needed")
    return bits(GRAMMARS[domain](prompt.text), answer_symbols(answer)) is not None


def _checker(domain: str) -> Checker:
    return lambda prompt, answer: is_valid(domain, prompt, answer)


#: Domain -> its checker.
CHECKERS: dict[str, Checker] = {domain: _checker(domain) for domain in GRAMMARS}
