"""What served requests accepted, beside what the traces promised: the numbers of a watch, and its one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drafting.anchors import AnchorTable
from drafting.replay import node_visits, replay
from studies.statistics.drift import FALSE_ALARMS, HIGHER, Drift, DriftError, check_rate, watch
from studies.statistics.intervals import Interval, PromptBootstrap
from studies.statistics.profile import profile_alarm
from verify.counting import AcceptanceCounts
from verify.graph.file import GraphFile
from verify.graph.formulas import format_formula
from verify.graph.validity import edge_step

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
        columns: int64 [M, C], at how many of them each column of the counts was accepted; None where it is not known.
    """

    source: str
    anchors: np.ndarray
    accepted: np.ndarray
    columns: np.ndarray | None = None

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
        stated = {name: np.array(values, dtype=np.int64) for name, values in file.values[split]["per_prompt"].items()}
        return cls(
            f"{split} prompts of the graph file",
            stated["anchors"],
            stated["accepted_drafts"],
            _columns(stated["accepted_nodes"], file, counts) if "accepted_nodes" in stated else None,
        )

    @classmethod
    def of_traces(cls, file: GraphFile, counts: AcceptanceCounts, anchors: AnchorTable) -> Promise:
        """The promise as a replay of recorded prompts counts it."""
        nodes = file.nodes[1:]
        found = replay(nodes, anchors)
        columns = _columns(node_visits(nodes, anchors), file, counts)
        return cls("replayed traces", found.anchors_visited, found.accepted_visited, columns)


def _columns(accepted: np.ndarray, file: GraphFile, counts: AcceptanceCounts) -> np.ndarray | None:
    """Counts of nodes, int64 [M, D], in the columns of the counts.

    By depth they are the sums over the nodes of that depth. Where steps have no fixed size the depth of a node says
    nothing about when it is accepted, and the columns are not known.
    """
    if counts.by == "node":
        return accepted
    if edge_step(file.validity.policy) is None:
        return None
    depths = np.array(file.depths[1:])
    return np.stack([accepted[:, depths == depth + 1].sum(axis=1) for depth in range(counts.accepted.shape[1])], axis=1)


@dataclass(frozen=True, eq=False)
class Watch:
    """Served requests beside the promise: two tests, each with half of the rate of false alarms.

    Attributes:
        promise: of the reference prompts.
        counts: of the served requests.
        kept: int64 [R'], the requests that visited an anchor; only these are tested.
        drift: of accepted drafts per anchor (``studies.statistics.drift``); its requests count within ``kept``.
        profile: the request, within ``kept``, at which another profile was seen (``studies.statistics.profile``); None
            where none was.
        false_alarms: at most this share of watches ever raises an alarm where there is no drift.
    """

    promise: Promise
    counts: AcceptanceCounts
    kept: np.ndarray
    drift: Drift
    profile: int | None
    false_alarms: float

    @classmethod
    def of(
        cls, promise: Promise, counts: AcceptanceCounts, *, false_alarms: float = FALSE_ALARMS, seed: int = 0
    ) -> Watch:
        """Test ``counts`` against ``promise``; raises DriftError as :func:`studies.statistics.drift.watch`."""
        check_rate(false_alarms)
        known, kept = np.flatnonzero(promise.anchors), np.flatnonzero(counts.anchors)
        reference = promise.accepted[known] / promise.anchors[known]
        served = counts.accepted_drafts[kept] / counts.anchors[kept]
        drift, profile = watch(reference, served, false_alarms=false_alarms / 2, seed=seed), None
        if promise.columns is not None and len(kept):
            profile = profile_alarm(
                promise.columns[known] / promise.anchors[known, None],
                counts.accepted[kept] / counts.anchors[kept, None],
                false_alarms / 2,
                seed,
            )
        return cls(promise, counts, kept, drift, profile, false_alarms)

    @property
    def alarm(self) -> int | None:
        """The request, from 1, that raised the first alarm; None without one."""
        found = [request for request in (self.drift.alarm, self.profile) if request is not None]
        return int(self.kept[min(found)]) + 1 if found else None

    @property
    def by_profile(self) -> bool:
        """Whether the profile alone raised an alarm: about as much is accepted as promised, of other drafts."""
        return self.profile is not None and self.drift.alarm is None

    @property
    def since(self) -> int | None:
        """The request, from 1, since which requests drifted, about; None without an alarm, or where it is not known."""
        if self.drift.since is None or self.alarm is None:
            return None
        return min(int(self.kept[self.drift.since]) + 1, self.alarm)

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
        promised: Sequence[Any] = [None] * len(names)
        if self.promise.columns is not None:
            promised = (self.promise.columns.sum(axis=0) / max(int(self.promise.anchors.sum()), 1)).tolist()
        return list(zip(names, promised, served.tolist(), strict=True))

    def sentence(self) -> str:
        """Whether to calibrate again, and why."""
        promised, served = _estimate(self.promised()), _estimate(self.served())
        sure = f"at most {100 * self.false_alarms:g} % of watches without a drift ever raise an alarm"
        numbers = f"{served:.2f} drafts per anchor where {promised:.2f} were promised"
        if self.by_profile:
            name, before, now = max(self.columns(), key=lambda column: abs((column[1] or 0.0) - column[2]))
            return (
                f"Calibrate again: other drafts are accepted than promised ({name} at {100 * now:.0f} % of anchors for "
                f"{100 * (before or 0.0):.0f} %; {numbers}), so the requests are others and another graph may win more "
                f"(seen at request {self.alarm}, after {self.forwards_to_alarm} forward passes; {sure})."
            )
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
