"""From logits to ranks: the one place where ties, the mask token and the score dtype are settled.

Scores are float64 probabilities computed from the logits as they come. In float32 a competent model's confidences
pile up at exactly 1.0, ties then depend on the last bit of the logits, and two forwards of different shape would
commit in different orders; in float64 the order survives until 1 - p falls under 1e-16.
"""

from __future__ import annotations

import numpy as np
import torch

from verify.ranked import RankedBlocks

#: Logits that are ranked at once; the temporaries of so many take up to 0.54 GB, whatever batch and vocabulary are.
RANKING_CHUNK = 1 << 25
#: The same on a CPU, where a few rows at a time stay in its caches: half the time at a vocabulary of 126,464.
CPU_CHUNK = 1 << 19


def gather_blocks(
    ranked: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    logits: torch.Tensor | None,
    unit: np.ndarray,
    offset: np.ndarray,
    blocks: int,
    length: int,
) -> RankedBlocks:
    """Put ranked rows into their places.

    Args:
        ranked: what :func:`rank_rows` gave for the rows.
        logits: the rows themselves, [n, V]; None keeps none.
        unit: int [n], the block that a row belongs to.
        offset: int [n], its offset there.
        blocks: how many blocks, ``B``.
        length: ``L``.
    """
    token, probability, entropies = ranked
    top_token = np.zeros((blocks, length, token.shape[1]), dtype=np.int32)
    top_probability = np.full(top_token.shape, np.nan)
    row_of = np.full((blocks, length), -1, dtype=np.int64)
    top_token[unit, offset], top_probability[unit, offset] = token, probability
    row_of[unit, offset] = np.arange(len(unit))
    entropy = None
    if entropies is not None:
        entropy = np.full((blocks, length), np.nan)
        entropy[unit, offset] = entropies
    return RankedBlocks(top_token, top_probability, logits, row_of, entropy)


def rows_at_once(device: str, vocabulary: int) -> int:
    """How many rows of logits are ranked at once on a ``device`` of this type; one more where one would be left."""
    return max(2, (min(RANKING_CHUNK, CPU_CHUNK) if device == "cpu" else RANKING_CHUNK) // vocabulary)


def rank_rows(
    logits: torch.Tensor, mask_token_id: int, top_j: int, entropies: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Rank the vocabulary of every row on its device; one transfer to the host, and it is the only wait for the device.

    Args:
        logits: [n, V], any floating dtype; left as they are.
        mask_token_id: excluded before the softmax, so that it is neither a token nor part of a denominator.
        top_j: how many vocabulary ranks to keep; fewer when the vocabulary has fewer tokens.
        entropies: whether the entropies are asked for; they cost one pass more.

    Returns:
        int32 [n, J] tokens in vocabulary-rank order, float64 [n, J] their probabilities, and float64 [n] the entropies
        of the rows in nats, the mask token left out (None where not asked for); on the host.

    Raises:
        FloatingPointError: a row holds NaN or +inf, or no finite logit; ranks of it would be arbitrary.

    Time is one pass for the order and one for the denominators, O(n V); memory beside the logits is bounded by a chunk.
    """
    top_j = min(top_j, logits.shape[-1] - 1)
    rows = rows_at_once(logits.device.type, logits.shape[1])
    lows = list(range(0, len(logits), rows))
    if len(lows) > 1 and len(logits) - lows[-1] == 1:  # torch may sum a row that comes alone in another order
        lows.pop()
    parts = [
        _rank_part(logits[low:high], mask_token_id, top_j, entropies)
        for low, high in zip(lows, [*lows[1:], len(logits)], strict=True)
    ]
    packed = (torch.cat(parts) if len(parts) > 1 else parts[0]).cpu().numpy()
    if not packed[:, -1].all():
        raise FloatingPointError("the model returned NaN, +inf or only -inf logits; check its weights and dtype")
    numbers = np.ascontiguousarray(packed[:, top_j:-1]).view(np.float64)
    return packed[:, :top_j].astype(np.int32), numbers[:, :top_j], numbers[:, top_j] if entropies else None


def _rank_part(logits: torch.Tensor, mask_token_id: int, top_j: int, entropies: bool) -> torch.Tensor:
    """int64 [n, 2 J + 1 (+ 1)], still on the device: tokens, the bits of their float64 probabilities (and of the row's
    entropy), 1 for a sound row."""
    top = _top_exactly if logits.dtype == torch.float64 else _top_by_key
    top_score, top_token = top(logits, mask_token_id, top_j)
    highest = top_score[:, :1]
    terms = logits.to(torch.float64, copy=True).sub_(highest).exp_()
    terms[:, mask_token_id] = 0.0
    total = terms.sum(dim=1, keepdim=True)
    # Shifted by the highest score first: exp(score - logsumexp) would round 1 - p to the last bit of the score itself,
    # 7e-15 at a logit of 40, and the order of confident positions would hang on it.
    probability = torch.exp(top_score - highest) / total
    # A NaN anywhere in a row reaches its denominator, an infinite or absent highest score is seen at once.
    sound = (torch.isfinite(highest) & torch.isfinite(total)).to(torch.int64)
    numbers = [probability]
    if entropies:
        numbers.append(torch.special.entr(terms.div_(total)).sum(dim=1, keepdim=True))
    return torch.cat([top_token, *(number.view(torch.int64) for number in numbers), sound], dim=1)


def _top_by_key(logits: torch.Tensor, mask_token_id: int, top_j: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``top_j`` highest logits of every row, equal ones by ascending id: float64 [n, J] and int64 [n, J].

    ``torch.topk`` leaves the order of equal scores open, also which of them it returns. So it is handed keys that are
    never equal: the float32 score as an integer of the same order in the high half, the token counted downwards in the
    low half. (An IEEE float's bits ascend with its value once those below the sign are flipped for negative ones.)
    """
    bits = (logits.to(torch.float32) + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 equal
    key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)
    last = logits.shape[1] - 1
    key.bitwise_left_shift_(32).add_(torch.arange(last, -1, -1, device=logits.device))
    key[:, mask_token_id] = torch.iinfo(torch.int64).min
    key = torch.topk(key, top_j, dim=1).values
    ordered = (key >> 32).to(torch.int32)
    score = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return score.to(torch.float64), last - (key & 0xFFFFFFFF)


def _top_exactly(logits: torch.Tensor, mask_token_id: int, top_j: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by a stable sort of all tokens: the plain way, for float64 logits and to test the other against."""
    scores = logits.to(torch.float64, copy=True)
    scores.masked_fill_(scores.isnan(), torch.inf)  # refused by the caller; a sort would put it anywhere
    scores.clamp_(min=torch.finfo(torch.float64).min)  # a token at -inf still ranks, before the mask token
    scores[:, mask_token_id] = -torch.inf
    value, index = torch.sort(scores, dim=1, descending=True, stable=True)
    value = value[:, :top_j]
    return value.masked_fill(value == torch.finfo(torch.float64).min, -torch.inf), index[:, :top_j]
