"""What decodes cost, prompt by prompt, however it was counted: from plain traces or from a log of evaluated states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class ReplayError(ValueError):
    """Replays that cannot be put together: of other prompts, of other decodes, or of none."""


@dataclass(frozen=True, eq=False)
class DecodeCounts:
    """What drafts cost on recorded decodes, prompt by prompt. ``M`` prompts, ascending.

    Attributes:
        prompt_indices: int32 [M], the prompts.
        plain_per_prompt: [M], forward passes of the recorded plain decode, one per denoising step.
        forwards_per_prompt: [M], forward passes with the drafts.
        tokens_per_prompt: [M], tokens committed; the same with and without drafts.
        visited_histogram: entry m counts the anchors at which a forward starts and accepts m drafts.
        refreshes_per_prompt: [M], refresh forwards; all others are step forwards, each at an anchor.
        widths_per_prompt: [M, W], entry ``w`` counts the step forwards that carried ``w`` blocks of rows beside the
            real one: 1 for a draft, 2 for a bridge, 1 for a finished block that is cached on the way.

    Counts are int64, and float64 in a mean over several graphs.
    """

    prompt_indices: np.ndarray
    plain_per_prompt: np.ndarray
    forwards_per_prompt: np.ndarray
    tokens_per_prompt: np.ndarray
    visited_histogram: np.ndarray
    refreshes_per_prompt: np.ndarray
    widths_per_prompt: np.ndarray

    @property
    def prompts(self) -> int:
        """``M``."""
        return len(self.prompt_indices)

    @property
    def forwards(self) -> Any:
        """Forward passes with drafts, all prompts: a whole number, and a float in a mean."""
        return self.forwards_per_prompt.sum().item()

    @property
    def plain_forwards(self) -> int:
        """Forward passes of plain decoding, all prompts."""
        return int(self.plain_per_prompt.sum())

    @property
    def nfe_reduction(self) -> float:
        """Plain forwards over forwards, each summed over prompts. NaN without prompts."""
        return self.plain_forwards / self.forwards if self.prompts else float("nan")

    @property
    def tokens_per_forward(self) -> float:
        """Tokens committed over forwards, each summed over prompts; refresh forwards count. NaN without prompts.

        What papers on speculative decoding compare (there also "mean accepted tokens", with the token that is
        certain counted in). Under ``static:1`` it is the nfe reduction.
        """
        return float(self.tokens_per_prompt.sum() / self.forwards) if self.prompts else float("nan")

    @property
    def accepted_drafts_visited(self) -> float:
        """Mean accepted drafts (the root excluded) over the anchors really visited. 0.0 without any anchor."""
        accepted = np.arange(len(self.visited_histogram)) @ self.visited_histogram
        return float(accepted / max(self.visited_histogram.sum(), 1))

    @property
    def drafted_blocks(self) -> float:
        """Blocks of rows beside the real one in the mean forward, refreshes included: what the drafts cost in rows."""
        blocks = self.widths_per_prompt.sum(axis=0) @ np.arange(self.widths_per_prompt.shape[1])
        return float(blocks / max(self.forwards, 1))

    @property
    def anchors_visited(self) -> np.ndarray:
        """[M], step forwards of each prompt: all but its refresh forwards."""
        return self.forwards_per_prompt - self.refreshes_per_prompt

    @property
    def accepted_visited(self) -> np.ndarray:
        """[M], drafts accepted at the anchors visited: the forward passes that they saved each prompt."""
        return self.plain_per_prompt - self.forwards_per_prompt

    def row(self) -> dict[str, Any]:
        """The totals, under the names that rows of results and the values of graph files have."""
        return {
            "prompts": self.prompts,
            "accepted_drafts_visited": self.accepted_drafts_visited,
            "forwards_plain": self.plain_forwards,
            "forwards_predicted": self.forwards,
            "nfe_reduction": self.nfe_reduction,
            "tokens_per_forward": self.tokens_per_forward,
            "drafted_blocks": self.drafted_blocks,
        }


def width_counts(place: np.ndarray, widths: np.ndarray, prompts: int) -> np.ndarray:
    """``widths_per_prompt`` of :class:`DecodeCounts` from single forwards.

    Args:
        place: int [F], the prompt of every step forward, from 0.
        widths: int [F], its blocks of rows beside the real one.
        prompts: ``M``.

    Returns:
        int64 [M, W].
    """
    columns = 1 + int(widths.max(initial=0))
    flat = np.bincount(place * columns + widths, minlength=prompts * columns)
    return flat.astype(np.int64).reshape(prompts, columns)


def sum_padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of arrays that differ in the length of their last axis."""
    return np.sum(pad_last(arrays), axis=0)


def pad_last(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``arrays`` with zeros at the end of the last axis, so that all are as long as the longest."""
    longest = max(array.shape[-1] for array in arrays)
    return [np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, longest - array.shape[-1])]) for array in arrays]


def check_paired(a: DecodeCounts, b: DecodeCounts) -> None:
    """Raise :class:`ReplayError` unless both were counted on the same decodes."""
    if not np.array_equal(a.prompt_indices, b.prompt_indices):
        raise ReplayError(
            f"a paired comparison needs the same prompts for both graphs, got {a.prompts} and {b.prompts} prompts, "
            f"{len(np.intersect1d(a.prompt_indices, b.prompt_indices))} of them in both; "
            "replay both on one trace folder"
        )
    if not (
        np.array_equal(a.plain_per_prompt, b.plain_per_prompt)
        and np.array_equal(a.tokens_per_prompt, b.tokens_per_prompt)
    ):
        raise ReplayError(
            "a paired comparison needs the same plain decodes for both graphs, but their steps per prompt differ; "
            "replay both on one trace folder"
        )
