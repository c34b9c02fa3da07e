"""Tuning informed drafts on a log: what a trial is, that the best is judged on other prompts, and the file written."""

from dataclasses import asdict, replace

import optuna
import pytest

from calibrate.recording.states import record_states
from calibrate.traces.state_log import read_states
from drafting.provenance import trace_validity
from drafting.state_replay import replay_states
from studies.tuning.informed_study import DEFAULT, MIXTURE, TuningConfig, changes, judge, suggest, tuning_question
from studies.tuning.shared_study import StudyError, work_on
from tests.support.command_line import run
from tests.support.models import tiny_checkpoint
from verify.decoding import DecodeConfig
from verify.drafters.file import load_drafter
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.graph.file import GraphFile, save_graph
from verify.policies.specification import make_policy

PROMPTS = [[3 + (7 * n + k * k) % 45 for k in range(5 + n % 3)] for n in range(6)]
CONFIG = DecodeConfig(block_length=8, generation_length=16, cache="block_causal", top_j=2)
GRAPH = (((1, 1),), ((2, 1),), ((1, 1), (2, 1)), ((1, 2),))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    checkpoint, folder = tiny_checkpoint(seed=3), tmp_path_factory.mktemp("logs")
    for name, prompts in (("search", PROMPTS[:4]), ("test", PROMPTS[4:])):
        for drafts in (8, 4):
            settings = InformedSettings(fill="alternatives+graph", follow=8)
            drafter = InformedDrafter(drafts, settings, GRAPH) if drafts == 8 else InformedDrafter(drafts)
            record_states(
                checkpoint, prompts, make_policy("static:1"), CONFIG, folder / name / str(drafts), drafter,
                batch_size=4,
            )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def logs(folders):
    return tuple(read_states([folders / name / "8", folders / name / "4"]) for name in ("search", "test"))


@pytest.mark.parametrize("formulas", [(), GRAPH])
def test_the_best_trial_is_no_worse_than_the_warm_starts_and_is_judged_elsewhere(logs, formulas):
    log, held = logs
    config = TuningConfig(4, formulas, seed=1)
    done = work_on(tuning_question(log, config), 8)
    values = {trial.user_attrs.get("warm_start"): trial.value for trial in done.study.trials}
    assert {DEFAULT, MIXTURE} <= set(values)
    default = replay_states(log, InformedDrafter(4))
    assert values[DEFAULT] == default.forwards / default.plain_forwards
    found = judge(done.study, log, held, config)
    assert found.value == min(trial.value for trial in done.study.trials) <= found.default_value == values[DEFAULT]
    assert found.chosen.forwards == replay_states(held, config.drafter(found.settings)).forwards
    assert found.default.exact and found.chosen.prompts == 2
    assert (found.chosen.forwards < found.default.forwards) == (found.comparison.nfe_reduction_difference.estimate > 0)
    trial = done.study.trials[found.trial]
    assert suggest(trial_of(trial.params), log, config) == found.settings


def trial_of(params):
    return optuna.trial.FixedTrial(params)


def test_only_settings_that_mean_something_are_asked_for(logs):
    log, _ = logs
    dual = replace(log, metadata={**log.metadata, "cache": "dual"})
    for one, formulas, there, absent in (
        (log, (), {"bridges", "beyond"}, {"copies", "hedges"}),
        (dual, GRAPH, {"copies", "hedges"}, {"bridges", "beyond"}),
    ):
        names = set(tuning_question(one, TuningConfig(4, formulas)).warm_starts[DEFAULT])
        assert there <= names and not absent & names
    shifted = replace(dual, metadata={**dual.metadata, "offers_copies": False})
    assert "copies" not in tuning_question(shifted, TuningConfig(4)).warm_starts[DEFAULT]
    assert changes(InformedSettings()) == {}
    assert changes(InformedSettings(width=2)) == {"width": 2}


def test_a_study_over_another_log_is_refused(logs, tmp_path):
    log, held = logs
    where = str(tmp_path / "tune.journal")
    work_on(tuning_question(log, TuningConfig(4)), 2, storage=where)
    assert work_on(tuning_question(log, TuningConfig(4)), 2, storage=where).own == 0
    with pytest.raises(StudyError, match="made over other traces"):
        work_on(tuning_question(held, TuningConfig(4)), 2, storage=where)
    with pytest.raises(StudyError, match="another configuration"):
        work_on(tuning_question(log, TuningConfig(3)), 2, storage=where)
    with pytest.raises(StudyError, match="drafts is 0"):
        TuningConfig(0)


def test_the_command_writes_a_drafter_that_commands_read(folders, tmp_path):
    search = [folders / "search" / "8", folders / "search" / "4"]
    test = ["--test", folders / "test" / "8", "--test", folders / "test" / "4"]
    out = tmp_path / "tuned.json"
    said = run("tune", *search, *test, "--drafts", 4, "--trials", 5, "--out", out)
    assert "is the best on the 4 prompts tuned on" in said and "too few prompts (2) to conclude" in said
    file = load_drafter(out)
    assert file.drafts == 4 and file.validity is not None and file.validity.cache == "block_causal"
    assert set(file.values) == {"search", "test"}
    low, high = file.values["test"]["nfe_reduction_interval"]
    assert low <= file.values["test"]["nfe_reduction"] <= high
    shown = run("inspect", out)
    assert f"on search prompts: {file.values['search']['nfe_reduction']:.2f} times fewer forward passes" in shown
    assert f"on test prompts: {file.values['test']['nfe_reduction']:.2f} times fewer forward passes (95 %" in shown
    again = run("evaluate", folders / "test" / "8", folders / "test" / "4", "--drafter", out, "--json")
    assert f'"forwards_predicted": {file.values["test"]["forwards_predicted"]}' in again
    run("tune", *search, *test, "--out", out, code=1)  # it is there
    leaked = run("tune", *search, "--test", search[0], "--out", tmp_path / "other.json", code=1)
    assert "stand in the logs to tune on, or the graph's own prompts, too" in leaked
    assert asdict(file.settings).keys() == asdict(InformedSettings()).keys()


def test_a_test_log_of_another_rule_and_a_graph_of_the_test_prompts_are_refused(folders, logs, tmp_path):
    search, test, out = folders / "search" / "4", folders / "test" / "4", tmp_path / "tuned.json"
    record_states(
        tiny_checkpoint(seed=3), PROMPTS[4:], make_policy("threshold:0.5"), CONFIG, tmp_path / "other",
        InformedDrafter(4),
    )  # fmt: skip
    said = run("tune", search, "--test", tmp_path / "other", "--out", out, code=1)
    assert "--test was recorded with policy 'threshold:0.5', the logs to tune on with 'static:1'" in said
    log, held = logs
    made_for = trace_validity(log.metadata)
    for name, validity, searched in (
        ("leak", made_for, held.prompt_hashes()[:1]),
        ("foreign", replace(made_for, block_length=4), []),
        ("own", made_for, ["another prompt"]),
    ):
        graph = GraphFile.from_nodes(GRAPH, validity, provenance={"searched_prompts": searched})
        save_graph(graph, tmp_path / f"{name}.json")
    said = run("tune", search, "--test", test, "--graph", tmp_path / "leak.json", "--out", out, code=1)
    assert "1 of the 2 prompts in --test stand in the logs to tune on, or the graph's own prompts, too" in said
    said = run("tune", search, "--test", test, "--graph", tmp_path / "foreign.json", "--out", out, code=1)
    assert f"foreign.json does not fit the recording in {search}: block length" in said
    assert not out.exists()
    asked = ["--graph", tmp_path / "own.json", "--drafts", 4, "--trials", 2, "--out", out]
    run("tune", search, "--test", test, *asked)
    assert "another prompt" in load_drafter(out).provenance["searched_prompts"]


def test_a_stopped_study_in_memory_does_not_say_that_it_is_kept(folders, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.tuning.shared_study.work_on", stopped)
    arguments = [folders / "search" / "4", "--test", folders / "test" / "4", "--out", tmp_path / "tuned.json"]
    said = run("tune", *arguments, code=130)
    assert "stopped" in said and "kept" not in said
