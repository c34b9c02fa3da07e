"""``latency`` and ``budget``: from traces and a latency file to a verdict, and what is refused on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from calibrate.measuring.latency_table import LatencyTable
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.methods import SearchInput, find_graphs
from drafting.trie import PrefixTrie
from figures.records.latency import load_latency
from figures.records.record import save_record
from studies.cli.lists import parse_list
from studies.pricing.budget import choose_budget
from studies.pricing.measured import MeasuredSeconds
from studies.runs.splits import read_splits
from tests.studies.cli.test_statistics_commands import LENGTH
from tests.support.command_line import run
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.graph.file import load_graph

CHEAP = [10.0, 10.1, 10.2, 10.3, 14.0]
DEAR = [10.0, 40.0, 70.0, 100.0, 130.0]
GRAPH = "static-1.json"


def verdict(out: Path, name: str = "static-1") -> dict:
    return json.loads((out / f"{name}.budget.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("budget")
    for seed, name in enumerate(("search", "validation", "test")):
        write_folder(toy_traces(seed, prompts=12, blocks=2, length=LENGTH, noise=0.2), root / name)
    return root


def latency_file(path: Path, times: list[float], **change: object) -> Path:
    facts: dict = {
        "device": "cpu", "dtype": "float32", "model": "toy", "backend": "packed", "block_length": LENGTH,
        "context_length": 16, "batch": 1, "refresh": 12.0, "repeats": 5, "drafts": tuple(range(len(times))),
        "latency": tuple(times), "low": tuple(times), "high": tuple(times),
    } | change  # fmt: skip
    facts["query_tokens"] = tuple(facts["block_length"] * (1 + drafts) for drafts in facts["drafts"])
    save_record(LatencyTable(**facts), path)
    return path


def test_the_budget_is_chosen_on_one_split_and_reported_on_another(folder: Path, tmp_path: Path) -> None:
    latency, out = latency_file(tmp_path / "latency.json", CHEAP), tmp_path / "new"
    said = run("budget", folder, "--latency", latency, "--out", out)
    graph, saved = load_graph(out / GRAPH), verdict(out)
    search, judge = read_splits([folder / "search", folder / "test"]).tables
    problem = SearchInput(PrefixTrie.from_anchors(search), LENGTH, 1)
    nodes = {budget: found.nodes for budget, found in find_graphs("greedy", problem, range(1, 5)).items()}
    expected = choose_budget(nodes, search, judge, load_latency(latency))
    assert graph.budget == expected.best.budget == saved["budget"] > 0
    assert saved["rows"][graph.budget]["speedup"] == expected.best.speedup
    assert saved["sentence"] == expected.sentence and saved["budget_chosen_on"] == "search"
    assert graph.values["test"] == replay(graph.nodes[1:], judge).row()
    assert graph.latency is not None and graph.latency["latency"] == CHEAP
    assert f"D = {graph.budget} is predicted" in said and "held-out" in said


def test_from_a_model_to_a_verdict(
    checkpoint: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded under one spelling of the model's path and timed under another: it is the same model."""
    others = tmp_path / "others.jsonl"
    others.write_text(
        "".join(json.dumps({"tokens": [4 + (5 * n + k) % 40 for k in range(6)]}) + "\n" for n in range(3))
    )
    sizes = ["--block-length", 8, "--generation-length", 16, "--top-j", 4, "--policy", "static:1"]
    run("record", "--model", checkpoint, "--prompts", prompts, "--limit", 3, *sizes, "--out", tmp_path / "t" / "search")
    run("record", "--model", checkpoint, "--prompts", others, *sizes, "--out", tmp_path / "t" / "test")
    monkeypatch.chdir(checkpoint)
    latency = tmp_path / "made" / "latency.json"
    numbers = ["--drafts", "0-2", "--repeats", 3, "--block-length", 8, "--context-length", 8]
    run("latency", "--model", "./", *numbers, "--out", latency)
    said = run("budget", tmp_path / "t", "--latency", latency, "--out", tmp_path / "b")
    saved = verdict(tmp_path / "b")
    assert saved["validity"]["model"] == saved["latency"]["model"] == checkpoint.name
    assert saved["sentence"].split(":")[0] in said and [row["budget"] for row in saved["rows"]] == [0, 1, 2]
    if saved["budget"]:
        assert str(tmp_path) not in (tmp_path / "b" / GRAPH).read_text()


def test_validation_prompts_choose_when_given(folder: Path, tmp_path: Path) -> None:
    latency, out = latency_file(tmp_path / "latency.json", CHEAP), tmp_path / "out"
    run("budget", folder, "--latency", latency, "--validation", folder / "validation", "--out", out)
    saved = verdict(out)
    search, chooser, judge = read_splits([folder / name for name in ("search", "validation", "test")]).tables
    problem = SearchInput(PrefixTrie.from_anchors(search), LENGTH, 1)
    nodes = {budget: found.nodes for budget, found in find_graphs("greedy", problem, range(1, 5)).items()}
    expected = choose_budget(nodes, chooser, judge, load_latency(latency))
    assert [row["choice_speedup"] for row in saved["rows"]] == [row.choice_speedup for row in expected.rows]
    assert saved["budget_chosen_on"] == "validation" and set(load_graph(out / GRAPH).values) == {
        "search",
        "validation",
        "test",
    }


def test_a_method_that_is_not_nested_is_searched_per_budget(folder: Path, tmp_path: Path) -> None:
    latency, out = latency_file(tmp_path / "latency.json", CHEAP), tmp_path / "out"
    run("budget", folder, "--latency", latency, "--method", "sequoia", "--out", out)
    splits = read_splits([folder / "search", folder / "test"])
    problem = SearchInput(PrefixTrie.from_anchors(splits.tables[0]), LENGTH, 1)
    nodes = {budget: found.nodes for budget, found in find_graphs("sequoia", problem, range(1, 5)).items()}
    saved = verdict(out)
    expected = [replay(nodes.get(budget, ()), splits.tables[1]).forwards for budget in range(5)]
    assert [row["forwards"] for row in saved["rows"]] == expected
    assert "unknown method 'best'" in run("budget", folder, "--latency", latency, "--method", "best", code=1)


def test_do_not_speculate_is_a_result_that_is_kept(folder: Path, tmp_path: Path) -> None:
    latency, out = latency_file(tmp_path / "latency.json", DEAR), tmp_path / "out"
    said = run("budget", folder, "--latency", latency, "--out", out)
    saved = verdict(out)
    assert saved["budget"] == 0 and saved["sentence"].startswith("Do not speculate on this device")
    assert len(saved["rows"]) == 5 and not (out / GRAPH).exists() and "no graph is written" in said
    # The verdict is as precious as a graph: it is not written over unasked.
    assert "static-1.budget.json exists" in run("budget", folder, "--latency", latency, "--out", out, code=1)
    cheap = latency_file(tmp_path / "cheap.json", CHEAP)
    run("budget", folder, "--latency", cheap, "--out", out, "--overwrite")
    assert load_graph(out / GRAPH).budget > 0
    run("budget", folder, "--latency", latency, "--out", out, "--overwrite")
    assert not (out / GRAPH).exists()  # a graph beside the verdict against it would be taken for its result


def test_the_latency_of_another_model_or_dtype_is_refused(folder: Path, tmp_path: Path) -> None:
    for change, expected in (
        ({"model": "other"}, "measured with model 'other', the traces were recorded with 'toy'"),
        ({"dtype": "bfloat16"}, "measured with dtype 'bfloat16', the traces were recorded with 'float32'"),
    ):
        latency = latency_file(tmp_path / "latency.json", CHEAP, **change)
        said = run("budget", folder, "--latency", latency, code=1)
        assert expected in said and "--any-model" in said
        assert f"But the latency was {expected}" in run("budget", folder, "--latency", latency, "--any-model")
    latency = latency_file(tmp_path / "latency.json", CHEAP, block_length=LENGTH, model="toy")
    odd = json.loads(latency.read_text())
    odd |= {"block_length": 2 * LENGTH, "query_tokens": [2 * rows for rows in odd["query_tokens"]]}
    latency.write_text(json.dumps(odd))
    assert "measured for block length 20, the traces have 10" in run("budget", folder, "--latency", latency, code=1)


def test_a_table_of_another_context_is_refused(folder: Path, tmp_path: Path) -> None:
    """Refreshes cost otherwise there, and a model that can be both could be timed as either."""
    latency = latency_file(tmp_path / "latency.json", CHEAP, cache="block_causal")
    said = run("budget", folder, "--latency", latency, code=1)
    assert "measured with block_causal cache, the traces were recorded with dual" in said
    assert "measure with --cache dual" in said


@pytest.mark.parametrize("cache", ["none", "prefix"])
def test_contexts_with_other_rows_than_were_timed_are_refused(tmp_path: Path, cache: str) -> None:
    for seed, name in enumerate(("search", "test")):
        write_folder(toy_traces(seed, prompts=3, length=LENGTH), tmp_path / name, cache=cache)
    latency = latency_file(tmp_path / "latency.json", CHEAP)
    said = run("budget", tmp_path, "--latency", latency, "--any-model", code=1)
    assert f"recorded with cache '{cache}'" in said and "one block over a cached context" in said


def test_held_out_prompts_must_be_others(folder: Path, tmp_path: Path) -> None:
    latency = latency_file(tmp_path / "latency.json", CHEAP)
    said = run("budget", folder, "--latency", latency, "--test", folder / "search", code=1)
    assert "12 of the 12 prompts" in said
    said = run("budget", folder / "search", "--latency", latency, code=1)
    assert "holds no folder 'test'" in said and "--test" in said


def test_without_any_anchor_there_is_nothing_to_draft(tmp_path: Path) -> None:
    for seed, name in enumerate(("search", "test")):
        whole = toy_traces(seed, prompts=3, blocks=1, length=LENGTH, rule=f"static:{LENGTH}")
        assert AnchorTable.from_traces(whole).n_anchors == 0
        write_folder(whole, tmp_path / name, policy=f"static:{LENGTH}")
    latency = latency_file(tmp_path / "latency.json", CHEAP)
    assert "Do not speculate" in run("budget", tmp_path, "--latency", latency)


def test_numbers_of_drafts() -> None:
    for text, numbers in (("0-3", (0, 1, 2, 3)), ("4,1", (4, 1)), ("2-2", (2,)), ("0-2, 8,16", (0, 1, 2, 8, 16))):
        assert parse_list(text, int, "--drafts") == numbers
    assert parse_list("1-2", str, "--methods") == ("1-2",)
    with pytest.raises(ValueError, match="'4-2' runs backwards; write 2-4"):
        parse_list("4-2", int, "--drafts")


def test_a_missing_latency_file_is_called_that(folder: Path, tmp_path: Path) -> None:
    said = run("budget", folder, "--latency", tmp_path / "no.json", code=1)
    assert "no.json does not exist" in said and "draftgraph latency" in said and "run directory" not in said


def test_a_folder_of_latency_files_is_listed(folder: Path, tmp_path: Path) -> None:
    said = run("budget", folder, "--latency", tmp_path, code=1)
    assert f"{tmp_path} is a folder, expected a latency file" in said
    one = latency_file(tmp_path / "batch-1-context-128.json", CHEAP)
    other = latency_file(tmp_path / "batch-4-context-128.json", CHEAP)
    said = run("budget", folder, "--latency", tmp_path, code=1)
    assert f"{tmp_path} is a folder of tables; name one: {one}, {other}" in said


@pytest.mark.parametrize("inner", ["", "traces"])
def test_the_folder_of_a_run_is_sent_to_its_policies(folder: Path, tmp_path: Path, inner: str) -> None:
    traces = tmp_path / "run" / "traces" / "static-1"
    shutil.copytree(folder, traces)
    said = run("budget", tmp_path / "run" / inner, "--latency", latency_file(tmp_path / "latency.json", CHEAP), code=1)
    assert f"--test, or name a policy's folder: {traces}" in said
    said = run("budget", folder / "test", "--latency", tmp_path / "latency.json", code=1)
    assert said.endswith("with --test")


def test_several_policies_are_priced_at_once(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for seed, name in enumerate(("search", "test")):
        write_folder(
            toy_traces(seed, prompts=12, blocks=2, length=LENGTH, noise=0.2, rule="threshold:0.9"), other / name
        )
    latency, out, alone = latency_file(tmp_path / "latency.json", CHEAP), tmp_path / "priced", tmp_path / "alone"
    said = run("budget", folder, other, "--latency", latency, "--out", out, "--figures")
    assert said.count(": D = ") + said.count(": Do not speculate") == 2
    for traces, name in ((folder, "static-1"), (other, "threshold-0.9")):  # the suffix of a name is no suffix of a file
        run("budget", traces, "--latency", latency, "--out", alone)
        assert verdict(out, name) == verdict(alone, name)
        assert (
            (out / f"{name}.json").is_file() == (alone / f"{name}.json").is_file() == bool(verdict(out, name)["budget"])
        )
        assert (out / "figures" / f"speedup-{name}.png").is_file()
    assert load_graph(out / GRAPH) == load_graph(alone / GRAPH)
    assert (out / "figures" / "latency.png").is_file() and "figure " in said
    assert not (tmp_path / "figures").exists()  # that of the latency file is not this command's
    # Verdicts come after all tables, paths after all verdicts.
    assert said.rindex("ms each") < said.index("is predicted") < said.rindex("is predicted") < said.index("graph ")
    assert "exists; give another --out" in run("budget", folder, other, "--latency", latency, "--out", out, code=1)


def test_figures_are_never_drawn_into_a_package(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a clone of the repository, ./figures is source code."""
    latency = latency_file(tmp_path / "measured" / "latency.json", CHEAP)
    package = tmp_path / "clone" / "figures"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.chdir(package.parent)
    run("budget", folder, "--latency", latency, "--out", ".", "--figures")
    assert {path.stem for path in Path("saved-figures").iterdir()} == {"latency", "speedup-static-1"}
    said = run("plot", "static-1.budget.json", latency)
    assert "static-1-figures/speedup-static-1.png" in said
    assert (latency.parent / "latency-figures" / "latency.png").is_file()
    run("plot", ".")
    assert [path.name for path in package.iterdir()] == ["__init__.py"]


def test_a_verdict_needs_a_folder_and_a_name_of_its_own(folder: Path, tmp_path: Path) -> None:
    latency = latency_file(tmp_path / "latency.json", CHEAP)
    budget = ["budget", folder, folder, "--latency", latency]
    assert "several TRACES are of policy static:1" in run(*budget, "--out", tmp_path / "out", code=1)
    for out in (latency, tmp_path / "new.json"):
        said = run("budget", folder, "--latency", latency, "--out", out, "--overwrite", code=1)
        assert "is a file, expected a folder (for example the run)" in said
    assert not (tmp_path / "new.json").exists()
    assert "belong to one TRACES" in run(*budget, "--test", folder / "test", code=1)
    assert "--figures draws what --out wrote" in run(*budget[:2], *budget[3:], "--figures", code=1)


def test_the_verdict_goes_into_the_run_beside_what_the_run_measured(
    checkpoint: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(
        "calibrate", "--model", checkpoint, "--prompts", prompts, "--search-prompts", 4, "--test-prompts", 4,
        "--measured-prompts", 3, "--budgets", "0,1,2", "--methods", "greedy", "--policy", "static:1", "--no-figures",
        "--block-length", 8, "--generation-length", 16, "--top-j", 4, "--out", out,
    )  # fmt: skip
    facts = json.loads((out / "traces" / "static-1" / "search" / "manifest.json").read_text())["run"]
    change = {"model": facts["model"], "block_length": 8}
    latency = latency_file(tmp_path / "latency.json", [10.0, 10.0, 10.0], **change)
    traces = out / "traces" / "static-1"
    said = run("budget", traces, "--latency", latency, "--out", out, "--overwrite")  # ended with "Is a directory"
    saved = verdict(out)
    rows = {
        row["budget"]: row for row in json.loads((out / "results.json").read_text())["rows"] if row["split"] == "test"
    }
    assert saved["budget"] > 0 and saved["graph"] == GRAPH and (out / GRAPH).is_file()
    assert saved["measured_prompts"] == 3
    assert saved["measured_seconds_plain"] == rows[0]["seconds"] > 0
    assert saved["measured_seconds"] == rows[saved["budget"]]["seconds"] > 0
    plain, graph = saved["measured_seconds_plain"], saved["measured_seconds"]
    assert (
        f"the run decoded 3 prompts in {plain:.2f} s without drafts and in {graph:.2f} s with these drafts, "
        f"{plain / graph:.2f} times as fast; predicted {saved['predicted_speedup']:.2f}" in said
    )
    run("report", out)
    # Elsewhere, or with a graph that the run did not decode with, nothing was measured.
    shutil.copytree(traces, tmp_path / "copy")
    run("budget", tmp_path / "copy", "--latency", latency, "--out", tmp_path / "elsewhere")
    assert verdict(tmp_path / "elsewhere")["measured_seconds"] is None


def test_a_measured_time_against_the_prediction_is_said() -> None:
    measured = MeasuredSeconds(3, plain=2.59, drafted=4.01)
    assert measured.sentence(1.4, 1.3, 1.5) == (
        "Measured: the run decoded 3 prompts in 2.59 s without drafts and in 4.01 s with these drafts, 0.65 times as "
        "fast; predicted 1.40. That is outside the predicted interval: measure both again on an idle machine."
    )
    assert measured.sentence(0.7, 0.6, 0.8).endswith("predicted 0.70.")
