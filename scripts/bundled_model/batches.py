"""Training batches that look like decoding.

A row is: prompt, earlier blocks of the answer clean, the current block partly masked, and behind it
 * bidirectional (LLaDA): masked positions up to the generation length, everything sees everything;
 * block-causal (SDAR): nothing; a row attends to its own and to earlier blocks, counted from position 0.
Only the masked tokens of the current block are targets. End-of-text fills the rest of the block in which the
answer ends and no more: if it were trained over the whole generation, "the answer is over" would be the most
confident guess of every fresh block, and answers would collapse.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch

from calibrate.bundled import BLOCK_LENGTH, DOMAINS, GENERATION_LENGTH
from scripts.bundled_model.tasks import DIGITS, stream
from scripts.bundled_model.tokenizer import EOS_ID, MASK_ID, encode_symbols

#: Row counts are rounded up to these, so that a compiled model meets few shapes.
BUCKETS = (64, 96, 128, 160)
IGNORE = -100
DIGIT_IDS = frozenset(encode_symbols(" ".join(DIGITS)))


@dataclass(frozen=True)
class Row:
    """One training row before it is padded: token ids, targets, block of each position (or zeros)."""

    tokens: list[int]
    targets: list[int]
    blocks: list[int]


def noise(length: int, rng: random.Random) -> list[bool]:
    """Say which of `length` positions are masked.

    Some blocks are masked completely. The others are either masked at random, at any ratio, or revealed from
    the left with some positions further on: what confident-first decoding of such text looks like.
    """
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


def make_row(
    prompt: list[int],
    answer: list[int],
    kind: str,
    block_length: int,
    rng: random.Random,
    digits_share: float = 0.0,
) -> Row:
    """Build one row for one random block of the answer.

    With probability `digits_share`, a block that holds digits has all of them masked and little else: they are
    few, each must be looked up in the prompt, and without this emphasis they are the last thing to be learned.
    """
    text = [*prompt, *answer, EOS_ID]
    start = 0 if kind == "block_causal" else len(prompt)
    first = (len(prompt) - start) // block_length
    last = (len(text) - 1 - start) // block_length
    begin = start + rng.randint(first, last) * block_length
    end = begin + block_length
    clean = text[:end] + [EOS_ID] * (end - len(text))
    free = range(max(begin, len(prompt)), end)
    tokens, targets = list(clean), [IGNORE] * end
    pattern = noise(len(free), rng)
    if any(clean[k] in DIGIT_IDS for k in free) and rng.random() < digits_share:
        pattern = [clean[k] in DIGIT_IDS or rng.random() < 0.15 for k in free]
    for position, masked in zip(free, pattern, strict=True):
        if masked:
            tokens[position], targets[position] = MASK_ID, clean[position]
    if kind == "block_causal":
        return Row(tokens, targets, [k // block_length for k in range(end)])
    # Half of the rows end with the current block: it teaches the same at a third of the cost.
    later = 0 if rng.random() < 0.5 else max(0, len(prompt) + GENERATION_LENGTH - end)
    return Row(tokens + [MASK_ID] * later, targets + [IGNORE] * later, [0] * (end + later))


class BatchStream:
    """Endless batches of about `rows` positions, each of one bucket length."""

    def __init__(
        self,
        rows: int,
        seed: int,
        code_share: float = 0.5,
        digits_share: float = 0.0,
        digit_arguments: bool = False,
    ) -> None:
        self.rows, self.code_share, self.digits_share = rows, code_share, digits_share
        self.rng = random.Random(seed)
        self.examples = {domain: stream(domain, "train", seed, digit_arguments) for domain in DOMAINS}
        self.waiting: dict[int, list[Row]] = {bucket: [] for bucket in BUCKETS}

    def draw(self) -> Row:
        """Draw one row: attention kinds evenly, block length mostly the default."""
        rng = self.rng
        example = next(self.examples["code" if rng.random() < self.code_share else "lists"])
        kind = rng.choice(("bidirectional", "block_causal"))
        lengths = (BLOCK_LENGTH, BLOCK_LENGTH // 2, BLOCK_LENGTH // 4)
        block_length = rng.choices(lengths, (0.86, 0.09, 0.05))[0]
        prompt, answer = encode_symbols(example.prompt), encode_symbols(example.answer)
        return make_row(prompt, answer, kind, block_length, rng, self.digits_share)

    def next(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return tokens [B, T], targets [B, T] and attention_mask [B, T, T]."""
        while True:
            row = self.draw()
            bucket = next(size for size in BUCKETS if size >= len(row.tokens))
            waiting = self.waiting[bucket]
            waiting.append(row)
            if len(waiting) == self.rows // bucket:
                self.waiting[bucket] = []
                return collate(waiting, bucket)


def collate(rows: list[Row], length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad rows to `length`. A padding position sees everything and is seen by nothing."""
    tokens = np.full((len(rows), length), EOS_ID, dtype=np.int64)
    targets = np.full((len(rows), length), IGNORE, dtype=np.int64)
    blocks = np.full((len(rows), length), np.iinfo(np.int32).max, dtype=np.int32)
    for index, row in enumerate(rows):
        tokens[index, : len(row.tokens)] = row.tokens
        targets[index, : len(row.tokens)] = row.targets
        blocks[index, : len(row.tokens)] = row.blocks
    order = torch.from_numpy(blocks)
    visible = order[:, None, :] <= order[:, :, None]
    visible &= (order != np.iinfo(np.int32).max)[:, None, :]
    return torch.from_numpy(tokens), torch.from_numpy(targets), visible
