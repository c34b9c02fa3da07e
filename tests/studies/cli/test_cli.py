"""The command line as a person meets it: the whole path, and one clear message for each way to go wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from calibrate.traces.table import TraceError, read_traces, shard_paths
from calibrate.version import tool_version
from studies.report.report import write_report
from tests.calibrate.prompts.test_encoding import TEMPLATE, saved
from tests.support.command_line import run
from tests.support.paths import DOCS
from verify.decoding import DecodeResult
from verify.graph.file import load_graph

SIZES = ["--block-length", "8", "--generation-length", "16", "--top-j", "4"]


@pytest.fixture(scope="session")
def traces(checkpoint: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record") / "traces"
    run("record", "--model", checkpoint, "--prompts", prompts, "--policy", "static:1", *SIZES, "--out", folder)
    return folder


@pytest.fixture
def graph(traces: Path, tmp_path: Path) -> Path:
    path = tmp_path / "graph.json"
    run("search", traces, "--method", "greedy", "--budget", 4, "--out", path)
    return path


def test_search_evaluate_verify_export_decode(
    traces: Path, graph: Path, checkpoint: Path, prompts: Path, tmp_path: Path
) -> None:
    assert load_graph(graph).budget == 4
    assert "replay on 8 prompts, static:1, dual cache" in run("evaluate", graph, "--traces", traces)
    said = run("verify", graph, "--model", checkpoint, "--prompts", prompts, "--generation-length", 16)
    assert "8 of 8" in said
    for name in ("json", "safetensors", "dot"):
        run("export", graph, "--format", name, "--out", tmp_path / f"exported.{name}")
    assert load_graph(tmp_path / "exported.json") == load_graph(graph)
    common = ["decode", "--model", checkpoint, "--prompts", prompts, "--generation-length", 16]
    run(*common, "--graph", graph, "--out", tmp_path / "with.jsonl")
    run(*common, "--policy", "static:1", "--block-length", 8, "--out", tmp_path / "plain.jsonl")
    drafted = [json.loads(line) for line in (tmp_path / "with.jsonl").read_text().splitlines()]
    plain = [json.loads(line) for line in (tmp_path / "plain.jsonl").read_text().splitlines()]
    assert [d["tokens"] for d in drafted] == [p["tokens"] for p in plain]
    assert [d["steps"] for d in drafted] == [p["steps"] for p in plain] == [p["forwards"] for p in plain]
    assert sum(d["forwards"] for d in drafted) < sum(p["forwards"] for p in plain)
    assert all(d["query_tokens"] > p["query_tokens"] for d, p in zip(drafted, plain, strict=True))
    run(*common, "--graph", graph, "--batch-size", 3, "--out", tmp_path / "batch.jsonl")
    assert (tmp_path / "batch.jsonl").read_text() == (tmp_path / "with.jsonl").read_text()


@pytest.mark.parametrize("cache, backend", [("dual", "packed"), ("block_causal", "packed"), ("prefix", "expanded")])
def test_calibrate_writes_a_whole_run(
    checkpoint: Path, prompts: Path, tmp_path: Path, cache: str, backend: str
) -> None:
    out = tmp_path / "run"
    command = ["calibrate", "--model", checkpoint, "--prompts", prompts, *SIZES, "--budgets", "0,2,4", "--no-figures"]
    command += ["--policy", "static:1", "--policy", "threshold:0.3", "--cache", cache, "--backend", backend]
    said = run(*command, "--out", out)
    results = json.loads((out / "results.json").read_text())
    documented = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert [name for name in results["rows"][0] if f"`{name}`" not in documented] == []
    rows = [row for row in results["rows"] if row["split"] == "test"]
    assert {(row["policy"], row["method"], row["budget"]) for row in rows} == {
        (policy, method, budget)
        for policy in ("static:1", "threshold:0.3")
        for method, budgets in (
            ("plain", [0]),
            *((name, [2, 4]) for name in ("chain", "published", "greedy", "informed")),
        )
        for budget in budgets
    }
    for row in rows:
        assert row["tokens_identical"] == 1.0
        assert row["forwards_measured"] == row["forwards_predicted_measured"]
        if row["graph"]:
            assert load_graph(out / row["graph"]).budget == row["nodes"]
    assert "as the traces predicted" in said or "as its state log predicted" in said
    assert "NFE: forward passes; red.: times fewer of them" in said
    # A second call finds everything done: it measures nothing again and writes the same rows.
    before = {path: path.stat().st_mtime_ns for path in (out / "measured").iterdir()}
    run(*command, "--out", out)
    assert {path: path.stat().st_mtime_ns for path in (out / "measured").iterdir()} == before
    again = json.loads((out / "results.json").read_text())
    for row in [*again["rows"], *results["rows"]]:
        row.pop("search_seconds")  # a search is quick and done again; all else is read back
    assert again["rows"] == results["rows"]


def test_calibrate_refuses_a_directory_of_another_run(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["calibrate", "--model", checkpoint, "--prompts", prompts, *SIZES, "--policy", "static:2", "--no-figures"]
    run(*command, "--budgets", "0,2", "--out", out)
    said = run(*command, "--budgets", "0,3", "--out", out, code=1)
    assert "holds results of budgets that this run would drop (2); name them too" in said
    assert "--overwrite, which keeps the recordings" in said
    run(*command, "--budgets", "0,3", "--out", out, "--overwrite")
    assert sorted(path.name for path in (out / "graphs").iterdir()) == [
        f"static-2-{method}-D3.json" for method in ("chain", "greedy", "published")
    ]
    said = run(*command, "--budgets", "0,3", "--seed", 5, "--out", out, "--overwrite", code=1)
    assert (
        "search holds a trace of another run (seed: there 0, now 5); give another --out, or --overwrite-traces" in said
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    said = run(*command, "--out", tmp_path / "mine", "--overwrite", code=1)
    assert "are not a run" in said and (tmp_path / "mine" / "thesis.txt").read_text() == "words"


def test_output_file_that_exists(traces: Path, graph: Path) -> None:
    before = graph.read_bytes()
    assert "exists; give another --out, or --overwrite" in run("search", traces, "--out", graph, code=1)
    assert graph.read_bytes() == before


def test_missing_and_truncated_checkpoint(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "traces"
    said = run("record", "--model", tmp_path / "nowhere", "--prompts", prompts, "--out", out, code=1)
    assert "no checkpoint at" in said and "config.json" in said
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in checkpoint.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "cannot be loaded" in run("record", "--model", broken, "--prompts", prompts, "--out", out, code=1)
    assert not out.exists()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "holds no prompt"),
        ("{not json}\n", "line 1: not valid JSON"),
        ('{"tokens": [5]}\n{"question": "why"}\n', "line 2: expected the key 'prompt'"),
        ('{"tokens": [5, 4000]}\n', "token id 4000"),
        ('{"prompt": "words"}\n', "has no tokenizer"),
    ],
)
def test_bad_prompt_files(checkpoint: Path, tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    said = run("record", "--model", checkpoint, "--prompts", path, "--out", tmp_path / "traces", code=1)
    assert expected in said
    assert not (tmp_path / "traces").exists()


@pytest.mark.parametrize(
    "change, expected",
    [
        (["--policy", "static:2"], "policy: the graph was calibrated for 'static:1', the run has 'static:2'"),
        (["--policy", "static:1", "--block-length", "4"], "block length: the graph was calibrated for 8"),
    ],
)
def test_trace_of_another_rule(
    graph: Path, checkpoint: Path, prompts: Path, tmp_path: Path, change: list[str], expected: str
) -> None:
    other = tmp_path / "other"
    run("record", "--model", checkpoint, "--prompts", prompts, *SIZES, *change, "--out", other)
    assert expected in run("evaluate", graph, "--traces", other, code=1)
    verify = ["verify", graph, "--model", checkpoint, "--prompts", prompts, "--generation-length", 16]
    assert expected in run(*verify, *change, code=1)


def test_a_policy_that_need_not_be_given(graph: Path, checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    common = ["--model", checkpoint, "--prompts", prompts, "--generation-length", 16]
    for command in (["decode", "--graph", graph, "--out", tmp_path / "out.jsonl"], ["verify", graph]):
        said = run(*command, *common, "--policy", "static:2", code=1)
        assert said.endswith("the run has 'static:2'; leave --policy out")
        assert "leave --policy out" not in run(*command, *common, "--block-length", 4, code=1)


def test_results_are_no_graph(traces: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text('{"format": "draftgraph-results", "version": 1, "rows": []}')
    said = run("decode", "--graph", results, "--out", tmp_path / "out.jsonl", code=1)
    assert said.endswith(f"these are results, graphs are under {tmp_path / 'graphs'}/")
    assert "these are results" in run("evaluate", results, "--traces", traces, code=1)


def test_cuda_graphs_are_for_cuda(tmp_path: Path) -> None:
    for command in ("record", "decode"):
        said = run(command, "--cuda-graphs", "--out", tmp_path / "out", code=1)
        assert "--cuda-graphs needs --device cuda, got --device cpu" in said


def test_the_version() -> None:
    assert run("--version") == f"draftgraph {tool_version()}"


def test_hostile_graph_file(graph: Path, traces: Path) -> None:
    content = json.loads(graph.read_text())
    content["nodes"].append([[900, 1]])
    graph.write_text(json.dumps(content))
    said = run("evaluate", graph, "--traces", traces, code=1)
    assert str(graph.name) in said and "900" in said


def test_corrupted_shard_is_named_and_redone(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "traces"
    command = ["record", "--model", checkpoint, "--prompts", prompts, "--policy", "static:1", *SIZES, "--out", out]
    run(*command)
    whole = read_traces(out).trace_hash()
    shard = shard_paths(out)[1]
    shard.write_bytes(shard.read_bytes()[:200])
    for arguments in (["search", out, "--out", tmp_path / "g.json"], command):
        said = run(*arguments, code=1)
        assert shard.name in said and "delete" in said
    shard.unlink()
    run(*command)
    assert read_traces(out).trace_hash() == whole


def test_record_refuses_another_rule_in_the_same_folder(traces: Path, checkpoint: Path, prompts: Path) -> None:
    command = ["record", "--model", checkpoint, "--prompts", prompts, *SIZES, "--out", traces]
    said = run(*command, "--policy", "static:2", code=1)
    assert "policy: there 'static:1', now 'static:2'" in said


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--policy", "dynamic:3"], "policy 'dynamic:3': tau is '3', expected a number above 0"),
        (["--cache", "sideways"], "unknown cache mode 'sideways'"),
        (["--budgets", "0,many"], "--budgets"),
        (["--methods", "wishful"], "unknown method 'wishful'"),
        (["--generation-length", "20"], "no multiple of block length"),
    ],
)
def test_bad_options(checkpoint: Path, prompts: Path, tmp_path: Path, arguments: list[str], expected: str) -> None:
    command = ["calibrate", "--model", checkpoint, "--prompts", prompts, *SIZES, "--no-figures"]
    assert expected in run(*command, "--out", tmp_path / "run", *arguments, code=1)
    assert not (tmp_path / "run").exists()


def test_interrupt_keeps_what_is_done(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    """A real process, a real SIGINT in the middle of a recording, and a rerun that goes on."""
    many = tmp_path / "many.jsonl"
    lines = [json.dumps({"tokens": [3 + (n + k) % 45 for k in range(6)]}) for n in range(200)]
    many.write_text("\n".join(lines))
    out = tmp_path / "traces"
    script = "from studies.cli import main; main()"
    command = [sys.executable, "-c", script, "record", "--model", str(checkpoint), "--prompts", str(many)]
    command += ["--policy", "static:1", *SIZES, "--out", str(out)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ,
        # A suite that runs in the background hands an ignored SIGINT down; a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and len(shard_paths(out)) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same command again" in said
    with pytest.raises(TraceError, match=r"holds \d+ of 200 prompts: the recording was stopped"):
        read_traces(out)
    done = len(set(read_traces(out, partial=True).prompt_index.tolist()))
    assert 8 <= done < 200
    kept = {path.name: path.stat().st_mtime_ns for path in shard_paths(out)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=240)
    assert set(read_traces(out).prompt_index.tolist()) == set(range(200))
    assert {path.name: path.stat().st_mtime_ns for path in shard_paths(out) if path.name in kept} == kept


def test_overwrite_never_deletes_what_is_no_run(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    """A checkpoint has a config.json too."""
    mine = tmp_path / "model"
    shutil.copytree(checkpoint, mine)
    command = ["calibrate", "--model", checkpoint, "--prompts", prompts, *SIZES, "--no-figures", "--out", mine]
    for option in ("--overwrite", "--overwrite-traces"):
        assert "are not a run" in run(*command, option, code=1)
    assert {path.name for path in mine.iterdir()} == {path.name for path in checkpoint.iterdir()}


def test_a_near_lossless_mode_says_so(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    command = ["calibrate", "--model", checkpoint, "--prompts", prompts, *SIZES, "--budgets", "0,4", "--no-figures"]
    said = run(*command, "--policy", "static:1", "--cache", "none", "--out", tmp_path / "run")
    assert "near-lossless: identity is measured, not promised" in said
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "near-lossless only" in page
    rows = [
        row for row in json.loads((tmp_path / "run" / "results.json").read_text())["rows"] if row["split"] == "test"
    ]
    whole = all(row["tokens_identical"] == 1.0 for row in rows)
    assert ("gave the tokens of plain decoding" in page) == whole


def test_a_policy_may_be_spelled_otherwise(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    command = ["calibrate", "--model", checkpoint, "--prompts", prompts, *SIZES, "--budgets", "0,2", "--no-figures"]
    said = run(*command, "--policy", "threshold:.30", "--policy", "threshold:0.3", "--out", tmp_path / "run")
    assert said.count("held-out prompts, 4 of them run with every graph") == 1 and "threshold:0.3, dual" in said


def test_held_out_prompts_must_be_others(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    command = ["calibrate", "--model", checkpoint, "--prompts", prompts, *SIZES, "--no-figures"]
    said = run(*command, "--test", prompts, "--out", tmp_path / "run", code=1)
    assert "8 of the 8 prompts in the held-out split stand in the search split too" in said
    twice = tmp_path / "twice.jsonl"
    twice.write_text("".join(f"{line}\n{line}\n" for line in prompts.read_text().splitlines()))
    command[4] = twice
    run(*command, "--policy", "static:2", "--budgets", "0,2", "--out", tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert {row["prompts"] for row in rows} == {4}


def test_nothing_to_draft(checkpoint: Path, prompts: Path, traces: Path, tmp_path: Path) -> None:
    """At so low a threshold every block is complete after its first forward."""
    command = ["--model", checkpoint, "--prompts", prompts, *SIZES, "--policy", "threshold:0.001"]
    said = run("calibrate", *command, "--methods", "greedy", "--no-figures", "--out", tmp_path / "run")
    assert "no draft was ever possible" in said and "4 (0)" not in said.split("no graph")[1]
    run("record", *command, "--out", tmp_path / "traces")
    assert "nothing to draft" in run("search", tmp_path / "traces", "--out", tmp_path / "g.json", code=1)


def test_an_incomplete_recording_is_not_searched(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "traces"
    run("record", "--model", checkpoint, "--prompts", prompts, "--policy", "static:1", *SIZES, "--out", out)
    shard_paths(out)[0].unlink()
    said = run("search", out, "--out", tmp_path / "g.json", code=1)
    assert "holds 4 of 8 prompts" in said and not (tmp_path / "g.json").exists()


def test_search_says_what_is_proved(traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "graph.json"
    said = run("search", traces, "--method", "exact", "--budget", 3, "--out", out)
    assert "proved optimal" in said
    search = load_graph(out).values["search"]
    assert search["gap"] == 0 and search["bound"] == pytest.approx(search["accepted_drafts"])
    said = run("search", traces, "--method", "chain", "--budget", 3, "--out", tmp_path / "chain.json")
    other = load_graph(tmp_path / "chain.json").values["search"]
    assert other["bound"] >= search["bound"] > other["accepted_drafts"]
    assert f"NOT proved optimal: gap {100 * other['gap']:.2f} %" in said


def test_a_damaged_measurement_is_measured_again(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    command = ["calibrate", "--model", checkpoint, "--prompts", prompts, *SIZES, "--policy", "static:2", "--no-figures"]
    run(*command, "--budgets", "0,2", "--out", tmp_path / "run")
    measured = tmp_path / "run" / "measured" / "static-2-greedy-D2.json"
    whole = json.loads(measured.read_text())
    measured.write_text("{half")
    run(*command, "--budgets", "0,2", "--out", tmp_path / "run")
    assert json.loads(measured.read_text())["forwards_per_prompt"] == whole["forwards_per_prompt"]


def test_decode_keeps_what_was_done(
    checkpoint: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import verify.decoding

    real = verify.decoding.decode_batch

    def third_time_interrupted(*arguments: object, **named: object) -> Iterator[tuple[int, DecodeResult]]:
        yield from islice(real(*arguments, **named), 2)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(verify.decoding, "decode_batch", third_time_interrupted)
    out = tmp_path / "answers.jsonl"
    command = ["decode", "--model", checkpoint, "--prompts", prompts, "--generation-length", 16, "--block-length", 8]
    said = run(*command, "--batch-size", 3, "--out", out, code=130)
    assert "the 2 of 8 prompts that were done are in" in said and "run the same command" not in said
    assert not out.exists() and len(out.with_name("answers.jsonl.partial").read_text().splitlines()) == 2


def test_a_prompt_with_the_mask_token_is_named(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "good", "tokens": [5]}\n{"id": "odd", "tokens": [5, 1]}\n')
    said = run("record", "--model", checkpoint, "--prompts", path, "--out", tmp_path / "traces", code=1)
    assert 'prompt "odd" holds the mask token 1 at index 1' in said


def test_attention_that_the_checkpoint_lacks(checkpoint: Path, prompts: Path, graph: Path, tmp_path: Path) -> None:
    mine = tmp_path / "model"
    shutil.copytree(checkpoint, mine)
    facts = json.loads((mine / "draftgraph.json").read_text())
    (mine / "draftgraph.json").write_text(json.dumps(facts | {"attention": ["block_causal"]}))
    common = ["--model", mine, "--prompts", prompts, "--cache", "dual", "--out", tmp_path / "out"]
    for command in (["record", *common, *SIZES], ["decode", *common], ["calibrate", *common, *SIZES]):
        assert "needs bidirectional attention" in (said := run(*command, code=1))
        assert "leave --cache out, or give --cache block_causal" in said
        assert not (tmp_path / "out").exists()


def test_weights_without_a_place_are_refused(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    mine = tmp_path / "model"
    shutil.copytree(checkpoint, mine)
    config = json.loads((mine / "config.json").read_text())
    (mine / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    said = run("record", "--model", mine, "--prompts", prompts, "--out", tmp_path / "traces", code=1)
    assert "no place for" in said


def test_a_prompt_of_unknown_words_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "odd", "prompt": "antidisestablishmentarianism"}\n')
    said = run("record", "--prompts", path, "--out", tmp_path / "traces", code=1)
    assert 'prompt "odd" cannot be tokenized' in said and not (tmp_path / "traces").exists()


def test_export_does_not_hide_a_format_behind_another_suffix(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported.json"
    assert "ends in .json, but --format is safetensors" in run("export", graph, "--out", out, code=1)
    assert not out.exists()


def test_commands_that_several_processes_would_repeat(
    graph: Path, traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    for command in (["evaluate", graph, "--traces", traces], ["decode", "--out", tmp_path / "out.jsonl"]):
        assert f"{command[0]} is work for one process, but this is one of 2" in run(*command, code=1)


def test_a_base_model_takes_no_chat(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    common = ["--model", checkpoint, "--prompts", prompts, "--chat", "--out", tmp_path / "out"]
    for command in ("record", "decode", "calibrate"):
        assert "brings no chat template" in run(command, *common, code=1)
        assert not (tmp_path / "out").exists()


def test_a_revision_is_for_the_hub(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    common = ["--model", checkpoint, "--prompts", prompts, "--revision", "v2", "--out", tmp_path / "out"]
    for command in ("record", "decode", "calibrate"):
        assert "only models on the hub have revisions" in run(command, *common, code=1)


def test_record_says_how_fast_it_was_and_in_what(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    command = ["record", "--model", checkpoint, "--prompts", prompts, *SIZES, "--policy", "static:1"]
    said = run(*command, "--dtype", "bfloat16", "--batch-size", "3", "--out", tmp_path / "traces")
    assert re.search(r"recorded 8 prompts, \d+ tokens in [\d.]+ s: [\d.]+ prompts/s, [\d.]+ tokens/s \(batch 3\)", said)
    facts = json.loads((tmp_path / "traces" / "manifest.json").read_text())["run"]
    assert (facts["dtype"], facts["device"], facts["chat"]) == ("bfloat16", "cpu", False)
    assert facts["device_name"] and facts["prompt_source"] == str(prompts)
    again = run(*command, "--dtype", "bfloat16", "--batch-size", "3", "--out", tmp_path / "traces")
    assert "all 8 prompts were recorded already" in again and "prompts/s" not in again
    said = run(*command, "--device", "cuda:99", "--out", tmp_path / "more", code=1)
    assert "device 'cuda:99' is not there" in said and not (tmp_path / "more").exists()


def test_calibrate_on_benchmark_prompts_in_a_chat_template(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", TEMPLATE)
    (tmp_path / "copy").mkdir()
    for split, low in (("train", 10), ("test", 30)):
        lines = [{"question": f"w{low + n % 15} w{10 + n}", "answer": f"#### {n}"} for n in range(26)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "copy" / f"{split}.jsonl").write_text(text)
    command = ["calibrate", "--model", model, "--prompts", f"datasets:gsm8k,path={tmp_path / 'copy'}", "--chat", *SIZES]
    command += ["--policy", "static:1", "--budgets", "0,2", "--methods", "greedy", "--batch-size", "4", "--no-figures"]
    said = run(*command, "--search-prompts", 8, "--test-prompts", 4, "--out", tmp_path / "run")
    assert "recorded 8 prompts" in said and "as the traces predicted" in said
    for split, count in (("search", 8), ("test", 4)):
        facts = json.loads((tmp_path / "run" / "traces" / "static-1" / split / "manifest.json").read_text())["run"]
        assert facts["prompts"] == count and facts["chat"] is True
    assert 'unknown data set "gsm"' in run("record", "--prompts", "datasets:gsm", "--out", tmp_path / "traces", code=1)


def test_sigterm_keeps_what_ctrl_c_would_keep(checkpoint: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.jsonl"
    many.write_text("\n".join(json.dumps({"tokens": [3 + (n + k) % 45 for k in range(6)]}) for n in range(200)))
    out = tmp_path / "traces"
    threading.Thread(target=_terminate_once, args=(out,), daemon=True).start()
    command = ["record", "--model", checkpoint, "--prompts", many, "--policy", "static:1", *SIZES, "--out", out]
    said = run(*command, code=143)
    assert "stopped by SIGTERM. What is finished is kept; run the same command again to go on." in said
    assert 4 <= len(set(read_traces(out, partial=True).prompt_index.tolist())) < 200
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _terminate_once(out: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not shard_paths(out):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
