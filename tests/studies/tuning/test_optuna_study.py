"""Studies: the same every time, refused over other traces, honest about what they won."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from calibrate.traces.table import Traces
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from figures.records.study import StudyFile
from studies.statistics.crossval import SplitError
from studies.tuning.fold_objective import FoldObjective
from studies.tuning.optuna_study import StudyConfig, objective_values, run_study
from studies.tuning.pareto import front, pareto_results
from studies.tuning.shared_study import StudyError
from studies.tuning.study_data import find_domains, load_study_input, study_data
from studies.tuning.study_results import BASELINES, study_results, write_study
from tests.support.study_toys import CONFIG, data, traces, values, write_folder
from tests.support.toy import toy_traces
from verify.graph.formulas import formula


def test_a_seeded_study_is_the_same_bit_for_bit() -> None:
    first, second = (run_study(data(), CONFIG, 14) for _ in range(2))
    assert (first.own, first.finished) == (14, 14)
    assert values(first.study) == values(second.study)
    other = StudyConfig(budgets=CONFIG.budgets, folds=2, seed=1)
    assert values(run_study(data(config=other), other, 14).study) != values(first.study)


def test_the_first_warm_start_is_greedy_on_held_out_prompts() -> None:
    found = data()
    study = run_study(found, CONFIG, 5).study
    assert study.trials[0].user_attrs["warm_start"] == "greedy"
    held = found.objective.baseline("greedy", found.block_length)
    assert study.trials[0].value == held.mean(axis=0).sum() / found.objective.plain.sum()
    assert study.best_value <= study.trials[0].value


def test_the_objective_never_replays_a_prompt_that_built_the_graph() -> None:
    found = data(prompts=9)
    objective = found.objective
    assert sorted(objective.prompt_indices.tolist()) == objective.anchors.prompt_indices().tolist()
    expected = []
    for held in objective.held_out:
        rest = objective.anchors.select(np.setdiff1d(objective.anchors.prompt_indices(), held))
        order = greedy(rest_trie(rest), 5).nodes
        table = objective.anchors.select(held)
        expected.append([replay(order[:budget], table).forwards_per_prompt for budget in (2, 5)])
    np.testing.assert_array_equal(objective.forwards({}), np.concatenate(expected, axis=1))
    assert objective_values(objective.forwards({}), found, CONFIG) == pytest.approx(
        np.mean(objective.forwards({}).sum(axis=1)) / objective.plain.sum()
    )


def rest_trie(anchors: AnchorTable) -> PrefixTrie:
    return PrefixTrie.from_anchors(anchors)


def test_a_study_goes_on_where_it_was(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    run_study(data(), CONFIG, 6, storage=storage)
    resumed = run_study(data(), CONFIG, 12, storage=storage)
    assert (resumed.own, resumed.finished) == (6, 12)
    assert values(resumed.study) == values(run_study(data(), CONFIG, 12).study)
    assert run_study(data(), CONFIG, 5, storage=storage).own == 0


def test_a_study_over_other_traces_is_refused_with_both_hashes(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    run_study(data(0), CONFIG, 2, storage=storage)
    with pytest.raises(StudyError) as error:
        run_study(data(1), CONFIG, 4, storage=storage)
    assert data(0).trace_hash in str(error.value)
    assert data(1).trace_hash in str(error.value)
    assert "give the traces it was made with, or another --study-name" in str(error.value)
    assert run_study(data(1), CONFIG, 2, storage=storage, name="other").finished == 2


def test_a_study_of_another_configuration_is_refused(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    run_study(data(), CONFIG, 2, storage=storage)
    other = StudyConfig(budgets=(2, 6), folds=2)
    with pytest.raises(StudyError, match=r"another configuration \(budgets: there \[2, 5\], now \[2, 6\]\)"):
        run_study(data(config=other), other, 2, storage=storage)


def test_a_study_that_is_not_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    foreign = optuna.create_study(storage=storage, study_name="draftgraph")
    foreign.ask()
    monkeypatch.setattr("studies.tuning.shared_study._SETTLE_SECONDS", 0.0)
    with pytest.raises(StudyError, match="was not made by draftgraph"):
        run_study(data(), CONFIG, 2, storage=storage)


def test_the_pruner_stops_bad_trials_and_never_crowns_them() -> None:
    config = StudyConfig(budgets=(2, 5), folds=2, prune=0.2)
    found = data(config=config, prompts=32)
    study = run_study(found, config, 20).study
    pruned = [trial for trial in study.trials if "pruned_after" in trial.user_attrs]
    assert pruned
    for trial in pruned:
        assert len(trial.intermediate_values) == trial.user_attrs["pruned_after"] == 16
        assert trial.value == pytest.approx(np.mean(list(trial.intermediate_values.values())))
    assert study.best_trial not in pruned
    whole = found.objective.forwards(study.best_params)
    assert study.best_value == pytest.approx(whole.mean(axis=0).sum() / found.objective.plain.sum())
    best = study.best_trial.intermediate_values
    assert len(best) == 32
    assert np.mean(list(best.values())) == pytest.approx(study.best_value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(kind="other"), "kind must be one of forwards, query_tokens, domains, got 'other'"),
        (dict(prune=1.5), "prune is a p-value between 0 and 1"),
        (dict(kind="query_tokens", prune=0.1), "two objectives, and pruning needs one"),
        (dict(seed=-1), "seed must be at least 0"),
    ],
)
def test_nonsense_configurations_are_refused(options: dict, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        StudyConfig(**options)


def test_nothing_to_search_on_is_said() -> None:
    with pytest.raises(StudyError, match="at least one trial, got 0"):
        run_study(data(), CONFIG, 0)
    with pytest.raises(ValueError, match="a budget of at least 1 draft node"):
        study_data(traces(), StudyConfig(budgets=(0,), folds=2))
    with pytest.raises(SplitError, match="2 folds need at least 2 prompts, got 1"):
        study_data(traces(prompts=1), CONFIG)
    with pytest.raises(ValueError, match="every block is complete within two steps"):
        study_data(toy_traces(0, prompts=6, length=2), CONFIG)
    empty = traces().select([])
    with pytest.raises(ValueError, match="no anchor"):
        study_data(empty, CONFIG)


def test_a_budget_beyond_the_candidates_holds_them_all() -> None:
    config = StudyConfig(budgets=(3, 5000), folds=2)
    found = study_data(traces(prompts=4), config)
    assert found.objective.states < 5000
    study = run_study(found, config, 3).study
    greedy_all = found.objective.baseline("greedy", found.block_length)
    assert study.trials[0].value == pytest.approx(greedy_all.mean(axis=0).sum() / found.objective.plain.sum())


def test_an_objective_knows_its_candidates() -> None:
    objective = data().objective
    assert isinstance(objective, FoldObjective)
    assert "domain_mix" not in objective.names
    assert "domain_mix" in data(domains=True).objective.names


def folder(tmp_path: Path, found: Traces | None = None, **facts: object) -> Path:
    return write_folder(found if found is not None else traces(prompts=12), tmp_path, **facts)


def test_results_say_plainly_whether_anything_was_won(tmp_path: Path) -> None:
    given = load_study_input(folder(tmp_path / "traces"), CONFIG)
    assert not set(given.test.prompt_indices()) & set(given.data.objective.prompt_indices)
    assert len(given.test.prompt_indices()) == 3
    study = run_study(given.data, CONFIG, 12).study
    found = study_results(given, CONFIG, study)
    path = write_study(tmp_path, found)
    read = json.loads(path.read_text())
    assert (read["format"], read["version"]) == (StudyFile.FORMAT, 1)
    assert read["config"]["budgets"] == [2, 5]
    assert [row["number"] for row in read["trials"]] == list(range(12))
    assert {row["method"] for row in read["baselines"]} == {*BASELINES, "optuna"}
    nodes = [formula(tuple(pair) for pair in node) for node in read["best"]["nodes"]]
    for row in read["baselines"]:
        if row["method"] == "optuna" and row["split"] == "test":
            assert row["forwards"] == replay(nodes[: row["budget"]], given.test).forwards
        assert row["nfe_reduction"] == pytest.approx(row["forwards_plain"] / row["forwards"])
    told = read["comparisons"]["greedy"]
    low, high = told["interval"]
    assert told["against"] == "greedy"
    assert low <= told["difference"] <= high
    assert told["contains_zero"] == (low <= 0 <= high)
    assert not told["distinguishable"] and "too few prompts (3) to conclude" in told["sentence"]
    assert [row["budget"] for row in told["by_budget"]] == [2, 5]
    assert sum(read["importances"][0].values()) == pytest.approx(1.0)
    write_study(tmp_path, found)
    other = StudyConfig(budgets=(2, 5), folds=2, seed=5)
    there = load_study_input(tmp_path / "traces", other)
    with pytest.raises(StudyError, match="holds another study; give another --out, or --overwrite"):
        write_study(tmp_path, study_results(there, other, run_study(there.data, other, 2).study))


def test_a_graph_that_is_greedy_wins_nothing_and_says_so(tmp_path: Path) -> None:
    given = load_study_input(folder(tmp_path / "traces"), CONFIG)
    study = run_study(given.data, CONFIG, 1).study
    told = study_results(given, CONFIG, study)["comparisons"]["greedy"]
    assert told["difference"] == 0
    assert told["contains_zero"]
    assert "too few prompts (3) to conclude" in told["sentence"]


def test_recordings_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    search = folder(tmp_path / "search")
    other_rule = folder(tmp_path / "rule", traces(1), policy="static:2")
    with pytest.raises(SplitError, match=r"was recorded with policy 'static:2', .*search with 'static:1'"):
        load_study_input(search, CONFIG, test=other_rule)
    with pytest.raises(SplitError, match=r"was recorded with dtype 'bfloat16', .*search with 'float32'"):
        load_study_input(search, CONFIG, test=folder(tmp_path / "coarse", traces(1), dtype="bfloat16"))
    # One prompt in eight is a search prompt too; the sets as a whole differ.
    mixed = [*traces(1).metadata["prompt_hashes"][:7], traces(0).metadata["prompt_hashes"][3]]
    with pytest.raises(SplitError, match=r"1 of the 8 prompts in .*mixed stand in .*search too"):
        load_study_input(search, CONFIG, test=folder(tmp_path / "mixed", traces(1), prompt_hashes=mixed))
    lonely = folder(tmp_path / "lonely", traces(1, prompts=1))
    with pytest.raises(SplitError, match="at least 2 test prompts"):
        load_study_input(search, CONFIG, test=lonely)
    few = folder(tmp_path / "few", traces(prompts=5))
    with pytest.raises(SplitError, match="holds 5 prompts; 2 folds and a test split of their own need at least 8"):
        load_study_input(few, CONFIG)
    with pytest.raises(StudyError, match="is not the prompt set of this recording"):
        load_study_input(search, CONFIG, prompts="bundled")


def test_domains_come_from_the_prompt_set_that_was_recorded(tmp_path: Path) -> None:
    from calibrate.prompts.encoding import prompt_hash

    ids = [[1, 2], [3], [4, 5]]
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"tokens": tokens, "domain": name}) for tokens, name in zip(ids, "xyx", strict=True)]
    path.write_text("\n".join(lines))
    run = {"prompt_hashes": [prompt_hash(one) for one in ids], "model": "nobody"}
    assert find_domains(run, str(path)) == {0: "x", 1: "y", 2: "x"}
    # A part of the file in another order: each prompt is found by its own hash.
    assert find_domains({**run, "prompt_hashes": run["prompt_hashes"][:0:-1]}, str(path)) == {0: "x", 1: "y"}
    assert find_domains({**run, "prompt_hashes": ["else"]}) is None


def test_domains_of_a_recording_in_a_chat_template(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from calibrate.prompts.encoding import prompt_hash

    tokenizer = Tokenizer(models.WordLevel({f"w{k}": k for k in range(9)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "w7 {{ messages[0]['content'] }} w8"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0", chat_template=template)
    fast.save_pretrained(tmp_path / "model")
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "w1 w2", "domain": "x"}\n{"prompt": "w3", "domain": "y"}')
    run: dict[str, Any] = {"model": "m", "model_source": str(tmp_path / "model"), "chat": True}
    run["prompt_hashes"] = [prompt_hash((7, 1, 2, 8)), prompt_hash((7, 3, 8))]
    assert find_domains(run, str(path)) == {0: "x", 1: "y"}
    with pytest.raises(StudyError, match="is not the prompt set of this recording"):
        find_domains({**run, "chat": False}, str(path))


def test_the_front_by_hand() -> None:
    points = np.array([[3.0, 9.0], [2.0, 5.0], [2.0, 6.0], [1.0, 5.0], [3.0, 9.0]])
    assert front(points, (True, False)).tolist() == [True, True, False, False, True]
    assert front(np.zeros((0, 2)), (True, False)).tolist() == []


def test_tokens_per_forward_against_rows(tmp_path: Path) -> None:
    config = StudyConfig(kind="query_tokens", budgets=(6,), folds=2)
    given = load_study_input(folder(tmp_path / "traces"), config)
    study = run_study(given.data, config, 16).study
    found = pareto_results(given, config, study)
    for row in found["pareto"]:
        assert row["values"][1] == row["test_values"][1] == 7 * (1 + row["budget"])
        assert 1 <= row["budget"] <= 6
    for method in {row["method"] for row in found["pareto"]}:
        points = np.array([row["values"] for row in found["pareto"] if row["method"] == method])
        assert front(points, (True, False)).all()
    ours = [tuple(row["values"]) for row in found["pareto"] if row["method"] == "optuna"]
    assert sorted(set(ours)) == ours
    # By hand: what greedy's graphs give on test prompts.
    order = greedy(rest_trie(given.data.objective.anchors), 6).nodes
    row = next(row for row in found["pareto"] if row["method"] == "greedy")
    tokens = given.test_tokens / replay(order[: row["budget"]], given.test).forwards
    assert row["test_values"][0] == pytest.approx(tokens)
    write_study(tmp_path, found)


def test_two_domains_against_each_other() -> None:
    config = StudyConfig(kind="domains", budgets=(4,), folds=2)
    found = data(config=config, prompts=12, domains=True)
    study = run_study(found, config, 14).study
    mixes = {trial.params["domain_mix"] for trial in study.best_trials}
    assert len(study.trials) == 14
    assert mixes
    forwards, plain = found.objective.forwards(study.trials[3].params), found.objective.plain
    even = found.objective.prompt_indices % 2 == 0
    assert study.trials[3].values == pytest.approx(
        [forwards[0][part].sum() / plain[part].sum() for part in (even, ~even)]
    )
    with pytest.raises(StudyError, match="exactly two domains, got none"):
        run_study(data(config=config), config, 2)


def test_the_command_joins_writes_and_refuses(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from studies.cli.app import app

    place = folder(tmp_path / "traces")
    out = tmp_path / "run"
    shared = ["study", str(place), "--budgets", "2,5", "--folds", "2", "--storage", str(tmp_path / "study.journal")]
    with warnings.catch_warnings():
        warnings.simplefilter("error", optuna.exceptions.ExperimentalWarning)
        first = CliRunner().invoke(app, [*shared, "--trials", "4"])
        assert first.exit_code == 0, first.output
        assert "4 trials finished" in first.output
        second = CliRunner().invoke(app, [*shared, "--trials", "6", "--out", str(out)])
    assert second.exit_code == 0, second.output
    assert "2 of them here" in " ".join(second.output.split())
    assert len(json.loads((out / "study.json").read_text())["trials"]) == 6
    from verify.graph.file import load_graph

    graph = load_graph(out / "graphs" / "static-1-optuna-D5.json")
    assert graph.budget == 5
    refused = CliRunner().invoke(app, [*shared[:-2], "--seed", "3", "--out", str(out), "--trials", "1"])
    assert refused.exit_code == 1
    alone = CliRunner().invoke(app, [*shared[:-2], "--workers", "2", "--trials", "1"])
    assert alone.exit_code == 1
