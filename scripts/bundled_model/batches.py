"""Training batches that look like decoding.

Bidirectional rows (LLaDA): prompt, earlier blocks of the answer clean, the current block partly masked, and behind it
masked positions up to the generation length; everything sees everything.

Block-causal rows (SDAR): the text clean, and behind it a second, partly masked copy of some of its blocks. Blocks are
counted from position 0. A masked copy sees itself and the clean blocks before it, which is what decoding shows it, so
one row teaches several blocks (the layout of block diffusion, arXiv 2503.09573).

Only masked tokens are targets. End-of-text fills the rest of the block in which the answer ends and no more: if it were
trained over the whole generation, "the answer is over" would be the most confident guess of every fresh block, and
answers would collapse.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calibrate.bundled import GENERATION_LENGTH
from scripts.bundled_model.tasks import MAKERS, stream
from scripts.bundled_model.tokenizer import EOS_ID, MASK_ID, encode_symbols

#: Row counts are rounded up to these, so that a compiled model meets few shapes.
BUCKETS = (96, 128, 160, 192)
IGNORE = -100
#: Block lengths and how often each is drawn. A short block of a bidirectional model is nothing but another mask, while
#: a block-causal one sees less of the text.
BLOCK_LENGTHS = (32, 16, 8, 4)
SHARES = {"bidirectional": (0.8, 0.1, 0.05, 0.05), "block_causal": (0.55, 0.17, 0.14, 0.14)}
#: Masked copies of blocks in one block-causal row, in positions.
_COPIED = 64
_PADDING = np.iinfo(np.int32).max

#: Domain -> how often it is drawn, relative to the others.
Weights = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One training row before it is padded.

    Attributes:
        tokens: token ids.
        targets: ids to be predicted, `IGNORE` where nothing is.
        places: position of each token in the text (for the rotary embedding).
        blocks: block of each token; zeros in a bidirectional row.
        copies: 0 for the text itself, 1 for masked copies of its blocks.
    """

    tokens: list[int]
    targets: list[int]
    places: list[int]
    blocks: list[int]
    copies: list[int]

    def lists(self) -> tuple[list[int], ...]:
        """Return the five lists themselves."""
        return self.tokens, self.targets, self.places, self.blocks, self.copies


def noise(length: int, rng: random.Random, late: float = 0.0) -> list[bool]:
    """Say which of `length` positions are masked.

    Some blocks are masked completely. The others are either masked at random, at any ratio, or revealed from
    the left with some positions further on: what confident-first decoding of such text looks like. A share `late` of
    all shows the end of such decoding: all is known but for some positions of one short span, which depend on each
    other.
    """
    if late and rng.random() < late:
        return _late_noise(length, rng)
    draw = rng.random()
    if draw < 0.15:
        return [True] * length
    if draw < 0.5:
        ratio = rng.random()
        masked = [rng.random() < ratio for _ in range(length)]
    else:
        front = rng.randrange(length)
        sprinkle = rng.choice((0.0, 0.1, 0.3))
        masked = [k >= front and rng.random() >= sprinkle for k in range(length)]
    if not any(masked):
        masked[rng.randrange(length)] = True
    return masked


def _late_noise(length: int, rng: random.Random) -> list[bool]:
    ratio, begin = rng.random(), rng.randrange(length)
    span = range(begin, begin + rng.randint(2, 10))
    masked = [k in span and rng.random() < ratio for k in range(length)]
    if not any(masked):
        masked[begin] = True
    return masked


@dataclass(frozen=True)
class BlockText:
    """Prompt, answer and end-of-text, cut into blocks as an attention kind and a block length say.

    Attributes:
        ids: the tokens, filled with end-of-text up to the end of the last block.
        prompt: tokens of the prompt.
        known: tokens of prompt and answer with one end token; what is behind them is filling.
        kind: `bidirectional`, where blocks are counted from the end of the prompt, or `block_causal`, from position 0.
        block_length: positions of a block.
    """

    ids: list[int]
    prompt: int
    known: int
    kind: str
    block_length: int

    @classmethod
    def of(cls, prompt: list[int], answer: list[int], kind: str, block_length: int) -> "BlockText":
        start = 0 if kind == "block_causal" else len(prompt)
        known = len(prompt) + len(answer) + 1
        end = start - (start - known) // block_length * block_length
        ids = [*prompt, *answer, *([EOS_ID] * (end - known + 1))]
        return cls(ids, len(prompt), known, kind, block_length)

    @property
    def start(self) -> int:
        """Where block 0 begins."""
        return 0 if self.kind == "block_causal" else self.prompt

    @property
    def blocks(self) -> range:
        """The blocks that hold some of the answer."""
        first = (self.prompt - self.start) // self.block_length
        return range(first, (len(self.ids) - self.start) // self.block_length)

    def free(self, block: int) -> range:
        """The positions of a block that are not the prompt's."""
        begin = self.start + block * self.block_length
        return range(max(begin, self.prompt), begin + self.block_length)


Masked = Sequence[bool]


def bidirectional_row(text: BlockText, block: int, masked: Masked, whole: bool) -> Row:
    """Build the row in which `masked` of one block's free positions are to be predicted.

    With `whole` everything up to the generation length follows the block, masked; else the row ends with the block.
    """
    tokens, targets = _hidden(text, text.free(block), masked, 0)
    later = max(0, text.prompt + GENERATION_LENGTH - len(tokens)) if whole else 0
    size = len(tokens) + later
    return Row(tokens + [MASK_ID] * later, targets + [IGNORE] * later, list(range(size)), [0] * size, [0] * size)


def causal_row(text: BlockText, blocks: Sequence[int], masks: Sequence[Masked]) -> Row:
    """Build the row in which free positions of consecutive blocks are to be predicted, each block on its own."""
    length = text.block_length
    seen = blocks[-1] * length  # the last block sees the text before it; its own clean text is seen by nobody
    row = Row(text.ids[:seen], [IGNORE] * seen, list(range(seen)), [k // length for k in range(seen)], [0] * seen)
    for block, masked in zip(blocks, masks, strict=True):
        begin, free = block * length, text.free(block)
        tokens, targets = _hidden(text, free, masked, begin)
        copied = (tokens, targets, range(begin, begin + length), [block] * length, [1] * length)
        for whole, part in zip(row.lists(), copied, strict=True):
            whole.extend(part)
    return row


def _hidden(text: BlockText, free: range, masked: Masked, begin: int) -> tuple[list[int], list[int]]:
    """Return tokens and targets from `begin` to the end of the `free` positions, of which `masked` are masked."""
    tokens = text.ids[begin : free.stop]
    targets = [IGNORE] * len(tokens)
    for position, hidden in zip(free, masked, strict=True):
        if hidden:
            tokens[position - begin], targets[position - begin] = MASK_ID, text.ids[position]
    return tokens, targets


def make_row(
    prompt: list[int], answer: list[int], kind: str, block_length: int, rng: random.Random, late: float = 0.0
) -> Row:
    """Build one training row: one random block of the answer (bidirectional), or a run of blocks (block-causal)."""
    text = BlockText.of(prompt, answer, kind, block_length)
    if kind == "bidirectional":
        block = rng.choice(text.blocks)
        # Half of the rows end with the current block: it teaches the same at a third of the cost.
        return bidirectional_row(text, block, noise(block_length, rng, late), whole=rng.random() < 0.5)
    count = min(max(1, _COPIED // block_length), len(text.blocks))
    first = rng.randint(text.blocks[0], text.blocks[-1] - count + 1)
    blocks = range(first, first + count)
    return causal_row(text, blocks, [noise(len(text.free(block)), rng, late) for block in blocks])


@dataclass(frozen=True)
class Batch:
    """Rows of one length T: tokens, targets and places [B, T], visible [B, T, T] (query, key)."""

    tokens: Tensor
    targets: Tensor
    places: Tensor
    visible: Tensor


class BatchStream:
    """Endless batches of about `rows` positions, each of one bucket length.

    What it yields follows from `rows`, `seed`, `late` (see :func:`noise`) and the weights of every call; `state` and
    `load` carry it over to another process.
    """

    def __init__(self, rows: int, seed: int, late: float = 0.0) -> None:
        self.rows, self.late = rows, late
        self.rng = random.Random(seed)
        self.examples = {domain: stream(domain, "train", seed) for domain in MAKERS}
        self.waiting: dict[int, list[Row]] = {bucket: [] for bucket in BUCKETS}

    def draw(self, weights: Weights) -> Row:
        """Draw one row: domains by weight, attention kinds evenly, block length mostly the default."""
        rng = self.rng
        example = next(self.examples[rng.choices(list(weights), list(weights.values()))[0]])
        kind = rng.choice(tuple(SHARES))
        block_length = rng.choices(BLOCK_LENGTHS, SHARES[kind])[0]
        return make_row(
            encode_symbols(example.prompt), encode_symbols(example.answer), kind, block_length, rng, self.late
        )

    def next(self, weights: Weights) -> Batch:
        """Return the next batch that is full."""
        while True:
            row = self.draw(weights)
            bucket = next(size for size in BUCKETS if size >= len(row.tokens))
            waiting = self.waiting[bucket]
            waiting.append(row)
            if len(waiting) >= self.rows // bucket:
                self.waiting[bucket] = []
                return collate(waiting, bucket)

    def state(self) -> dict[str, Any]:
        """Return what a later process needs to go on: states of all generators, and rows that wait for a batch."""
        generators = [self.rng, *(g for s in self.examples.values() for g in (s.prompts, s.answers))]
        return {
            "generators": [generator.getstate() for generator in generators],
            "waiting": {bucket: [row.lists() for row in rows] for bucket, rows in self.waiting.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up the state of an earlier process."""
        generators = [self.rng, *(g for s in self.examples.values() for g in (s.prompts, s.answers))]
        for generator, saved in zip(generators, state["generators"], strict=True):
            generator.setstate(saved)
        self.waiting = {bucket: [Row(*row) for row in rows] for bucket, rows in state["waiting"].items()}


def collate(rows: list[Row], length: int) -> Batch:
    """Pad rows to `length`. A padding position sees text and is seen by nothing."""
    tokens = np.full((len(rows), length), EOS_ID, dtype=np.int64)
    targets = np.full((len(rows), length), IGNORE, dtype=np.int64)
    places = np.zeros((len(rows), length), dtype=np.int64)
    blocks = np.full((len(rows), length), _PADDING, dtype=np.int32)
    copies = np.ones((len(rows), length), dtype=np.int32)
    for index, row in enumerate(rows):
        for array, values in zip((tokens, targets, places, blocks, copies), row.lists(), strict=True):
            array[index, : len(values)] = values
    block, copy = torch.from_numpy(blocks), torch.from_numpy(copies)
    # The clean text of earlier blocks, and the own block as far as it is of the same copy.
    earlier = (block[:, None, :] < block[:, :, None]) & (copy == 0)[:, None, :]
    own = (block[:, None, :] == block[:, :, None]) & (copy[:, None, :] == copy[:, :, None])
    visible = (earlier | own) & (block != _PADDING)[:, None, :]
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(places), visible)
