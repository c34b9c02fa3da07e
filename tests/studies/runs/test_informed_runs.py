"""Informed drafts in a run: counted by replay of their logs, verified, compared at equal rows, priced, reported."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calibrate.measuring.latency_table import LatencyTable
from calibrate.traces.table import TraceError, read_traces
from drafting.state_replay import replay_states
from figures.records.budget import GRAPH, INFORMED, load_budget
from figures.records.record import save_record
from figures.records.run import load_run
from studies.report.advice import advise
from studies.report.report import write_report
from studies.runs.calibration import calibrate
from studies.runs.configuration import CalibrationConfig, default_methods
from studies.runs.informed import logged_drafts
from tests.support.command_line import run as run_command
from verify.layout import Exactness

BUDGETS = (0, 1, 3)


@pytest.fixture(scope="module")
def config(checkpoint: Path, prompts: Path) -> CalibrationConfig:
    return CalibrationConfig(
        model=str(checkpoint), prompts=str(prompts), policies=("static:1",), methods=("chain", "greedy", "informed"),
        block_length=8, generation_length=16, cache="block_causal", top_j=4, budgets=BUDGETS, measured_prompts=2,
        batch_size=4, ignore_end_tokens=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(config: CalibrationConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("informed") / "run"
    calibrate(config, folder)
    return folder


def test_rows_are_predicted_by_the_log_and_verified(folder: Path) -> None:
    run = load_run(folder)
    rows = run.select(method="informed", split="test")
    assert [row.budget for row in rows] == [1, 3]
    for row in rows:
        assert row.nodes is None and row.graph is None and row.accepted_drafts is None
        assert row.forwards_measured == row.forwards_predicted_measured and row.tokens_identical == 1.0
        chain = run.select(method="chain", split="test", budget=row.budget)[0]
        assert row.forwards_predicted < chain.forwards_predicted
        assert row.drafted_blocks > 0 and row.accepted_drafts_visited > 0
    assert logged_drafts(folder / "traces" / "static-1") == [1, 3]


def test_comparisons_at_equal_budgets_and_at_equal_rows(folder: Path) -> None:
    run = load_run(folder)
    pairs = [found for found in run.comparisons if found.first == "informed"]
    same = [found for found in pairs if found.second_budget is None]
    assert {(found.budget, found.second) for found in same} == {(D, m) for D in (1, 3) for m in ("chain", "greedy")}
    for found in pairs:
        if found.second_budget is None:
            continue
        own = run.select(method="informed", split="test", budget=found.budget)[0]
        other = run.select(method=found.second, split="test", budget=found.second_budget)[0]
        assert 0.98 <= other.drafted_blocks / own.drafted_blocks <= 1.25
        assert f"{found.second} with D = {found.second_budget}, of as many rows" in found.sentence


def test_a_rerun_decodes_nothing_again(
    config: CalibrationConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a recorded prompt is decoded again")

    monkeypatch.setattr("calibrate.recording.recorder.decode_batch", refused)
    monkeypatch.setattr("studies.runs.evaluation.decode_batch", refused)
    before = load_run(folder)
    again = calibrate(config, folder)
    assert again is not None
    assert [replace(row, search_seconds=None) for row in again.rows] == [
        replace(row, search_seconds=None) for row in before.rows
    ]
    assert again.comparisons == before.comparisons


def table(drafts: tuple[int, ...], step: float, path: Path) -> Path:
    values = tuple(10.0 + step * d for d in drafts)
    save_record(
        LatencyTable(
            "cpu", "float32", "checkpoint", "packed", 8, 8, 1, drafts, tuple(8 * (1 + d) for d in drafts), values,
            values, values, 10.0, 5, cache="block_causal", engine="slots",
        ),
        path,
    )  # fmt: skip
    return path


def test_a_budget_prices_them_with_the_graphs(folder: Path, tmp_path: Path) -> None:
    traces = folder / "traces" / "static-1"
    latency = table(tuple(range(9)), 0.1, tmp_path / "latency.json")
    said = run_command("budget", traces, "--latency", latency, "--any-model", "--out", tmp_path / "priced")
    verdict = load_budget(tmp_path / "priced" / "static-1.budget.json")
    assert [row.budget for row in verdict.of(INFORMED)] == [1, 3]
    assert verdict.drafter == INFORMED and verdict.graph is None
    assert "with informed drafts is predicted to be" in verdict.sentence
    assert "--drafter informed --drafts" in said
    assert verdict.measured_prompts == 2
    run_command(
        "budget", traces, "--latency", table((0, 1, 2, 3), 0.1, tmp_path / "short.json"), "--any-model",
        "--out", tmp_path / "short",
    )  # fmt: skip
    short = load_budget(tmp_path / "short" / "static-1.budget.json")
    assert [row.budget for row in short.of(INFORMED)] in ([], [1]) and short.of(GRAPH)
    assert "Informed drafts are not priced for D = " in short.sentence


def test_other_splits_price_the_graphs_alone(folder: Path, tmp_path: Path) -> None:
    import shutil

    traces = folder / "traces" / "static-1"
    shutil.copytree(traces / "test", tmp_path / "held")
    latency = table(tuple(range(9)), 0.1, tmp_path / "latency.json")
    said = run_command("budget", traces, "--test", tmp_path / "held", "--latency", latency, "--any-model")
    assert "Informed drafts are not priced: their state logs are of the run's own search and test prompts" in said
    assert "with informed drafts" not in said


def test_what_a_near_lossless_log_misses_is_said_and_no_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a state may have two distributions, and the same drafter may propose what its decode did not."""
    from studies.runs import informed

    traces = folder / "traces" / "static-1"
    latency = table(tuple(range(9)), 0.1, tmp_path / "latency.json")
    real = informed.replay_states
    monkeypatch.setattr(informed, "replay_states", lambda *found: replace(real(*found), missed=1))
    said = run_command("budget", traces, "--latency", latency, "--any-model", code=1)
    assert "recorded with another version of this tool" in said
    monkeypatch.setattr(informed, "exactness", lambda cache, backend: Exactness(False, "", ""))
    said = run_command("budget", traces, "--latency", latency, "--any-model")
    assert "does not know 1 of" in said and "an estimate, as a rule too many" in said


def test_a_rule_that_compares_two_tokens_has_them_in_its_log(config: CalibrationConfig, tmp_path: Path) -> None:
    only = replace(
        config, policies=("dream:margin:8",), methods=("informed",), budgets=(2,), search_prompts=2, test_prompts=2
    )
    found = calibrate(only, tmp_path / "run")
    assert found is not None
    row = found.select(method="informed", split="test")[0]
    assert row.forwards_measured == row.forwards_predicted_measured and row.tokens_identical == 1.0


def test_the_report_names_them(folder: Path) -> None:
    advice = advise(load_run(folder), "static:1", None)
    assert advice.recommended is not None and advice.recommended.test.method == "informed"
    page = write_report(folder).read_text(encoding="utf-8")
    assert "blocks<br>per forward" in page and "informed" in page
    assert (folder / "figures" / "nfe_vs_budget.png").is_file()


def test_a_log_of_other_prompts_is_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "static-1"
    shutil.copytree(folder / "traces" / "static-1", copy)
    shutil.rmtree(copy / "informed-1" / "test")
    shutil.copytree(copy / "informed-1" / "search", copy / "informed-1" / "test")
    latency = table(tuple(range(9)), 0.1, tmp_path / "latency.json")
    assert "log of other prompts" in run_command("budget", copy, "--latency", latency, "--any-model", code=1)


def test_a_log_of_another_drafter_is_no_count(
    config: CalibrationConfig, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the next version of the drafter proposed other states under the same description."""
    import shutil

    from studies.runs import informed
    from verify.drafters.informed import InformedDrafter

    class Later(InformedDrafter):
        def __init__(self, drafts: int) -> None:
            super().__init__(2 * drafts)

    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    traces = read_traces(copy / "traces" / "static-1" / "test")
    monkeypatch.setattr(informed, "InformedDrafter", Later)
    with pytest.raises(TraceError, match=r"does not know \d+ of the \d+ states that 3 informed drafts propose"):
        informed.read_counts(copy / "traces" / "static-1", 3, "test", traces)


def test_policies_that_a_log_cannot_hold(config: CalibrationConfig) -> None:
    assert default_methods(["static:1", "threshold:0.9"], 0.0)[-1] == "informed"
    assert default_methods(["static:1", "dream:entropy:4"], None)[-1] == "informed"
    assert "informed" not in default_methods(["static:1"], 1.0)
    assert "informed" not in default_methods(["static:1", "threshold:0.9@temperature=1"], None)
    with pytest.raises(TraceError, match="static:1@temperature=1 reads all logits"):
        replace(config, temperature=1.0).check()


def test_replaying_a_log_of_the_run_gives_its_row(folder: Path) -> None:
    from calibrate.traces.state_log import read_states
    from verify.drafters.informed import InformedDrafter

    log = read_states(folder / "traces" / "static-1" / "informed-3" / "test")
    row = load_run(folder).select(method="informed", split="test", budget=3)[0]
    assert replay_states(log, InformedDrafter(3)).forwards == row.forwards_predicted
    assert json.loads((folder / "config.json").read_text())["methods"] == ["chain", "greedy", "informed"]
