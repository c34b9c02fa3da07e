"""Ranked distributions on the host, and the ranks that draft formulas are read against. torch is not loaded here.

How they come from logits, ties included, is settled in ``verify.ranking``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

#: Written into every graph file; a runtime that breaks ties otherwise must not use the graph.
TIE_RULE = "probability descending, then position ascending; token probability descending, then token id ascending"

#: Beyond these log-odds float64 does not tell p apart from 0 or 1 (1 - p is 2^-52 at 36).
LOG_ODDS_LIMIT = 36.0


@dataclass(frozen=True, eq=False)
class RankedBlocks:
    """The ranked distributions of ``B`` blocks of ``L`` rows, on the host.

    Attributes:
        top_token: int32 [B, L, J], vocabulary-rank order; never the mask token; 0 in rows that were not ranked.
        top_probability: float64 [B, L, J]; softmax without the mask token, temperature 1; NaN in rows not ranked.
        logits: [n, V] as the model gave them, still on its device; None where the policy does not read them, so that
            ranks that are kept hold no memory of the device.
        row_of: int [B, L], the row of ``logits`` that a position's distribution is, -1 where it was not ranked.
        entropy: float64 [B, L], entropies of whole distributions in nats, as ``top_probability``; None where the policy
            does not read them.
    """

    top_token: np.ndarray
    top_probability: np.ndarray
    logits: torch.Tensor | None
    row_of: np.ndarray
    entropy: np.ndarray | None = None

    @cached_property
    def log_odds(self) -> np.ndarray:
        """float64 [B, L], log p - log(1 - p) of the top token, within +-36; NaN in rows that were not ranked."""
        probability = self.top_probability[:, :, 0]
        with np.errstate(divide="ignore"):
            return np.clip(np.log(probability) - np.log1p(-probability), -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)

    def first(self, length: int) -> RankedBlocks:
        """The distributions of the first ``length`` offsets of every block; a view."""
        entropy = None if self.entropy is None else self.entropy[:, :length]
        return RankedBlocks(
            self.top_token[:, :length], self.top_probability[:, :length], self.logits, self.row_of[:, :length], entropy
        )

    def position_order(self, index: int, masked: np.ndarray) -> np.ndarray:
        """Masked offsets (int [m], ascending) reordered by position rank under distribution ``index``."""
        return masked[np.argsort(-self.top_probability[index, masked, 0], kind="stable")]

    def logits_of(self, index: int, offsets: np.ndarray) -> torch.Tensor:
        """Logits [m, V] of some ``offsets`` (int [m]) of block ``index``, on their device; costs a small transfer."""
        if self.logits is None:
            raise ValueError("no logits were kept; a policy that reads them says so in its `needs`")
        import torch

        return self.logits[torch.from_numpy(self.row_of[index, offsets]).to(self.logits.device)]


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
