"""What a model is judged by: valid answers, calibrated confidence, likelihood. Prompts and texts are held-out ones.

Answers are decoded by the library's own loop. Confidence and likelihood come from forwards over rows that look like
decoding: earlier blocks clean, the current one partly masked.
"""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from calibrate.bundled import GENERATION_LENGTH
from calibrate.bundled.answers import GRAMMARS
from calibrate.bundled.grammar import bits
from calibrate.models.checkpoint import Checkpoint
from calibrate.prompts.bundled import CHECKERS
from calibrate.prompts.prompt import Prompt
from scripts.bundled_model.batches import IGNORE, BlockText, Masked, Row, bidirectional_row, causal_row, collate
from scripts.bundled_model.tasks import heldout
from scripts.bundled_model.tokenizer import MASK_ID, encode_symbols
from verify.decoding import DecodeConfig, decode_batch
from verify.observing import StepFact
from verify.policies.specification import make_policy

#: Attention kind -> the cache mode that answers are decoded with: those that the library chooses itself.
CACHES = {"bidirectional": "dual", "block_causal": "block_causal"}
RATIOS = (0.25, 0.5, 0.75, 1.0)
#: Bins of equal width for the calibration error (Guo et al., "On Calibration of Modern Neural Networks", 2017).
BINS = 15
_ROWS_AT_ONCE = 64


def examples(split: str, domain: str, number: int, seed: int = 0) -> list[Prompt]:
    """Return `number` prompts of a split with an answer drawn for each, none twice."""
    rows = heldout(split, number, seed, (domain,))
    return [Prompt(row["id"], row["prompt"], domain=domain, answer=row["answer"]) for row in rows]


@dataclass(frozen=True)
class Decoded:
    """Answers of one domain under one setting, per prompt [M]: validity, forwards, and steps of every full block."""

    valid: np.ndarray
    forwards: np.ndarray
    block_steps: tuple[tuple[int, ...], ...]

    @property
    def steps_per_full_block(self) -> float | None:
        """Mean over full blocks; None if there are none."""
        found = [steps for blocks in self.block_steps for steps in blocks]
        return sum(found) / len(found) if found else None


class _Steps:
    """Counts denoising steps per (prompt, block)."""

    def __init__(self) -> None:
        self.steps: dict[tuple[int, int], int] = {}

    def on_step(self, fact: StepFact) -> None:
        key = (fact.prompt_index, fact.block)
        self.steps[key] = self.steps.get(key, 0) + 1


def decode_domain(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], policy: str, kind: str, block_length: int, batch_size: int = 32
) -> Decoded:
    """Decode prompts of one domain plainly and check the answers.

    A full block lies in the answer with all of its positions: none is the prompt's, none holds an end token.
    """
    config = DecodeConfig(block_length, GENERATION_LENGTH, CACHES[kind], end_token_ids=checkpoint.end_token_ids)
    encoded = [encode_symbols(prompt.text or "") for prompt in prompts]
    watcher = _Steps()
    results = dict(
        decode_batch(
            checkpoint.denoiser,
            enumerate(encoded),
            make_policy(policy),
            config,
            batch_size=batch_size,
            observer=watcher,
        )
    )
    valid, forwards, block_steps = [], [], []
    for number, prompt in enumerate(prompts):
        result = results[number]
        ended = result.end < len(result.tokens)
        text = checkpoint.text(result.tokens[: result.end]) or ""
        valid.append(ended and CHECKERS[prompt.domain](prompt, text))
        forwards.append(result.forwards)
        start = 0 if kind == "block_causal" else len(encoded[number])
        first = -(-(len(encoded[number]) - start) // block_length)
        last = (len(encoded[number]) + result.end - start) // block_length
        offset = min(block for index, block in watcher.steps if index == number)
        here = (len(encoded[number]) - start) // block_length  # the block that decoding begins with
        block_steps.append(tuple(watcher.steps[number, block - here + offset] for block in range(first, last)))
    return Decoded(np.array(valid), np.array(forwards), tuple(block_steps))


@torch.no_grad()
def score(model: PreTrainedModel, rows: Iterable[Row]) -> list[Tensor]:
    """Predict the targets of every row.

    Returns:
        per row float64 [targets, 3]: the confidence (probability of the most probable token but the mask), 1 if that
        token is the target and else 0, and -log2 of the target's probability.
    """
    waiting, found = list(rows), list[Tensor]()
    order = sorted(range(len(waiting)), key=lambda number: len(waiting[number].tokens))
    for begin in range(0, len(order), _ROWS_AT_ONCE):
        numbers = order[begin : begin + _ROWS_AT_ONCE]
        batch = collate([waiting[number] for number in numbers], max(len(waiting[n].tokens) for n in numbers))
        bias = torch.zeros(batch.visible.shape, dtype=model.dtype, device=model.device)
        # A padding position may see nothing at all; the smallest finite number leaves its softmax defined.
        bias = bias.masked_fill_(~batch.visible.to(model.device), torch.finfo(model.dtype).min)[:, None]
        tokens, places = batch.tokens.to(model.device), batch.places.to(model.device)
        logits = model(input_ids=tokens, attention_mask=bias, position_ids=places).logits.float()
        logits[..., MASK_ID] = -torch.inf
        logs = logits.log_softmax(-1).cpu().double()
        for row, target in zip(logs, batch.targets, strict=True):
            chosen = target != IGNORE
            best, token = row[chosen].max(-1)
            truth = row[chosen].gather(1, target[chosen, None])[:, 0]
            found.append(torch.stack([best.exp(), (token == target[chosen]).double(), -truth / math.log(2)], 1))
    return [tensor for _, tensor in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]


def _row(text: BlockText, block: int, masked: Masked) -> Row:
    if text.kind == "bidirectional":
        return bidirectional_row(text, block, masked, whole=True)
    return causal_row(text, [block], [masked])


def ratio_rows(prompts: Sequence[Prompt], kind: str, block_length: int, ratio: float, seed: int) -> list[Row]:
    """Mask, in one random block of every text, the share `ratio` of the positions (rounded up).

    Only tokens of the text and its first end token are targets: the filling behind them says nothing.
    """
    rng, rows = random.Random(f"{seed}/{kind}/{ratio}"), []
    for prompt in prompts:
        text = _text(prompt, kind, block_length)
        block = rng.choice(text.blocks)
        free = text.free(block)
        chosen = set(rng.sample(free, math.ceil(ratio * len(free))))
        row = _row(text, block, [position in chosen for position in free])
        for index, place in enumerate(row.places):
            if place >= text.known:
                row.targets[index] = IGNORE
        rows.append(row)
    return rows


def _text(prompt: Prompt, kind: str, block_length: int) -> BlockText:
    assert prompt.text is not None and prompt.answer is not None
    return BlockText.of(encode_symbols(prompt.text), encode_symbols(prompt.answer), kind, block_length)


@dataclass(frozen=True)
class Reliability:
    """Confidence against the share that was right, in bins of equal width; empty bins have no place in it.

    Attributes:
        count, confidence, accuracy: per bin that holds a prediction: how many, their mean confidence, share right.
        error: the expected calibration error, the mean of |confidence - accuracy| over predictions.
    """

    count: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    error: float


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Bin predictions by confidence; both arrays [N]. A confidence on a bound belongs to the bin below it.

    Raises:
        ValueError: no prediction.
    """
    if not len(confidence):
        raise ValueError("no prediction to measure a calibration error of; give more texts")
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    kept = count > 0
    sure = np.bincount(place, confidence, bins)[kept] / count[kept]
    good = np.bincount(place, right, bins)[kept] / count[kept]
    error = float((count[kept] * np.abs(sure - good)).sum() / count.sum())
    return Reliability(tuple(count[kept].tolist()), tuple(sure.tolist()), tuple(good.tolist()), error)


def confidence(
    model: PreTrainedModel, prompts: Sequence[Prompt], kind: str, block_length: int, ratio: float, seed: int = 0
) -> Reliability:
    """Measure the calibration of confidences on masked positions at one mask ratio."""
    found = torch.cat(score(model, ratio_rows(prompts, kind, block_length, ratio, seed))).numpy()
    return reliability(found[:, 0], found[:, 1])


@dataclass(frozen=True)
class Likelihood:
    """Bits that the model and the grammar need for each text, and tokens with the end token; arrays [M]."""

    model: np.ndarray
    grammar: np.ndarray
    tokens: np.ndarray


def likelihood(
    model: PreTrainedModel, prompts: Sequence[Prompt], kind: str, block_length: int, seed: int | None = None
) -> Likelihood:
    """Measure the likelihood of texts by the chain rule: block after block, one position of a block at a time.

    From left to right, or with a `seed` in a random order within each block. Probabilities that fit together give the
    same expectation in any order; what the model loses in a random order tells how far its own do not. The filling
    behind the end token is predicted in a random order only (where it tells how long the text is).
    """
    rng, rows, owners = random.Random(seed), list[Row](), list[int]()
    for number, prompt in enumerate(prompts):
        text = _text(prompt, kind, block_length)
        for block in text.blocks:
            free = list(text.free(block))
            order = [place for place in free if place < text.known] if seed is None else rng.sample(free, len(free))
            hidden = set(free)
            for place in order:
                row = _row(text, block, [position in hidden for position in free])
                for index in range(len(row.targets)):
                    if row.places[index] != place:
                        row.targets[index] = IGNORE
                rows.append(row)
                owners.append(number)
                hidden.remove(place)
    found = np.zeros(len(prompts))
    for owner, scored in zip(owners, score(model, rows), strict=True):
        found[owner] += float(scored[:, 2].sum())
    grammars = [bits(GRAMMARS[p.domain](p.text or ""), (p.answer or "").split(" ")) for p in prompts]
    tokens = [len((p.answer or "").split(" ")) + 1 for p in prompts]
    return Likelihood(found, np.array(grammars, dtype=float), np.array(tokens))
