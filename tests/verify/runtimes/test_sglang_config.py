"""What ``--dllm-algorithm-config`` takes: written, read back, and refused with a message where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.sglang_runs import draft_config
from verify.drafters.file import DrafterFile, save_drafter
from verify.graph.file import GraphFile, GraphFileError, save_graph
from verify.graph.validity import Validity
from verify.runtimes.sglang_config import (
    RuntimeConfigError,
    ordered_formulas,
    read_sglang_config,
    threshold_of,
    write_sglang_config,
)
from verify.runtimes.sglang_rows import shares

NODES = [((1, 1), (2, 1)), ((1, 1),), ((2, 1),)]


def graph_file(folder: Path, policy: str = "dynamic:0.9", length: int = 4, cache: str = "block_causal") -> Path:
    path = folder / "graph.json"
    temperature = 0.7 if "temperature" in policy else 0.0
    save_graph(GraphFile.from_nodes(NODES, Validity("tiny", None, policy, length, cache, temperature, 2)), path)
    return path


def test_what_is_written_names_the_file_and_the_rule(tmp_path: Path) -> None:
    graph = graph_file(tmp_path, "dynamic:0.00001")
    write_sglang_config(graph, tmp_path / "server.yaml", drafts=2, max_rows=16)
    assert (tmp_path / "server.yaml").read_text(encoding="utf-8").splitlines() == [
        "# For tiny: --dllm-algorithm DraftGraph --dllm-algorithm-config server.yaml",
        "block_size: 4",
        "threshold: 0.00001",  # 1e-05 would be a text in YAML
        f'draftgraph_file: "{graph}"',
        "draftgraph_drafts: 2",
        "draftgraph_max_rows: 16",
    ]


def test_it_is_read_back(tmp_path: Path) -> None:
    config = draft_config(tmp_path, NODES, 4, 0.9, 0, fdfo=True)
    found = read_sglang_config(config.algorithm_config, 4)
    assert (found.drafts, found.max_rows, found.policy.spec) == (3, None, "dynamic:0.9")
    assert found.drafter.max_drafts == 3
    found = read_sglang_config({**config.algorithm_config, "draftgraph_drafts": 9, "algorithm": "LowConfidence"}, 4)
    assert found.drafts == 3  # no more than the graph has


def test_a_drafter_file_is_taken_too(tmp_path: Path) -> None:
    file = tmp_path / "drafter.json"
    validity = Validity("tiny", None, "static:1", 8, "block_causal", 0.0, 2)
    save_drafter(DrafterFile(5, validity=validity), file)
    write_sglang_config(file, tmp_path / "server.yaml")
    assert "threshold: 1." in (tmp_path / "server.yaml").read_text(encoding="utf-8")
    found = read_sglang_config({"threshold": 1.0, "draftgraph_file": str(file)}, 8)
    assert (found.drafts, found.policy.spec) == (5, "static:1")
    save_drafter(DrafterFile(5), file)
    with pytest.raises(RuntimeConfigError, match="does not say for whom it is valid"):
        write_sglang_config(file, tmp_path / "server.yaml")


@pytest.mark.parametrize(
    ("policy", "threshold"), [("static:1", 1.0), ("dynamic:0.8", 0.8), ("threshold:0.7", 0.7), ("dynamic:0.5:1", 0.5)]
)
def test_rules_that_sglang_follows(policy: str, threshold: float) -> None:
    assert threshold_of(policy) == threshold


@pytest.mark.parametrize(
    "policy",
    ["static:2", "quota:3/8", "dynamic:0.9:2", "static:1:margin", "static:1@temperature=0.7", "klass:0.9"],
)
def test_other_rules_are_refused(policy: str) -> None:
    with pytest.raises(RuntimeConfigError, match=r"cannot follow policy .*calibrate for dynamic:tau"):
        threshold_of(policy)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"algorithm": "JointThreshold"}, "JointThreshold, which changes tokens that are committed already"),
        ({"algorithm": "JointThresholdInDel"}, "inserts and deletes positions"),
        ({"algorithm": "Gemma4Renoise"}, "masks committed positions again"),
        ({"algorithm": "Other"}, "algorithm is 'Other', expected LowConfidence"),
        ({"edit_threshold": 0.5}, "edit_threshold belongs to JointThreshold"),
        ({"t_max": 0.5}, "t_max belongs to Gemma4Renoise"),
        ({"treshold": 0.5}, "unknown key 'treshold', expected some of block_size, threshold"),
        ({"threshold": None}, "threshold is None, expected a number above 0"),
        ({"threshold": "0.9"}, "threshold is '0.9'"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"threshold": 0.8}, r"policy dynamic:0.9 \(threshold 0.9\), and the server has threshold 0.8"),
        ({"draftgraph_file": None}, "draftgraph_file is None, expected the path"),
        ({"draftgraph_file": "/nowhere/graph.json"}, "draftgraph_file /nowhere/graph.json: "),
        ({"draftgraph_drafts": -1}, "draftgraph_drafts is -1, expected a whole number of at least 0"),
        ({"draftgraph_drafts": True}, "draftgraph_drafts is True"),
        ({"draftgraph_max_rows": 0}, "draftgraph_max_rows is 0, expected a whole number of at least 1"),
    ],
)
def test_what_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = draft_config(tmp_path, NODES, 4, 0.9, 0, fdfo=True).algorithm_config
    with pytest.raises(RuntimeConfigError, match=message):
        read_sglang_config({**config, **changed}, 4)


def test_a_file_for_another_decode_is_refused(tmp_path: Path) -> None:
    config = {"threshold": 0.9, "draftgraph_file": str(graph_file(tmp_path))}
    with pytest.raises(RuntimeConfigError, match="blocks of 4 positions, and the server has 8"):
        read_sglang_config(config, 8)
    graph_file(tmp_path, cache="dual")
    with pytest.raises(RuntimeConfigError, match="cache mode dual, and the server's is block_causal"):
        read_sglang_config(config, 4)
    (tmp_path / "graph.json").write_text('{"format": "draftgraph"}', encoding="utf-8")
    with pytest.raises(GraphFileError):
        read_sglang_config(config, 4)


def test_the_first_drafts_have_their_parents_among_them(tmp_path: Path) -> None:
    graph = GraphFile.from_nodes(
        [((1, 1), (2, 1), (3, 1)), ((1, 1), (2, 1)), ((1, 1),)],
        Validity("tiny", None, "static:1", 4, "block_causal", 0.0, 2),
    )
    assert [len(formula) for formula in ordered_formulas(graph)] == [1, 2, 3]


def test_rows_are_shared_in_turns() -> None:
    assert shares([5, 1, 3], 6) == [3, 1, 2]
    assert shares([2, 2], 9) == [2, 2]
    assert shares([2, 2], 0) == [0, 0] and shares([], 4) == []
