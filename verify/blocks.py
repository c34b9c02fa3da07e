"""Where blocks end: after a fixed number of positions, or where the model itself puts a delimiter (AdaBlock).

A *schedule* is asked once a block, with the distribution that the block's refresh forward gave of the positions that
the block may have. It goes with any unmasking policy. Without a schedule every block has ``L`` positions; under one
``L`` is the most that a block has: engines make their buffers for it, and no rank of a formula is above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from verify.files.strict_json import MAX_TEXT
from verify.policies.parameters import Number, Parameter, Whole, form_of, read_arguments, write_arguments


class ScheduleError(ValueError):
    """A schedule that cannot be read, or that does not fit the block length or the cache mode."""


class BlockSchedule(Protocol):
    """How many positions the blocks of a sequence have."""

    @property
    def spec(self) -> str:
        """The text that makes this very schedule again, for one block length."""
        ...

    def reach(self, left: int) -> int:
        """The most positions of a block, of ``left`` that are left: 1 to ``L``; its refresh forward gives the
        distributions of so many.
        """
        ...

    def length(self, tokens: np.ndarray, confidences: np.ndarray) -> int:
        """The positions of a block, from 1 to ``len(tokens)``.

        Args:
            tokens: int [reach], the best token of every position, never the mask token.
            confidences: float64 [reach], their probabilities at temperature 1.
        """
        ...


@dataclass(frozen=True)
class TokenIds(Parameter):
    """Token ids joined by ``+``, for example ``198+271``; kept ascending, each once."""

    @property
    def range(self) -> str:
        return "token ids joined by '+', for example 198+271"

    def value(self, text: str) -> tuple[int, ...]:
        if not all(part.isascii() and part.isdigit() for part in text.split("+")):
            raise ValueError
        return tuple(sorted({int(part) for part in text.split("+")}))

    def write(self, value: tuple[int, ...]) -> str:
        return "+".join(map(str, value))


def _parameters(block_length: int) -> tuple[Parameter, ...]:
    return (
        Number("tau"),
        TokenIds("delimiters"),
        Whole("default", default=block_length),
        Whole("window", default=block_length),
    )


@dataclass(frozen=True)
class AdaBlock:
    """The block ends with the likeliest delimiter of a window if its probability is at least ``tau``.

    AdaBlock-dLLM (arXiv 2509.26432), lgxi24/AdaBlock-dLLM at 491b20580ad90f6019f29e045f484b538581101a,
    llada/generate_adablock.py, lines 39-88. Of the first ``window`` positions, all masked when the block begins, those
    whose best token is a delimiter are looked at; of them the one with the highest probability ends the block, itself
    included, when that is >= ``tau``. Else the block has ``default`` positions. Both are cut by what is left of the
    sequence. There the window is a quarter of the generated length, and ``default`` may be larger than it.

    Where the source differs: it takes probabilities in the dtype of the logits, with the mask token among them (here
    float64 without it, as all scores), leaves the order of equal ones open (here the lower position), and at a
    temperature above 0 its LLaDA loop looks at the drawn tokens, its Dream loop at the best ones, as here.

    Attributes:
        block_length: the most positions that a block has, ``L``.
        tau: the least probability of a delimiter that ends a block.
        delimiters: their token ids, ascending.
        default: positions of a block without such a delimiter, ``L`` at most.
        window: positions that are searched, ``L`` at most.
    """

    block_length: int
    tau: float
    delimiters: tuple[int, ...]
    default: int
    window: int

    @property
    def spec(self) -> str:
        values = [self.tau, self.delimiters, self.default, self.window]
        return ":".join([NAME, *write_arguments(_parameters(self.block_length), values)])

    def reach(self, left: int) -> int:
        return min(left, max(self.default, self.window))

    def length(self, tokens: np.ndarray, confidences: np.ndarray) -> int:
        found = np.flatnonzero(np.isin(tokens[: self.window], self.delimiters))
        if len(found):
            best = int(found[np.argmax(confidences[found])])
            if confidences[best] >= self.tau:
                return best + 1
        return min(self.default, len(tokens))


@dataclass(frozen=True)
class RecordedBlocks:
    """The lengths that the blocks of a recorded sequence had, in order; nothing is decided again.

    Its text is for messages, and cannot be read.

    Attributes:
        lengths: of the blocks.
        positions: that were to be generated; where the recording stopped early, the last ones are no block's.
    """

    lengths: tuple[int, ...]
    positions: int

    @property
    def spec(self) -> str:
        return "recorded:" + "+".join(map(str, self.lengths))

    def reach(self, left: int) -> int:
        begin = self.positions - left
        return self.lengths[int(np.searchsorted(np.cumsum(self.lengths), begin, side="right"))]

    def length(self, tokens: np.ndarray, confidences: np.ndarray) -> int:
        return len(tokens)


#: The first word of an AdaBlock schedule.
NAME = "adablock"

#: How a schedule is written.
SCHEDULE_FORM = NAME + form_of(_parameters(1))


def make_schedule(spec: str, block_length: int) -> AdaBlock:
    """Make a schedule from its text.

    Args:
        spec: ``adablock:tau:delimiters[:default[:window]]``; what is left out is ``block_length``.
        block_length: the most positions that a block has.

    Raises:
        ScheduleError: another name, a parameter that is missing, too many, unreadable or out of range, or a default or
            window above the block length.

    >>> make_schedule("adablock:0.30:271+198:16:32", 32).spec
    'adablock:0.3:198+271:16'
    """
    name, *texts = spec.split(":")
    if name != NAME:
        raise ScheduleError(
            f"unknown schedule {spec!r}; expected {SCHEDULE_FORM}, or nothing at all for blocks of one length"
        )
    try:
        tau, delimiters, default, window = read_arguments(_parameters(block_length), texts)
    except ValueError as error:
        raise ScheduleError(f"schedule {spec!r}: {error}; the form is {SCHEDULE_FORM}") from error
    for what, value in (("default", default), ("window", window)):
        if value > block_length:
            raise ScheduleError(
                f"schedule {spec!r} has a {what} of {value} positions, but the block length, which is the most that a "
                f"block has, is {block_length}; give a block length of at least {max(default, window)}"
            )
    schedule = AdaBlock(block_length, tau, delimiters, default, window)
    if len(schedule.spec) > MAX_TEXT:
        raise ScheduleError(
            f"a schedule with {len(delimiters)} delimiters is a text of {len(schedule.spec)} characters, expected at "
            f"most {MAX_TEXT}, which is what a graph file holds; give fewer ids"
        )
    return schedule


def check_length(schedule: BlockSchedule, length: int, reach: int) -> int:
    """``length`` of a block as ``schedule`` gave it, from 1 to ``reach``; a ScheduleError where it is not."""
    if not 1 <= length <= reach:
        raise ScheduleError(
            f"schedule {schedule.spec} gives a block {length} positions, expected 1 to {reach}, the positions that it "
            "was shown"
        )
    return int(length)
