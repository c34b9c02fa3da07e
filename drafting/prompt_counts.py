"""Counts per prompt: what every statement about other prompts is made of (see ``studies.statistics.intervals``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from drafting.anchors import AnchorTable
from drafting.replay import ReplayResult, replay
from verify.graph.formulas import Formula


class IntervalError(ValueError):
    """Prompts that no interval can be computed from."""


@dataclass(frozen=True, eq=False)
class PromptCounts:
    """What one graph costs, per prompt. ``M`` prompts, ascending.

    Attributes:
        prompt_indices: int32 [M], the prompts.
        plain, forwards: float64 [M], forward passes without and with the graph.
        accepted: float64 [M], accepted drafts summed over the prompt's anchors, visited or not.
        anchors: float64 [M], anchors of the prompt; a prompt may have none.

    Counts are whole numbers unless they are means over several graphs (see :meth:`mean`).
    """

    prompt_indices: np.ndarray
    plain: np.ndarray
    forwards: np.ndarray
    accepted: np.ndarray
    anchors: np.ndarray

    @classmethod
    def from_replay(cls, result: ReplayResult, anchors: AnchorTable) -> PromptCounts:
        """Counts of a replay; ``anchors`` is the table it was replayed on.

        Raises:
            IntervalError: the table is another one.
        """
        if len(result.accepted) != anchors.n_anchors or not np.array_equal(
            result.prompt_indices, np.unique(anchors.block_prompt)
        ):
            raise IntervalError(
                f"the replay saw {len(result.accepted)} anchors of {len(result.prompt_indices)} prompts, the table "
                "holds "
                f"{anchors.n_anchors} of {len(np.unique(anchors.block_prompt))}; give the table that was replayed"
            )
        row = np.searchsorted(result.prompt_indices, anchors.prompt_index)
        size = len(result.prompt_indices)
        return cls(
            prompt_indices=result.prompt_indices,
            plain=result.plain_per_prompt.astype(np.float64),
            forwards=result.forwards_per_prompt.astype(np.float64),
            accepted=np.bincount(row, weights=result.accepted, minlength=size),
            anchors=np.bincount(row, minlength=size).astype(np.float64),
        )

    @classmethod
    def of(cls, nodes: Iterable[Formula], anchors: AnchorTable) -> PromptCounts:
        """Replay ``nodes`` over ``anchors`` and count per prompt; raises what ``drafting.replay.replay`` raises."""
        return cls.from_replay(replay(nodes, anchors), anchors)

    @classmethod
    def mean(cls, parts: Iterable[PromptCounts]) -> PromptCounts:
        """The mean over several graphs on the same prompts: what a graph drawn from them is expected to cost.

        Raises:
            IntervalError: no graph, or other prompts.
        """
        every = list(parts)
        if not every:
            raise IntervalError("a mean needs the counts of at least one graph, got none")
        for other in every[1:]:
            check_paired(every[0], other)
        return cls(
            prompt_indices=every[0].prompt_indices,
            plain=every[0].plain,
            forwards=np.mean([part.forwards for part in every], axis=0),
            accepted=np.mean([part.accepted for part in every], axis=0),
            anchors=every[0].anchors,
        )

    @classmethod
    def concatenate(cls, parts: Iterable[PromptCounts]) -> PromptCounts:
        """Counts of disjoint prompts as one, for example the held-out parts of all folds.

        Raises:
            IntervalError: a prompt stands in two parts, or there is no part.
        """
        every = list(parts)
        if not every:
            raise IntervalError("no counts to concatenate")
        prompt_indices = np.concatenate([part.prompt_indices for part in every])
        order = np.argsort(prompt_indices, kind="stable")
        if len(np.unique(prompt_indices)) != len(prompt_indices):
            raise IntervalError("a prompt stands in two parts; the parts must be disjoint")
        columns = {
            name: np.concatenate([getattr(part, name) for part in every])[order]
            for name in ("plain", "forwards", "accepted", "anchors")
        }
        return cls(prompt_indices=prompt_indices[order], **columns)

    @property
    def prompts(self) -> int:
        return len(self.prompt_indices)

    @property
    def nfe_reduction(self) -> float:
        """Plain forwards over forwards, each summed over prompts. NaN without prompts."""
        return float(self.plain.sum() / self.forwards.sum()) if self.prompts else float("nan")

    @property
    def accepted_drafts(self) -> float:
        """Mean over all anchors: the path_value. 0.0 without any anchor."""
        return float(self.accepted.sum() / max(self.anchors.sum(), 1))


def check_paired(a: PromptCounts, b: PromptCounts) -> None:
    """Raise :class:`IntervalError` unless both graphs were replayed on the same decodes."""
    if not np.array_equal(a.prompt_indices, b.prompt_indices):
        raise IntervalError(
            f"a paired comparison needs the same prompts for both graphs, got {a.prompts} and {b.prompts} prompts, "
            f"{len(np.intersect1d(a.prompt_indices, b.prompt_indices))} of them in both; "
            "replay both on one trace folder"
        )
    if not (np.array_equal(a.plain, b.plain) and np.array_equal(a.anchors, b.anchors)):
        raise IntervalError(
            "a paired comparison needs the same plain decodes for both graphs, but their steps per prompt differ; "
            "replay both on one trace folder"
        )
