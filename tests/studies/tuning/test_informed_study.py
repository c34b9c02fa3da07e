"""Tuning informed drafts on a log: what a trial is, that the best is judged on other prompts, and the file written."""

from dataclasses import asdict, replace

import optuna
import pytest

from calibrate.recording.states import record_states
from calibrate.traces.state_log import read_states
from drafting.state_replay import replay_states
from studies.tuning.informed_study import DEFAULT, MIXTURE, TuningConfig, changes, judge, suggest, tuning_question
from studies.tuning.shared_study import StudyError, work_on
from tests.support.command_line import run
from tests.support.models import tiny_checkpoint
from verify.decoding import DecodeConfig
from verify.drafters.file import load_drafter
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
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
    again = run("evaluate", folders / "test" / "8", folders / "test" / "4", "--drafter", out, "--json")
    assert f'"forwards_predicted": {file.values["test"]["forwards_predicted"]}' in again
    run("tune", *search, *test, "--out", out, code=1)  # it is there
    leaked = run("tune", *search, "--test", search[0], "--out", tmp_path / "other.json", code=1)
    assert "stand in the logs to tune on too" in leaked
    assert asdict(file.settings).keys() == asdict(InformedSettings()).keys()
