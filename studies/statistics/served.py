"""What served requests accepted, beside what the traces promised: the numbers of a watch, and its one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drafting.anchors import AnchorTable
from drafting.replay import node_visits, replay
from studies.statistics.drift import FALSE_ALARMS, HIGHER, Drift, DriftError, watch
from studies.statistics.intervals import Interval, PromptBootstrap
from verify.counting import AcceptanceCounts
from verify.graph.file import GraphFile
from verify.graph.formulas import format_formula

#: The splits of a graph file from which a promise is taken, the best first: prompts that no search saw.
SPLITS = ("test", "validation", "search")
#: Below this many reference prompts a drift must be large to be seen at all (docs/drift.md).
FEW_REFERENCES = 24


@dataclass(frozen=True, eq=False)
class Promise:
    """What a graph accepted on ``M`` reference prompts.

    Attributes:
        source: where the numbers are from, in words.
        anchors: int64 [M], anchors that a decode with the graph visits.
        accepted: int64 [M], drafts accepted at them.
        columns: float64 [C], the share of anchors at which each column of the counts is promised to be accepted; None
            where that is not known.
        all_anchors: whether ``columns`` are shares of all anchors, visited or not, as ``node_reach`` is.
    """

    source: str
    anchors: np.ndarray
    accepted: np.ndarray
    columns: np.ndarray | None = None
    all_anchors: bool = False

    @classmethod
    def of_file(cls, file: GraphFile, counts: AcceptanceCounts) -> Promise:
        """The promise that a graph file states.

        Raises:
            DriftError: it states none per prompt.
        """
        split = next((name for name in SPLITS if "per_prompt" in file.values.get(name, {})), None)
        if split is None:
            raise DriftError(
                "the graph file states no values per prompt (values.SPLIT.per_prompt), as files of this release do; "
                "give --traces FOLDER, a recording of prompts like those that it was calibrated on"
            )
        stated = file.values[split]["per_prompt"]
        reach = file.values.get("search", {}).get("node_reach") if counts.by == "node" else None
        return cls(
            f"{split} prompts of the graph file",
            np.array(stated["anchors"], dtype=np.int64),
            np.array(stated["accepted_drafts"], dtype=np.int64),
            None if reach is None else np.array(reach[1:], dtype=np.float64),
            all_anchors=reach is not None,
        )

    @classmethod
    def of_traces(cls, file: GraphFile, counts: AcceptanceCounts, anchors: AnchorTable) -> Promise:
        """The promise as a replay of recorded prompts counts it."""
        found = replay(file.nodes[1:], anchors)
        visited = max(int(found.anchors_visited.sum()), 1)
        if counts.by == "node":
            columns = node_visits(file.nodes[1:], anchors).sum(axis=0) / visited
        else:
            deeper = found.visited_histogram[::-1].cumsum()[::-1][1:] / visited
            columns = np.pad(deeper, (0, max(counts.accepted.shape[1] - len(deeper), 0)))[: counts.accepted.shape[1]]
        return cls("replayed traces", found.anchors_visited, found.accepted_visited, columns)


@dataclass(frozen=True, eq=False)
class Watch:
    """Served requests beside the promise.

    Attributes:
        promise: of the reference prompts.
        counts: of the served requests.
        kept: int64 [R'], the requests that visited an anchor; only these are tested.
        drift: what the test found in them; its requests count within ``kept``.
    """

    promise: Promise
    counts: AcceptanceCounts
    kept: np.ndarray
    drift: Drift

    @classmethod
    def of(
        cls, promise: Promise, counts: AcceptanceCounts, *, false_alarms: float = FALSE_ALARMS, seed: int = 0
    ) -> Watch:
        """Test ``counts`` against ``promise``; raises DriftError as :func:`studies.statistics.drift.watch`."""
        known, kept = promise.anchors > 0, np.flatnonzero(counts.anchors)
        reference = promise.accepted[known] / promise.anchors[known]
        served = counts.accepted_drafts[kept] / counts.anchors[kept]
        return cls(promise, counts, kept, watch(reference, served, false_alarms=false_alarms, seed=seed))

    @property
    def alarm(self) -> int | None:
        """The request, from 1, that raised the alarm; None without one."""
        return None if self.drift.alarm is None else int(self.kept[self.drift.alarm]) + 1

    @property
    def since(self) -> int | None:
        """The request, from 1, since which requests drifted, about; None without an alarm."""
        return None if self.drift.since is None else int(self.kept[self.drift.since]) + 1

    @property
    def forwards_to_alarm(self) -> int | None:
        """Forward passes of all requests up to the alarm."""
        return None if self.alarm is None else int(self.counts.forwards[: self.alarm].sum())

    def promised(self) -> Interval | float:
        """Accepted drafts per anchor of the reference prompts; without an interval for fewer than two."""
        return _mean(self.promise.accepted, self.promise.anchors)

    def served(self) -> Interval | float:
        """Accepted drafts per anchor of the requests: since the drift, where there is one."""
        rest = slice((self.since or 1) - 1, None)
        return _mean(self.counts.accepted_drafts[rest], self.counts.anchors[rest])

    def columns(self) -> list[tuple[str, float | None, float]]:
        """Per node or depth: its name, the share of anchors promised, and the share served."""
        rest = slice((self.since or 1) - 1, None)
        served = self.counts.accepted[rest].sum(axis=0) / max(int(self.counts.anchors[rest].sum()), 1)
        if self.counts.by == "depth":
            names = [f"at least {depth + 1}" for depth in range(len(served))]
        elif self.counts.nodes is None:
            names = [f"node {number + 1}" for number in range(len(served))]
        else:
            names = list(map(format_formula, self.counts.nodes[1:]))
        promised: Sequence[Any] = [None] * len(names) if self.promise.columns is None else self.promise.columns.tolist()
        return list(zip(names, promised, served.tolist(), strict=True))

    def sentence(self) -> str:
        """Whether to calibrate again, and why."""
        promised, served, rate = _estimate(self.promised()), _estimate(self.served()), self.drift.false_alarms
        sure = f"at most {100 * rate:g} % of watches without a drift ever raise an alarm"
        numbers = f"{served:.2f} drafts per anchor where {promised:.2f} were promised"
        if self.alarm is not None:
            what = "fewer: the graph was made for other requests"
            if self.drift.direction == HIGHER:
                what = "more: it keeps its promise, but a graph made for these requests may win more"
            return (
                f"Calibrate again: since about request {self.since} the graph accepts {numbers}, {what} (seen at "
                f"request {self.alarm}, after {self.forwards_to_alarm} forward passes; {sure})."
            )
        evidence = float(self.drift.capital[-1]) if len(self.kept) else 1.0
        few = ""
        if (references := int((self.promise.anchors > 0).sum())) < FEW_REFERENCES:
            few = f"; with {references} reference prompts only a large drift can be seen"
        return (
            f"No sign of a drift: {self.counts.requests} requests ({int(self.counts.forwards.sum())} forward passes) "
            f"accept {numbers}, and the evidence is {evidence:.2g} of the {self.drift.needed:g} that an alarm takes "
            f"({sure}{few})."
        )


def _mean(accepted: np.ndarray, anchors: np.ndarray) -> Interval | float:
    if len(anchors) > 1:
        return PromptBootstrap(len(anchors)).ratio(accepted, anchors)
    return float(accepted.sum() / max(int(anchors.sum()), 1))


def _estimate(value: Interval | float) -> float:
    return value.estimate if isinstance(value, Interval) else value
