"""The runtime core in numpy: rank, fill, match, walk, for schedulers and servers that hold logits as numpy arrays.

This file is meant to be copied: it imports numpy and nothing of this project. ``torch_core.py`` and ``c/draftgraph.h``
decide the same; ``docs/test-vectors/logits.json`` holds all of them to the verifier (docs/runtime-core.md).

At an anchor the state is known, and the logits of the forward that produced it::

    ranks = rank(logits, state, mask_token, top_j)
    drafts, usable = fill(buffers["formulas"], buffers["lengths"], ranks, state)
    rows = model(drafts)                                    # one forward over usable drafts; row 0 is the state itself
    found = accept(rows, drafts, usable, mask_token, rule)  # found.state is the next anchor
    logits = take(rows, found.last)                         # ... and these logits produced it

Shapes: ``B`` sequences, ``L`` positions of a block, ``V`` tokens, ``N`` nodes of the graph with the root first, ``S``
pairs of the largest formula, ``J`` vocabulary ranks. Nothing is changed in place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_LOWEST = np.iinfo(np.int64).min


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
    """

    order: np.ndarray
    masked: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray


class Accepted(NamedTuple):
    """What a forward led to.

    Attributes:
        path: int64 [B, N], the rows whose distributions were used, row 0 first; -1 behind them.
        accepted: int64 [B], accepted drafts: rows of the path without row 0.
        last: int64 [B], the last row of the path; its logits produced ``state``.
        state: int64 [B, L], the state reached, which is the next anchor, or the whole block.
    """

    path: np.ndarray
    accepted: np.ndarray
    last: np.ndarray
    state: np.ndarray


def rank(logits: np.ndarray, state: np.ndarray, mask_token: int, top_j: int) -> Ranks:
    """Rank the masked positions of ``state`` and, at each of them, the tokens.

    The mask token is left out before anything else. Logits are compared as float32. The probability of the best token
    is 1 / sum(exp(logit - best logit)), summed in float64: the order of the sum is free, so two positions tie for
    certain where their logits stand in the same order, and elsewhere up to the sum's last bits. Ties: the lower
    position, the lower token id.

    Args:
        logits: [B, L, V], of the distribution that produced the state; read at masked positions only.
        state: integers [B, L].
        mask_token: the model's.
        top_j: vocabulary ranks that are wanted; ``J`` is fewer where the vocabulary has no more.

    Raises:
        ValueError: shapes that do not fit each other.
        FloatingPointError: logits of a masked position hold NaN or +inf, or nothing above -inf.

    Complexity: O(n V) for ``n`` masked positions; 16 bytes of memory per logit of theirs.
    """
    if logits.ndim != 3 or logits.shape[:2] != state.shape:
        raise ValueError(f"logits of shape {logits.shape} and a state of {state.shape}, expected [B, L, V] and [B, L]")
    vocabulary = logits.shape[2]
    top_j = min(top_j, vocabulary - 1)
    where = np.asarray(state) == mask_token
    rows = logits[where].astype(np.float32) + np.float32(0)  # -0.0 becomes 0.0
    # Keys that are never equal: the float32 as an integer of the same order above, the token counted downwards below.
    bits = rows.view(np.int32)
    key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    key <<= 32
    key += np.arange(vocabulary - 1, -1, -1)
    key[:, mask_token] = _LOWEST
    key.partition(vocabulary - top_j, axis=1)
    token = vocabulary - 1 - (np.sort(key[:, vocabulary - top_j :], axis=1)[:, ::-1] & 0xFFFFFFFF)
    del key
    highest = np.take_along_axis(rows, token[:, :1], axis=1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        terms = rows - highest
        np.exp(terms, out=terms)
    terms[:, mask_token] = 0.0
    total = terms.sum(axis=1)
    if not (np.isfinite(highest[:, 0]) & np.isfinite(total)).all():
        raise FloatingPointError("logits hold NaN, +inf or only -inf at a masked position; check the model's dtype")
    tokens = np.full((*state.shape, top_j), -1, dtype=np.int64)
    confidence = np.full(state.shape, -1.0)
    tokens[where], confidence[where] = token, 1.0 / total
    masked = where.sum(axis=1)
    order = np.argsort(-confidence, axis=1, kind="stable")
    return Ranks(np.where(np.arange(state.shape[1]) < masked[:, None], order, -1), masked, tokens, confidence)


def fill(
    formulas: np.ndarray, lengths: np.ndarray, ranks: Ranks, state: np.ndarray, complete: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The draft blocks of a graph at an anchor.

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
    size, pairs = np.asarray(lengths)[None], np.asarray(formulas).astype(np.int64)
    masked = ranks.masked[:, None]
    usable = (size < masked + complete) & (pairs[:, :, 0].max(axis=1) <= masked)
    usable &= pairs[:, :, 1].max(axis=1) <= ranks.tokens.shape[2]
    sequence, node, pair = np.nonzero(usable[:, :, None] & (np.arange(pairs.shape[1]) < size[..., None]))
    i, j = pairs[node, pair, 0] - 1, pairs[node, pair, 1] - 1
    position = ranks.order[sequence, i]
    drafts = np.repeat(np.asarray(state, dtype=np.int64)[:, None], len(pairs), axis=1)
    drafts[sequence, node, position] = ranks.tokens[sequence, position, j]
    return drafts, usable


def commit(ranks: Ranks, state: np.ndarray, rule: Rule) -> np.ndarray:
    """The state after one denoising step, int64 [B, L]; a full state stays as it is."""
    count = np.full(len(state), rule.least)
    if rule.tau is not None:
        reached = ranks.confidence > rule.tau if rule.strict else ranks.confidence >= rule.tau
        count = np.maximum(count, (reached & (ranks.confidence >= 0)).sum(axis=1))
    sequence, place = np.nonzero(np.arange(state.shape[1]) < np.minimum(count, ranks.masked)[:, None])
    position = ranks.order[sequence, place]
    after = np.array(state, dtype=np.int64)
    after[sequence, position] = ranks.tokens[sequence, position, 0]
    return after


def next_states(logits: np.ndarray, drafts: np.ndarray, usable: np.ndarray, mask_token: int, rule: Rule) -> np.ndarray:
    """The state that follows each row under its own distribution, int64 [B, N, L].

    Args:
        logits: [B, N, L, V] of the forward over ``drafts``; rows that are not usable are not read.
        drafts, usable: as :func:`fill` gives them.
        mask_token, rule: the model's, the server's.

    Raises:
        FloatingPointError: see :func:`rank`.
    """
    after = drafts.copy()
    rows = drafts[usable]
    after[usable] = commit(rank(logits[usable], rows, mask_token, 1), rows, rule)
    return after


def match(drafts: np.ndarray, usable: np.ndarray, following: np.ndarray) -> np.ndarray:
    """The row that each row's next state is, int64 [B, N]: the lowest usable draft that equals it, else -1.

    Equal means the same tokens and the same masked positions. The root is no draft, and a step that commits nothing
    leads nowhere: its state is known already, but it is the anchor.

    Args:
        drafts, usable: as :func:`fill` gives them.
        following: as :func:`next_states` gives them.

    Complexity: O(B N^2 L).
    """
    equal = (following[:, :, None] == drafts[:, None]).all(axis=-1)
    equal &= usable[:, :, None] & usable[:, None] & (following != drafts).any(axis=-1)[:, :, None]
    equal[:, :, 0] = False
    return np.where(equal.any(axis=2), equal.argmax(axis=2), -1)


def walk(successor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Follow ``successor`` (int [B, N]) from row 0: ``path`` and ``accepted`` of :class:`Accepted`."""
    path = np.full(successor.shape, -1, dtype=np.int64)
    path[:, 0] = 0
    everyone = np.arange(len(successor))
    for step in range(1, successor.shape[1]):
        before = path[:, step - 1]
        path[:, step] = np.where(before >= 0, successor[everyone, before], -1)
    return path, (path >= 0).sum(axis=1) - 1


def accept(logits: np.ndarray, drafts: np.ndarray, usable: np.ndarray, mask_token: int, rule: Rule) -> Accepted:
    """Use the distributions of a forward as far as they reach; arguments as in :func:`next_states`."""
    following = next_states(logits, drafts, usable, mask_token, rule)
    path, accepted = walk(match(drafts, usable, following))
    last = take(path, accepted)
    return Accepted(path, accepted, last, take(following, last))


def take(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``values[b, index[b]]`` of every sequence ``b``."""
    return values[np.arange(len(index)), index]
