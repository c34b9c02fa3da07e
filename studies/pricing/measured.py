"""What a calibration run measured of a graph: wall times that stand beside a predicted speed-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from figures.records.budget import INFORMED
from figures.records.run import RESULTS_NAME, load_run
from verify.graph.formulas import Formula


@dataclass(frozen=True)
class MeasuredSeconds:
    """Wall times of one decode of the same prompts each.

    Attributes:
        prompts: how many.
        plain: seconds without drafts.
        drafted: seconds with the drafts.
    """

    prompts: int
    plain: float
    drafted: float

    def sentence(self, speedup: float, low: float, high: float) -> str:
        """The two times, beside the predicted speed-up and its interval."""
        found = self.plain / self.drafted
        text = (
            f"Measured: the run decoded {self.prompts} prompts in {self.plain:.2f} s without drafts and in "
            f"{self.drafted:.2f} s with these drafts, {found:.2f} times as fast; predicted {speedup:.2f}."
        )
        if not low <= found <= high:
            text += " That is outside the predicted interval: measure both again on an idle machine."
        return text


def measured_seconds(
    traces: Path, policy: str, nodes: Sequence[Formula] = (), informed: int | None = None
) -> MeasuredSeconds | None:
    """What the calibration run that holds ``traces`` (RUN/traces/POLICY) measured of a graph or of informed drafts.

    Args:
        traces: the trace folder of one policy.
        policy: its specification.
        nodes: draft formulas of the graph, in any order, the root left out.
        informed: the number of informed drafts; None asks for the graph.

    Returns:
        None where ``traces`` does not lie in a run, or the run did not decode with these drafts.

    Raises:
        figures.records.record.FigureDataError: results or a graph file of the run are damaged.
    """
    folder = traces.resolve().parent
    if folder.name != "traces" or not (folder.parent / RESULTS_NAME).is_file():
        return None
    run = load_run(folder.parent)
    timed = [row for row in run.select(policy=policy, split="test") if row.seconds and row.measured_prompts]
    plain = next((row for row in timed if row.budget == 0), None)
    for row in timed:
        if plain is None or row.measured_prompts != plain.measured_prompts:
            continue
        if informed is not None:
            same = (row.method, row.budget) == (INFORMED, informed)
        else:
            same = row.graph is not None and row.nodes == len(nodes)
            same = same and set(run.load_graph(row).nodes) - {()} == set(nodes)
        if same:
            return MeasuredSeconds(row.measured_prompts or 0, plain.seconds or 0.0, row.seconds or 0.0)
    return None
