"""Quoting what came from outside in a message: one line, of bounded length, and harmless on a terminal.

Names, ids and paths in files that strangers wrote may hold anything: a newline that fakes a second message, an escape
sequence that clears the screen, a megabyte of text. Whatever a message repeats of them goes through :func:`quoted`.
"""

from __future__ import annotations

import json
import re

#: Characters that a message repeats of one text.
SHOWN = 60
_PLAIN = re.compile(r"[\w.:/ -]{1,60}", re.ASCII)


def quoted(text: object, limit: int = SHOWN) -> str:
    """``str(text)`` between double quotes, in JSON's escapes, at most ``limit`` characters of it.

    Letters of every language stay as they are. Control characters, newlines, halves of surrogate pairs and marks that
    turn the direction of writing are escaped (``\\n``, ``\\u001b``), and so are quotes and backslashes. A longer text
    is cut and ends in ``...``.

    >>> quoted("a\\x1b[2Jb")
    '"a\\\\u001b[2Jb"'
    """
    whole = str(text)
    cut = whole if len(whole) <= limit else whole[: limit - 3] + "..."
    return '"' + "".join(_escaped(character) for character in cut) + '"'


def plain_or_quoted(text: str) -> str:
    """A name as it is where it is a short one of letters, digits and ``_ . : / -`` and spaces; any other one quoted."""
    return text if _PLAIN.fullmatch(text) else quoted(text)


def _escaped(character: str) -> str:
    plain = character.isprintable() and character not in '"\\'
    return character if plain else json.dumps(character)[1:-1]
