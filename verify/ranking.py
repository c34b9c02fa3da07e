"""From logits to ranks: the one place where ties, the mask token and the score dtype are settled.

Scores are float64 probabilities computed from the logits as they come. In float32 a competent model's confidences
pile up at exactly 1.0, ties then depend on the last bit of the logits, and two forwards of different shape would
commit in different orders; in float64 the order survives until 1 - p falls under 1e-16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

#: Written into every graph file; a runtime that breaks ties otherwise must not use the graph.
TIE_RULE = "probability descending, then position ascending; token probability descending, then token id ascending"


@dataclass(frozen=True, eq=False)
class RankedBlocks:
    """The ranked distributions of ``B`` blocks of ``L`` rows, on the host.

    Attributes:
        top_token: int32 [B, L, J], vocabulary-rank order; never the mask token.
        top_probability: float64 [B, L, J]; softmax without the mask token, temperature 1.
        logits: [B, L, V] as the model gave them, still on its device, for policies that need them.
    """

    top_token: np.ndarray
    top_probability: np.ndarray
    logits: torch.Tensor

    def position_order(self, index: int, masked: np.ndarray) -> np.ndarray:
        """Masked offsets (int [m], ascending) reordered by position rank under distribution ``index``."""
        return masked[np.argsort(-self.top_probability[index, masked, 0], kind="stable")]


def rank_logits(logits: torch.Tensor, mask_token_id: int, top_j: int) -> RankedBlocks:
    """Rank the vocabulary of every row; one transfer to the host.

    Args:
        logits: [B, L, V], any floating dtype.
        mask_token_id: excluded before the softmax, so that it is neither a token nor part of a denominator.
        top_j: how many vocabulary ranks to keep; fewer when the vocabulary has fewer tokens.

    Raises:
        FloatingPointError: a row holds NaN or +inf, or no finite logit; ranks of it would be arbitrary.
    """
    scores = logits.to(torch.float64, copy=True)
    scores[..., mask_token_id] = -torch.inf
    top_j = min(top_j, scores.shape[-1] - 1)
    highest = scores.amax(dim=-1, keepdim=True)
    if not bool(torch.isfinite(highest).all()):
        raise FloatingPointError("the model returned NaN, +inf or only -inf logits; check its weights and dtype")
    # A token at -inf has probability 0 but still a rank, before the mask token, which alone is none.
    scores.clamp_(min=torch.finfo(torch.float64).min)
    scores[..., mask_token_id] = -torch.inf
    top_score, top_token = _stable_top(scores, top_j)
    # Shifted by the highest score first: exp(score - logsumexp) would round 1 - p to the last bit of the score itself,
    # 7e-15 at a logit of 40, and the order of confident positions would hang on it.
    probability = torch.exp(top_score - highest) / torch.exp(scores - highest).sum(dim=-1, keepdim=True)
    return RankedBlocks(top_token.to(torch.int32).cpu().numpy(), probability.cpu().numpy(), logits)


def _stable_top(scores: torch.Tensor, top_j: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``top_j`` highest scores of the last axis, equal scores by ascending index.

    ``torch.topk`` leaves the order of equal scores open, also which of them it returns. So one more candidate is
    taken than asked for: when the last kept and the first dropped differ, the set is settled and a stable sort by
    (score, index) settles the order; the other rows (bf16 logits tie often) are sorted stably as a whole.
    """
    value, index = torch.topk(scores, top_j + 1, dim=-1)
    open_rows = value[..., top_j - 1] == value[..., top_j]
    value, index = value[..., :top_j], index[..., :top_j]
    if bool(open_rows.any()):
        sorted_value, sorted_index = torch.sort(scores[open_rows], dim=-1, descending=True, stable=True)
        value[open_rows], index[open_rows] = sorted_value[..., :top_j], sorted_index[..., :top_j]
    by_index = torch.argsort(index, dim=-1, stable=True)
    value, index = torch.gather(value, -1, by_index), torch.gather(index, -1, by_index)
    by_score = torch.argsort(value, dim=-1, descending=True, stable=True)
    return torch.gather(value, -1, by_score), torch.gather(index, -1, by_score)


@dataclass(frozen=True, eq=False)
class AnchorRanks:
    """Ranks at an anchor: what a draft formula is read against.

    Attributes:
        positions: int [m], offsets still masked in ``X``, position rank 1 first.
        tokens: int32 [m, J], row ``i - 1`` holds the tokens of position rank ``i``, vocabulary rank 1 first.
    """

    positions: np.ndarray
    tokens: np.ndarray


class Ranker(Protocol):
    """Where ranks come from; replaceable, and fed with every distribution of the last forward."""

    origin: str

    def rank(self, ranked: RankedBlocks, used: int, masked: np.ndarray) -> AnchorRanks:
        """Rank the ``masked`` offsets (int [m], ascending) of the state ``X``.

        Args:
            ranked: all distributions of the last forward (root first, then its drafts).
            used: the index in ``ranked`` of the distribution that produced ``X``.
            masked: offsets still masked in ``X``.
        """
        ...


class LaggedRanker:
    """Ranks under the distribution that produced ``X`` (the published choice)."""

    origin = "lagged"

    def rank(self, ranked: RankedBlocks, used: int, masked: np.ndarray) -> AnchorRanks:
        positions = ranked.position_order(used, masked)
        return AnchorRanks(positions, ranked.top_token[used, positions])
