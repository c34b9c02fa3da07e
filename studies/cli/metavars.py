"""What stands for an option's value in ``--help``: PATH, N, LIST, MODEL, ..., and never the name of a Python type."""

from __future__ import annotations

import inspect
import typing
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape
from typer.core import TyperCommand

#: Options whose text is a list (see ``studies.cli.lists``).
LISTS = {"budgets", "methods", "policies", "drafts", "batch_size", "context_length", "sizes", "strengths"}


def metavar(name: str, hint: Any) -> str:
    """What stands for the value of the parameter ``name`` with the type ``hint``; empty for a switch."""
    kinds = {part for part in (*typing.get_args(hint), hint) if isinstance(part, type)} - {type(None)}
    kinds |= {part for outer in typing.get_args(hint) for part in typing.get_args(outer) if isinstance(part, type)}
    if bool in kinds:
        return ""
    if str in kinds:
        return "LIST" if name in LISTS else name.split("_")[-1].upper()
    if Path in kinds:
        return "PATH"
    return "N" if int in kinds else "NUMBER"


def reflowed(text: str) -> str:
    """Help in paragraphs, which the width of the terminal breaks; brackets are brackets, and not markup."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(escape(" ".join(paragraph.split())) for paragraph in paragraphs)


def _shown(words: str, ctx: Any) -> str:
    return words


def name_values(params: list[Any], hints: dict[str, Any]) -> list[Any]:
    """Give each parameter that has none its metavar."""
    for param in params:
        if param.metavar is None:
            is_option = param.param_type_name == "option"
            words = metavar(param.name, hints.get(param.name, bool))
            param.metavar = words if is_option else param.name.upper()
            if not is_option:  # an argument's metavar is its name; the column beside it would show a type
                param.display_type_rich = partial(_shown, words)
    return params


class PlainCommand(TyperCommand):
    """A command whose help names its values in words of this project."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help = reflowed(self.help or "")
        for param in self.params:
            param.help = reflowed(getattr(param, "help", None) or "")  # type: ignore[attr-defined]

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, each with its metavar."""
        function: Any = self.callback
        return name_values(super().get_params(ctx), typing.get_type_hints(inspect.unwrap(function)))
