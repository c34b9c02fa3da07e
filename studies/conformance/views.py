"""Views to ask a policy about: literal ones at the borders of rules, and such as the runtime makes from logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from studies.conformance.stage import MASK_ID
from verify.drafters.chain import expected_view
from verify.drafters.influence import Outlook
from verify.drafters.memory import KnownState
from verify.policies.contract import BlockView, Policy, PolicyError
from verify.policies.randomness import StepRandom
from verify.policies.sampling import entropy
from verify.ranked import RankedBlocks
from verify.ranking import gather_blocks, rank_rows

#: Tokens of a literal view, the mask token among them.
VOCABULARY = 64
BLOCK_LENGTH = 8
#: Vocabulary ranks of a view.
RANKS = 8


def rank_logits(logits: torch.Tensor, mask_token_id: int, top_j: int, entropies: bool = False) -> RankedBlocks:
    """Rank every row of whole blocks, ``logits`` [B, L, V]; arguments and errors as in :func:`rank_rows`."""
    blocks, length, vocabulary = logits.shape
    unit, offset = np.divmod(np.arange(blocks * length), length)
    rows = logits.reshape(-1, vocabulary)
    return gather_blocks(rank_rows(rows, mask_token_id, top_j, entropies), rows, unit, offset, blocks, length)


def view_of(
    confidences: Sequence[float],
    *,
    positions: Sequence[int] | None = None,
    tokens: Sequence[int] | None = None,
    seconds: Sequence[float] | None = None,
    entropies: Sequence[float] | None = None,
) -> BlockView:
    """A literal view, its rows in rank order as the runtime has them.

    Args:
        confidences: of the best token of every masked position, float64 and kept to the bit.
        positions: their offsets in the block, ascending; 0, 1, 2, ... when left out.
        tokens: the best tokens; 10, 11, 12, ... by offset when left out.
        seconds: probabilities of the second tokens; what is left is spread evenly when left out. The rest of a row is
            spread evenly too.
        entropies: what the rows' entropies are said to be, in nats; those of the rows when left out.
    """
    best = np.asarray(confidences, dtype=np.float64)
    offsets = np.arange(len(best)) if positions is None else np.asarray(positions)
    chosen = 10 + offsets if tokens is None else np.asarray(tokens)
    others = [token for token in range(VOCABULARY) if token != MASK_ID]
    probability = np.zeros((len(best), VOCABULARY))
    order = np.zeros((len(best), RANKS), dtype=np.int32)
    for row, (confidence, token) in enumerate(zip(best, chosen, strict=True)):
        behind = [other for other in others if other != token]
        left = 1.0 - confidence
        probability[row, behind] = left / len(behind)
        if seconds is not None:
            probability[row, behind] = (left - seconds[row]) / (len(behind) - 1)
            probability[row, behind[0]] = seconds[row]
        probability[row, token] = confidence
        order[row] = [token, *behind[: RANKS - 1]]
    stated = entropy(probability) if entropies is None else np.asarray(entropies, dtype=np.float64)
    rows = np.argsort(-best, kind="stable")
    with np.errstate(divide="ignore"):
        logits = np.log(probability)
    ranks = np.take_along_axis(probability, order.astype(np.int64), axis=1)
    return BlockView(offsets[rows], order[rows], ranks[rows], lambda: logits[rows], lambda: stated[rows])


def view_of_logits(logits: np.ndarray, positions: Sequence[int]) -> BlockView:
    """The view that the runtime makes of the logits of a whole block (float32 [L, V]), ``positions`` still masked."""
    ranked = rank_logits(torch.from_numpy(np.ascontiguousarray(logits))[None], MASK_ID, RANKS, entropies=True)
    return KnownState(np.zeros(len(logits), dtype=np.int64), ranked, 0).view(np.asarray(positions), MASK_ID)


def as_declared(view: BlockView, policy: Policy) -> BlockView:
    """What ``policy`` says that it reads of ``view``, and no more; the rest answers with a :class:`PolicyError`."""
    ranks = view.tokens[:, : policy.ranks], view.probabilities[:, : policy.ranks]
    logits = view.logits if policy.needs == "logits" else _undeclared("logits", policy)
    entropies = _undeclared("entropies", policy) if policy.needs == "ranks" else view.entropies
    return BlockView(view.positions, *ranks, logits, entropies)


def as_expected(view: BlockView) -> BlockView:
    """The view as a drafter has it that only expects the state: one vocabulary rank, no entropies and no logits."""
    length = int(view.positions.max()) + 1
    token, odds = np.zeros(length, dtype=np.int64), np.zeros(length)
    token[view.positions] = view.tokens[:, 0]
    with np.errstate(divide="ignore"):
        known = np.log(view.probabilities[:, 0]) - np.log1p(-view.probabilities[:, 0])
    odds[view.positions] = known
    return expected_view(Outlook(token, odds), view.positions)


def without(view: BlockView, positions: np.ndarray) -> BlockView | None:
    """The view after ``positions`` were committed, all else as it was; None where nothing is left."""
    keep = ~np.isin(view.positions, positions)
    if not keep.any():
        return None
    ranks = view.positions[keep], view.tokens[keep], view.probabilities[keep]
    return BlockView(*ranks, lambda: view.logits()[keep], lambda: view.entropies()[keep])


def _undeclared(what: str, policy: Policy) -> Any:
    def refuse() -> np.ndarray:
        raise PolicyError(f"policy {policy.spec} reads {what}, but its `needs` is {policy.needs!r}")

    return refuse


@dataclass(frozen=True, eq=False)
class Moment:
    """A moment at which a policy is asked.

    Attributes:
        name: what it is, for messages.
        view: the block.
        random: the noise.
    """

    name: str
    view: BlockView
    random: StepRandom

    def next(self, view: BlockView, name: str = "") -> Moment:
        """The moment one step later."""
        return replace(self, view=view, random=self.random.after(), name=name or self.name)


_NEAR_ONE = float(np.nextafter(1.0, 0.0))


def boundary_views() -> dict[str, BlockView]:
    """Views at the borders that every rule has, by name."""
    third = 1.0 / 3.0
    return {
        "one mask left, hardly sure": view_of([0.02], positions=[5]),
        "one mask left, certain": view_of([1.0], positions=[0]),
        "two masks left, a tie": view_of([0.5, 0.5], positions=[2, 6]),
        "two masks left, one certain": view_of([0.3, 1.0], positions=[3, 4]),
        "two masks left, both certain": view_of([1.0, 1.0], positions=[0, 7]),
        "two masks left, neither sure": view_of([0.04, 0.03], positions=[0, 1]),
        "a whole block, all tied": view_of([0.5] * BLOCK_LENGTH),
        "a whole block, nothing known": view_of([1.0 / (VOCABULARY - 1)] * BLOCK_LENGTH),
        "a whole block, all certain": view_of([1.0] * BLOCK_LENGTH),
        "a whole block, the last bit below certain": view_of([_NEAR_ONE, 1.0] * (BLOCK_LENGTH // 2)),
        "a whole block, sure from left to right": view_of(np.linspace(0.95, 0.1, BLOCK_LENGTH).tolist()),
        "a whole block, sure from right to left": view_of(np.linspace(0.1, 0.95, BLOCK_LENGTH).tolist()),
        "ties between two levels": view_of([0.9, 0.2, 0.9, 0.2, 0.9, 0.2]),
        "masks with gaps": view_of([0.8, 0.4, 0.95, 0.6], positions=[0, 2, 3, 7]),
        "two tokens tied in every row": view_of([third] * 3, seconds=[third] * 3),
        "only two tokens": view_of([0.5, 0.75], seconds=[0.5, 0.25]),
        "the same token everywhere": view_of([0.7, 0.6, 0.8], tokens=[9, 9, 9]),
    }


def masked_best_views() -> dict[str, tuple[BlockView, BlockView]]:
    """Pairs of views of the runtime that differ in one thing: in the first the mask token has the highest logits."""
    found = {}
    for name, positions in (("a whole block", list(range(BLOCK_LENGTH))), ("one mask left", [4])):
        logits = 2 * np.random.default_rng(len(positions)).normal(size=(BLOCK_LENGTH, VOCABULARY)).astype(np.float32)
        low = logits.copy()
        logits[:, MASK_ID], low[:, MASK_ID] = 50.0, -50.0
        found[name] = view_of_logits(logits, positions), view_of_logits(low, positions)
    return found


def random_logits(seed: int) -> Iterator[np.ndarray]:
    """Logits of one block as it is decoded, float32 [L, V]: half of what is there persists from step to step."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(BLOCK_LENGTH, VOCABULARY))
    while True:
        yield logits.astype(np.float32)
        logits = 0.8 * logits + 1.5 * rng.normal(size=logits.shape)
