"""All valid answers to a prompt of the bundled domains, as a grammar; no model and no reference answer is needed.

The domains ``stories`` and ``lines`` have many valid answers, ``lists`` and ``code`` have one.
"""

from __future__ import annotations

from collections.abc import Callable

from calibrate.bundled.grammar import Grammar, OneText, bits
from calibrate.bundled.lines import LineGrammar
from calibrate.bundled.rules import solve_code, solve_lists
from calibrate.bundled.stories import StoryGrammar

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
}


def answer_symbols(answer: str) -> list[str]:
    """The symbols of an answer up to its end token, if it has one."""
    symbols = answer.strip(" ").split(" ")
    return symbols[: symbols.index(END)] if END in symbols else symbols


def is_valid(domain: str, prompt: str, answer: str) -> bool:
    """Whether ``answer`` is a whole valid answer to ``prompt``; one that breaks off or goes on is not.

    The last line ends with its newline, as prompts and answers do here; a stripped answer breaks off.

    Complexity: O(symbols of the answer).

    Raises:
        ValueError: a prompt that is none of the domain.
    """
    return bits(GRAMMARS[domain](prompt), answer_symbols(answer)) is not None
