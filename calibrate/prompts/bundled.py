"""Whether an answer to a bundled prompt is valid: one checker for each domain."""

from __future__ import annotations

from collections.abc import Callable

from calibrate.bundled.answers import GRAMMARS, is_valid
from calibrate.prompts.prompt import Prompt

Checker = Callable[[Prompt, str], bool]


def _checker(domain: str) -> Checker:
    def check(prompt: Prompt, answer: str) -> bool:
        if prompt.text is None:
            raise ValueError(f"prompt {prompt.id!r} is given as token ids; to check an answer its text is needed")
        return is_valid(domain, prompt.text, answer)

    return check


#: Domain -> its checker. It looks at the prompt's text alone, never at a reference answer, and raises
#: ``ValueError`` for a prompt without a text or of another domain.
CHECKERS: dict[str, Checker] = {domain: _checker(domain) for domain in GRAMMARS}
