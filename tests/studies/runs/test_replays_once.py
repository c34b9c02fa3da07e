"""A calibration walks the decodes of a split once per graph, however many parts of the run ask what it costs."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from drafting.anchors import AnchorTable
from drafting.replay import ReplayResult, replay
from studies.runs import policy_run
from studies.runs.calibration import calibrate
from studies.runs.configuration import CalibrationConfig
from verify.graph.formulas import Formula


def test_each_graph_is_replayed_once_per_split(
    checkpoint: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: Counter[tuple[frozenset[Formula], int]] = Counter()

    def counted(nodes: Iterable[Formula], anchors: AnchorTable) -> ReplayResult:
        distinct = frozenset(nodes)
        walked[distinct, id(anchors)] += 1
        return replay(distinct, anchors)

    monkeypatch.setattr(policy_run, "replay", counted)
    monkeypatch.setattr("drafting.graph.replay", counted)
    config = CalibrationConfig(
        model=str(checkpoint), prompts=str(prompts), policies=("static:1",), methods=("chain", "published", "greedy"),
        block_length=8, generation_length=16, top_j=4, budgets=(0, 2, 3), measured_prompts=1,
    )  # fmt: skip
    calibrate(config, tmp_path / "run")
    assert len(walked) >= 8, "plain and three methods at two budgets, on two splits, some of them the same graph"
    assert set(walked.values()) == {1}
