"""Where blocks lie in a sequence, and which cache modes there are, with what each one promises."""

from __future__ import annotations

from dataclasses import dataclass

from verify.blocks import BlockSchedule

CACHE_MODES = ("none", "prefix", "dual", "block_causal")
BACKENDS = ("packed", "expanded")


class LayoutError(ValueError):
    """A cache mode, back-end or length that does not fit."""


@dataclass(frozen=True)
class Exactness:
    """Whether speculation is lossless in exact arithmetic, against what, and why (docs/method.md)."""

    exact: bool
    reference: str
    reason: str


def exactness(cache: str, backend: str) -> Exactness:
    """The promise of a cache mode and draft back-end.

    Raises:
        LayoutError: unknown mode or back-end.
    """
    if backend not in BACKENDS:
        raise LayoutError(f"unknown back-end {backend!r}, expected one of {', '.join(BACKENDS)}")
    match cache, backend:
        case "block_causal", _:
            return Exactness(True, "plain block-causal decoding", "a block sees only itself and finished blocks")
        case "dual", _:
            return Exactness(True, "plain dual-cache decoding", "prefix and suffix are cached while a block is solved")
        case "prefix", "packed":
            return Exactness(
                False,
                "plain prefix-cache decoding",
                "the live suffix sees the real block, not the draft beside it",
            )
        case "prefix", "expanded":
            return Exactness(True, "plain prefix-cache decoding", "every draft carries its own copy of the suffix")
        case "none", "packed":
            return Exactness(
                False,
                "plain decoding without a cache",
                "prefix and suffix see the real block, not the draft beside it",
            )
        case "none", "expanded":
            return Exactness(True, "plain decoding without a cache", "every draft is a whole sequence of its own")
    raise LayoutError(f"unknown cache mode {cache!r}, expected one of {', '.join(CACHE_MODES)}")


@dataclass(frozen=True)
class SequenceLayout:
    """How ``prompt_length`` and ``generation_length`` become blocks.

    Bidirectional modes start the first block right after the prompt (LLaDA's alignment). Block-causal models count
    blocks from position 0, as their attention does, so the first generated block may begin with the tail of the
    prompt, already committed (SDAR's alignment), and the sequence is rounded up to whole blocks.

    Attributes:
        length: rows of the whole sequence.
        block_starts: first position of every block to decode; under a schedule of the first one alone, as the model
            says where it ends.
        block_length: positions per block; under a schedule the most that a block has.
        schedule: how many positions each block has; None where all have ``block_length``.
    """

    length: int
    block_starts: tuple[int, ...]
    block_length: int
    schedule: BlockSchedule | None = None

    @classmethod
    def make(
        cls,
        prompt_length: int,
        generation_length: int,
        block_length: int,
        cache: str,
        schedule: BlockSchedule | None = None,
    ) -> SequenceLayout:
        """Lay out a sequence.

        Raises:
            LayoutError: a length below 1, an empty prompt, an unknown cache mode, a schedule in block-causal mode, or
                (bidirectional modes without a schedule) a generation length that is no multiple of the block length.
        """
        if cache not in CACHE_MODES:
            raise LayoutError(f"unknown cache mode {cache!r}, expected one of {', '.join(CACHE_MODES)}")
        for name, value in (
            ("prompt length", prompt_length),
            ("generation length", generation_length),
            ("block length", block_length),
        ):
            if value < 1:
                raise LayoutError(f"the {name} is {value}, expected at least 1")
        if schedule is not None:
            if cache == "block_causal":
                raise LayoutError(
                    f"the schedule {schedule.spec} makes blocks of different lengths, but a block-causal model has the "
                    "blocks that it was trained with; give no schedule, or another cache mode for a bidirectional model"
                )
            return cls(prompt_length + generation_length, (prompt_length,), block_length, schedule)
        if cache == "block_causal":
            first = prompt_length // block_length * block_length
            length = -(-(prompt_length + generation_length) // block_length) * block_length
        else:
            if generation_length % block_length:
                raise LayoutError(
                    f"generation length {generation_length} is no multiple of block length {block_length}; "
                    f"use {-(-generation_length // block_length) * block_length}"
                )
            first, length = prompt_length, prompt_length + generation_length
        return cls(length, tuple(range(first, length, block_length)), block_length)

    def reach(self, start: int) -> int:
        """The most positions that the block at ``start`` may have."""
        return self.block_length if self.schedule is None else self.schedule.reach(self.length - start)

    def refresh_query_tokens(self, cache: str, start: int, cached: int) -> int:
        """Query tokens of the refresh forward of the block at ``start``, with ``cached`` rows cached before it."""
        return start + self.block_length - cached if cache == "block_causal" else self.length

    def step_query_tokens(
        self,
        cache: str,
        backend: str,
        start: int,
        drafts: int,
        bridges: int = 0,
        carried: int = 0,
        copying: bool = False,
        length: int | None = None,
    ) -> int:
        """Query tokens of a step forward of the block at ``start``.

        Args:
            cache, backend: as in :func:`exactness`.
            start: the block's first position.
            drafts: drafts beside the block.
            bridges: bridges beside it, two blocks each; in dual mode one block each, or one copy.
            carried: rows of a finished block that this forward caches too.
            copying: whether the bridge is a copy of the whole sequence.
            length: positions of the block; all that a block has when left out.
        """
        length = self.block_length if length is None else length
        if cache == "dual":
            return (1 + drafts) * length + (self.length if copying else bridges * length)
        live = {"none": self.length, "prefix": self.length - start}.get(cache, length) + carried
        if backend == "packed":
            return live + (drafts + 2 * bridges) * length
        return (1 + drafts + bridges) * (live + (length if bridges else 0))
