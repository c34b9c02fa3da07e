"""What a prompt is, and the names of the prompt sets that come with splits."""

from __future__ import annotations

from dataclasses import dataclass

BUNDLED = "bundled"


DATASETS = "datasets:"


SPLITS = ("calibration", "validation", "test")


class PromptError(ValueError):
    """A prompt set that cannot be read, or a prompt that cannot be used."""


@dataclass(frozen=True)
class Prompt:
    """One prompt: ``text`` or ``tokens`` (or both), with the names it carries in its file.

    ``answer`` is a reference answer. ``program`` is what stands before and behind the code of an answer in a program
    that ends without an error where the code is right.
    """

    id: str
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    domain: str = ""
    answer: str | None = None
    split: str | None = None
    program: tuple[str, str] | None = None
