"""Ablation studies on a tiny model: every setting has its rows, recordings are shared, and a rerun repeats nothing."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from calibrate.bundled import DOMAINS
from calibrate.traces.table import read_traces
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.chain import confidence_chain
from studies.runs.ablations import COLUMNS, STUDIES, StudyError, run_study
from studies.runs.configuration import CalibrationConfig


@pytest.fixture
def base(checkpoint: Path, prompts: Path) -> CalibrationConfig:
    return CalibrationConfig(
        model=str(checkpoint),
        prompts=str(prompts),
        policies=("static:1",),
        block_length=8,
        generation_length=16,
        top_j=4,
    )


def test_policy_study(base: CalibrationConfig, tmp_path: Path) -> None:
    rows = run_study("policy", base, tmp_path / "run", methods=["chain", "greedy"], budgets=[2, 4])
    settings = [setting.label for setting in STUDIES["policy"].settings(base)]
    assert {(row.setting, row.method, row.budget, row.split) for row in rows} == {
        (setting, method, budget, split)
        for setting in settings
        for method in ("chain", "greedy")
        for budget in (2, 4)
        for split in ("search", "test")
    }
    with (tmp_path / "run" / "study.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert tuple(table[0]) == COLUMNS and len(table) == len(rows)
    # A row is what a replay of its own traces gives.
    traces = read_traces(tmp_path / "run" / "traces" / "static-1-L8-T0-test-own")
    anchors = AnchorTable.from_traces(traces, max_depth=None)
    found = replay(confidence_chain(4, 8, 1).nodes, anchors)
    row = next(r for r in rows if (r.setting, r.method, r.budget, r.split) == ("static:1", "chain", 4, "test"))
    assert row.forwards_predicted == found.forwards
    assert row.nfe_reduction_low <= row.nfe_reduction <= row.nfe_reduction_high


def test_a_rerun_records_nothing_again(base: CalibrationConfig, tmp_path: Path) -> None:
    first = run_study("accumulation", base, tmp_path / "run", budgets=[3])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "traces").rglob("*.parquet")}
    second = run_study("accumulation", base, tmp_path / "run", budgets=[3])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "traces").rglob("*.parquet")} == before
    first, second = ([replace(row, search_seconds=None) for row in rows] for rows in (first, second))
    assert first == second


def test_temperature_study_samples_tokens(base: CalibrationConfig, tmp_path: Path) -> None:
    run_study("temperature", base, tmp_path / "run", methods=["chain"], budgets=[2])
    cold, hot = (read_traces(tmp_path / "run" / "traces" / f"static-1-L8-T{heat}-test-own") for heat in ("0", "1"))
    assert (cold.commit_token == cold.top_token[cold.masked_ptr[:-1], 0]).all()
    assert not (hot.commit_token == hot.top_token[hot.masked_ptr[:-1], 0]).all()


def test_settings_vary_one_thing(base: CalibrationConfig) -> None:
    for name, field in (("policy", "policies"), ("block-length", "block_length"), ("temperature", "temperature")):
        settings = list(STUDIES[name].settings(base))
        assert len({setting.label for setting in settings}) == len(settings) > 2
        for setting in settings:
            assert replace(setting.config, **{field: getattr(base, field)}) == base
    matrix = list(STUDIES["domain"].settings(base))
    sources = ["bundled", *(f"bundled/{domain}" for domain in DOMAINS)]
    assert {(s.config.prompts, s.test_prompts_from) for s in matrix} == set(itertools.product(sources, sources))
    assert len({s.label for s in matrix}) == len(matrix) == len(sources) ** 2
    assert matrix[0].label == f"{DOMAINS[0]} -> {DOMAINS[0]}" and matrix[-1].label == "all -> all"


def test_unknown_study(base: CalibrationConfig, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="unknown study 'weather', expected one of method, "):
        run_study("weather", base, tmp_path / "run")


def test_everything_is_checked_before_anything_is_recorded(base: CalibrationConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for arguments, expected in (
        ({"budgets": [0]}, "needs a budget above 0"),
        ({"methods": ["wishful"]}, "unknown method 'wishful'"),
    ):
        with pytest.raises(ValueError, match=expected):
            run_study("policy", base, out, **arguments)
    with pytest.raises(StudyError, match="--methods has no place there"):
        run_study("accumulation", base, out, methods=["greedy"])
    with pytest.raises(StudyError, match="near-lossless"):
        run_study("policy", replace(base, cache="prefix"), out)
    assert not out.exists()
