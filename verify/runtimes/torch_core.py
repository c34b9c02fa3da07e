"""The runtime core in torch: rank, fill, match, walk on the device, for servers.

This file is meant to be copied: it imports torch and nothing of this project. ``numpy_core.py`` and
``c/draftgraph.h`` decide the same; ``docs/test-vectors/logits.json`` holds all of them to the verifier
(docs/runtime-core.md), and the loop stands in the docstring of ``numpy_core.py``.

Nothing here waits for the device: no ``item``, no shape that depends on data. So all of it can be captured in a CUDA
graph or compiled with ``fullgraph=True``, and a server reads :class:`Accepted` when it reads its tokens.

Shapes: ``B`` sequences, ``L`` positions of a block, ``V`` tokens, ``N`` nodes of the graph with the root first, ``S``
pairs of the largest formula, ``J`` vocabulary ranks. Nothing is changed in place.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Rule(NamedTuple):
    """An unmasking rule: the ``least`` most confident positions, and every one whose confidence reaches ``tau``.

    ``Rule(k)`` is ``static:k``, ``Rule(1, tau)`` is ``threshold:tau``, ``Rule(1, tau, strict=True)`` is
    ``dynamic:tau``. With ``least`` 0 a step may commit nothing.

    Attributes:
        least: positions that are committed whatever their confidence, at least 0.
        tau: a float64, or None for no threshold.
        strict: whether a confidence must be greater than ``tau`` (``>``); else it may be equal (``>=``).
    """

    least: int
    tau: float | None = None
    strict: bool = False


class Ranks(NamedTuple):
    """The ranks of a distribution at the positions masked in a state.

    Attributes:
        order: int64 [B, L], masked positions by position rank, the most confident first; -1 behind them.
        masked: int64 [B], how many positions are masked.
        tokens: int64 [B, L, J], the best tokens of every position by vocabulary rank; -1 at positions not masked.
        confidence: float64 [B, L], the probability of the best token; -1 at positions not masked.
        sound: bool [B], False where a masked position's logits hold NaN or +inf, or nothing above -inf. Its ranks are
            arbitrary; look at it whenever the host waits anyhow, and give the sequence up.
    """

    order: torch.Tensor
    masked: torch.Tensor
    tokens: torch.Tensor
    confidence: torch.Tensor
    sound: torch.Tensor


class Accepted(NamedTuple):
    """What a forward led to.

    Attributes:
        path: int64 [B, N], the rows whose distributions were used, row 0 first; -1 behind them.
        accepted: int64 [B], accepted drafts: rows of the path without row 0.
        last: int64 [B], the last row of the path; its logits produced ``state``.
        state: int64 [B, L], the state reached, which is the next anchor, or the whole block.
        sound: bool [B], as :attr:`Ranks.sound`, of all usable rows.
    """

    path: torch.Tensor
    accepted: torch.Tensor
    last: torch.Tensor
    state: torch.Tensor
    sound: torch.Tensor


def rank(logits: torch.Tensor, state: torch.Tensor, mask_token: int, top_j: int) -> Ranks:
    """Rank the masked positions of ``state`` and, at each of them, the tokens.

    The mask token is left out before anything else. Logits are compared as float32. The probability of the best token
    is 1 / sum(exp(logit - best logit)), summed in float64: the order of the sum is free, so two positions tie for
    certain where their logits stand in the same order, and elsewhere up to the sum's last bits. Ties: the lower
    position, the lower token id.

    Args:
        logits: [B, L, V], of the distribution that produced the state; what stands at other positions does not matter.
        state: integers [B, L].
        mask_token: the model's.
        top_j: vocabulary ranks that are wanted; ``J`` is fewer where the vocabulary has no more.

    Raises:
        ValueError: shapes that do not fit each other.

    Complexity: O(B L V), in one pass for the order and one for the sums; 16 bytes of memory per logit.
    """
    if logits.ndim != 3 or logits.shape[:2] != state.shape:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} and a state of {tuple(state.shape)}, expected [B, L, V] and [B, L]"
        )
    length, vocabulary = logits.shape[1:]
    top_j = min(top_j, vocabulary - 1)
    where = state == mask_token
    rows = logits.to(torch.float32) + 0.0  # -0.0 becomes 0.0
    # topk leaves the order of equal scores open, so the keys are never equal: the float32 as an integer of the same
    # order above, the token counted downwards below.
    token = torch.arange(vocabulary, device=logits.device)
    bits = rows.view(torch.int32)
    key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64).bitwise_left_shift_(32).add_(vocabulary - 1 - token)
    key.masked_fill_(token == mask_token, torch.iinfo(torch.int64).min)
    tokens = vocabulary - 1 - (torch.topk(key, top_j, dim=-1).values & 0xFFFFFFFF)
    del key
    highest = torch.gather(rows, 2, tokens[:, :, :1]).to(torch.float64)
    terms = rows.to(torch.float64).sub_(highest).exp_().masked_fill_(token == mask_token, 0.0)
    total = terms.sum(dim=-1)
    sound = (torch.isfinite(highest[:, :, 0]) & torch.isfinite(total)) | ~where
    confidence = (1.0 / total).masked_fill(~where, -1.0)
    masked = where.sum(dim=1)
    order = torch.sort(confidence, dim=1, descending=True, stable=True).indices
    order = order.masked_fill(torch.arange(length, device=logits.device) >= masked[:, None], -1)
    return Ranks(order, masked, tokens.masked_fill(~where[:, :, None], -1), confidence, sound.all(dim=1))


def fill(
    formulas: torch.Tensor, lengths: torch.Tensor, ranks: Ranks, state: torch.Tensor, complete: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The draft blocks of a graph at an anchor: two gathers and one scatter over padded formulas.

    Args:
        formulas: int [N, S, 2], (position rank, vocabulary rank) pairs from 1, padded with 0; row 0 is the root.
        lengths: int [N], pairs of each formula.
        ranks: of the distribution that produced ``state``.
        state: integers [B, L].
        complete: also drafts that fill the block. Nobody needs their distribution; a server that stores a finished
            block's keys in a forward of its own may adopt those of such a draft instead.

    Returns:
        int64 [B, N, L] and bool [B, N]: the drafts, and which of them are worth a row. Row 0 is the state itself, and
        so is every row that is not usable: it names a rank that is not there, or it fills the block.
    """
    batch, length, depth = ranks.tokens.shape
    nodes, pairs = formulas.shape[:2]
    i, j = formulas[:, :, 0].to(torch.int64), formulas[:, :, 1].to(torch.int64)
    masked = ranks.masked[:, None]
    usable = (lengths < masked + int(complete)) & (i.amax(dim=1) <= masked) & (j.amax(dim=1) <= depth)
    there = usable[:, :, None] & (torch.arange(pairs, device=state.device) < lengths[:, None])  # [B, N, S]
    i, j = (i - 1).clamp(0, length - 1).expand(batch, nodes, pairs), (j - 1).clamp(0, depth - 1)
    position = torch.gather(ranks.order, 1, i.reshape(batch, -1)).clamp(min=0)
    flat = position * depth + j.expand(batch, nodes, pairs).reshape(batch, -1)
    token = torch.gather(ranks.tokens.reshape(batch, -1), 1, flat).view(batch, nodes, pairs)
    # Pairs that are not there are written to a column behind the block, which is cut off.
    target = position.view(batch, nodes, pairs).masked_fill(~there, length)
    drafts = torch.nn.functional.pad(state.to(torch.int64), (0, 1))[:, None].expand(batch, nodes, length + 1)
    return drafts.scatter(2, target, token)[:, :, :length], usable


def commit(ranks: Ranks, state: torch.Tensor, rule: Rule) -> torch.Tensor:
    """The state after one denoising step, int64 [B, L]; a full state stays as it is."""
    count = torch.full_like(ranks.masked, rule.least)
    if rule.tau is not None:
        reached = ranks.confidence > rule.tau if rule.strict else ranks.confidence >= rule.tau
        count = torch.maximum(count, (reached & (ranks.confidence >= 0)).sum(dim=1))
    length = state.shape[1]
    taken = torch.arange(length, device=state.device) < torch.minimum(count, ranks.masked)[:, None]
    target = ranks.order.masked_fill(~taken, length)
    token = torch.gather(ranks.tokens[:, :, 0], 1, ranks.order.clamp(min=0))
    return torch.nn.functional.pad(state.to(torch.int64), (0, 1)).scatter(1, target, token)[:, :length]


def next_states(
    logits: torch.Tensor, drafts: torch.Tensor, usable: torch.Tensor, mask_token: int, rule: Rule
) -> tuple[torch.Tensor, torch.Tensor]:
    """The state that follows each row under its own distribution.

    Args:
        logits: [B, N, L, V] of the forward over ``drafts``; what stands in rows that are not usable does not matter.
        drafts, usable: as :func:`fill` gives them.
        mask_token, rule: the model's, the server's.

    Returns:
        int64 [B, N, L], a row that is not usable stays as it is; and bool [B], whether the logits of usable rows are
        sound.
    """
    rows = drafts.flatten(0, 1)
    ranks = rank(logits.flatten(0, 1), rows, mask_token, 1)
    after = torch.where(usable[:, :, None], commit(ranks, rows, rule).view_as(drafts), drafts)
    return after, (ranks.sound.view_as(usable) | ~usable).all(dim=1)


def match(drafts: torch.Tensor, usable: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """The row that each row's next state is, int64 [B, N]: the lowest usable draft that equals it, else -1.

    Equal means the same tokens and the same masked positions. The root is no draft, and a step that commits nothing
    leads nowhere: its state is known already, but it is the anchor.

    Args:
        drafts, usable: as :func:`fill` gives them.
        following: as :func:`next_states` gives them.

    Complexity: O(B N^2 L).
    """
    equal = (following[:, :, None] == drafts[:, None]).all(dim=-1)
    equal = equal & usable[:, :, None] & usable[:, None] & (following != drafts).any(dim=-1)[:, :, None]
    number = torch.arange(drafts.shape[1], device=drafts.device)
    lowest = torch.where(equal & (number > 0), number, len(number)).amin(dim=2)
    return lowest.masked_fill(lowest == len(number), -1)


def walk(successor: torch.Tensor, most: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Follow ``successor`` (int64 [B, N]) from row 0: ``path`` and ``accepted`` of :class:`Accepted`.

    ``most`` is the most drafts that a path can hold, ``N - 1`` when left out. Each draft on a path has more pairs than
    the one before, so the number of pairs of the largest formula (``S``) is enough; there are as many gathers.
    """
    nodes = successor.shape[1]
    at = torch.zeros_like(successor[:, 0])
    path = [at]
    for _ in range(nodes - 1 if most is None else min(most, nodes - 1)):
        at = torch.gather(successor, 1, at.clamp(min=0)[:, None])[:, 0].masked_fill(at < 0, -1)
        path.append(at)
    walked = torch.stack(path, dim=1)
    return torch.nn.functional.pad(walked, (0, nodes - len(path)), value=-1), (walked >= 0).sum(dim=1) - 1


def accept(
    logits: torch.Tensor,
    drafts: torch.Tensor,
    usable: torch.Tensor,
    mask_token: int,
    rule: Rule,
    most: int | None = None,
) -> Accepted:
    """Use the distributions of a forward as far as they reach; arguments as in :func:`next_states`, :func:`walk`."""
    following, sound = next_states(logits, drafts, usable, mask_token, rule)
    path, accepted = walk(match(drafts, usable, following), most)
    last = torch.gather(path, 1, accepted[:, None])[:, 0]
    return Accepted(path, accepted, last, take(following, last), sound)


def take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``values[b, index[b]]`` of every sequence ``b``."""
    return values[torch.arange(len(index), device=values.device), index]
