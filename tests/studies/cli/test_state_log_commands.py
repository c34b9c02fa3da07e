"""State logs on the command line: recorded with drafts, replayed over, looked at; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibrate.traces.state_log import read_states
from calibrate.traces.table import shard_paths
from tests.support.command_line import run
from verify.drafters.file import DrafterFile, save_drafter
from verify.drafters.settings import InformedSettings
from verify.graph.file import load_graph
from verify.graph.validity import Validity

SIZES = ["--policy", "static:1", "--block-length", 8, "--generation-length", 16]


@pytest.fixture(scope="module")
def common(checkpoint: Path, prompts: Path) -> list[object]:
    return ["--model", checkpoint, "--prompts", prompts, *SIZES]


@pytest.fixture(scope="module")
def logs(common: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "logs"
    said = run("record", *common, "--drafter", "informed", "--drafts", "6,2", "--batch-size", 3, "--out", folder)
    assert "8 prompts in " in said and str(folder / "informed-2") in said
    return folder


@pytest.fixture(scope="module")
def graph(common: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    run("record", *common, "--top-j", 2, "--out", folder / "traces")
    run("search", folder / "traces", "--budget", 3, "--out", folder / "graph.json")
    return folder / "graph.json"


def rows(*arguments: object) -> list[dict]:
    said = run("evaluate", *arguments, "--json")
    return json.loads(said[said.index('{ "') : said.rindex("}") + 1])["rows"]


def forwards(common: list[object], out: Path, *arguments: object) -> int:
    run("decode", *common, *arguments, "--out", out)
    return sum(json.loads(line)["forwards"] for line in out.read_text(encoding="utf-8").splitlines())


def test_one_folder_for_each_number_of_drafts(logs: Path) -> None:
    assert sorted(path.name for path in logs.iterdir()) == ["informed-2", "informed-6"]
    log = read_states(logs / "informed-6")
    assert (log.metadata["top_j"], log.metadata["backend"], len(log.prompt_indices)) == (2, "packed", 8)
    assert log.metadata["drafter"][0]["drafts"] == 6


def test_what_was_recorded_is_predicted_as_it_is_counted(common: list[object], logs: Path, tmp_path: Path) -> None:
    for drafts in (6, 2):
        asked = ["--drafter", "informed", "--drafts", drafts]
        said = run("evaluate", logs / "informed-6", logs / "informed-2", *asked)
        assert "replay of a state log of 8 prompts, static:1, dual cache, packed" in said
        assert f"informed-{drafts}: the log knew every proposed state, so in float32 the runtime counts these" in said
        (row,) = rows(logs / "informed-6", logs / "informed-2", *asked)
        assert row["forwards_predicted"] == forwards(common, tmp_path / f"{drafts}.jsonl", *asked)
        assert (row["drafts"], row["missed"], row["exact"]) == (drafts, 0, True)
        assert row["nfe_reduction_low"] <= row["nfe_reduction"] <= row["nfe_reduction_high"]
        assert 8 < row["query_tokens_per_forward"] < 8 * (1 + drafts)


def test_missed_states_are_counted_and_said(logs: Path) -> None:
    said = run("evaluate", logs / "informed-2", "--drafter", "informed", "--drafts", 5)
    (row,) = rows(logs / "informed-2", "--drafter", "informed", "--drafts", 5)
    assert not row["exact"] and 0 < row["missed"] < row["proposed"]
    assert f"the log does not know {row['missed']} of {row['proposed']} proposed states" in said
    assert "an upper bound in practice, though not a proved one" in said
    assert "draftgraph record --drafter informed --drafts 5" in said


def test_a_near_lossless_mode_promises_nothing(common: list[object], tmp_path: Path) -> None:
    asked = ["--drafter", "informed", "--drafts", 2]
    run("record", *common, "--cache", "prefix", *asked, "--out", tmp_path)
    (row,) = rows(tmp_path / "informed-2", *asked)
    assert not row["exact"]
    assert "an estimate, as drafts are near-lossless" in run("evaluate", tmp_path / "informed-2", *asked)


def test_a_graph_is_replayed_over_a_log_as_over_a_trace(graph: Path, logs: Path) -> None:
    (expected,) = rows(graph, "--traces", graph.parent / "traces")
    for arguments in ([logs / "informed-6", "--graph", graph], [graph, "--traces", logs / "informed-6"]):
        (found,) = rows(*arguments)
        assert found["exact"] and found["forwards_predicted"] == expected["forwards_predicted"]
        assert found["forwards_plain"] == expected["forwards_plain"]
        said = run("evaluate", *arguments)
        assert "graph.json was found on these very prompts and looks too good here" in said
        assert "a graph learns from no rejected draft, so in float32 the runtime counts" in said


def test_a_tuned_drafter_is_recorded_and_replayed(
    common: list[object], graph: Path, logs: Path, tmp_path: Path
) -> None:
    file, path = load_graph(graph), tmp_path / "tuned.json"
    settings = InformedSettings(fill="graph", hedges=1)
    save_drafter(DrafterFile(4, settings, file.nodes[1:], file.validity), path)
    run("record", *common, "--drafter", path, "--out", tmp_path / "log")
    (row,) = rows(path, "--traces", tmp_path / "log" / "tuned")
    assert row["exact"] and row["drafter"] == str(path)
    assert row["forwards_predicted"] == forwards(common, tmp_path / "tuned.jsonl", "--drafter", path)
    said = run("evaluate", path, "--traces", graph.parent / "traces", code=1)
    assert "holds drafts that learn from rejected ones" in said and "record a state log" in said
    other = tmp_path / "other.json"
    save_drafter(DrafterFile(4, validity=Validity("tiny", None, "static:2", 8, "dual", 0.0, 1)), other)
    said = run("evaluate", logs / "informed-6", "--drafter", other, code=1)
    assert "does not fit the recording" in said
    assert "policy: the drafter was tuned for 'static:2', the run has 'static:1'" in said


def test_a_recording_goes_on_and_refuses_another_drafter(
    common: list[object], logs: Path, graph: Path, tmp_path: Path
) -> None:
    asked = ["--drafter", "informed", "--drafts", 6, "--out", tmp_path]
    run("record", *common, *asked)
    shards = shard_paths(tmp_path / "informed-6")
    kept = shards[0].stat().st_mtime_ns
    shards[1].unlink()
    run("record", *common, *asked)
    assert shards[0].stat().st_mtime_ns == kept and len(read_states(tmp_path / "informed-6").prompt_indices) == 8
    assert "nothing was left to record" in run("record", *common, *asked)
    (tmp_path / "informed-6").rename(tmp_path / "graph")
    said = run("record", *common, "--graph", graph, "--out", tmp_path, code=1)
    assert "holds a trace of another run (drafter: there" in said


def test_a_log_says_what_it_is(logs: Path) -> None:
    said = run("inspect", logs / "informed-6")
    assert f"{logs / 'informed-6'}: a state log of decodes with drafts prompts 8 drafter informed, drafts 6" in said
    assert f"evaluated states {read_states(logs / 'informed-6').states}," in said and "KB per prompt" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--drafter", "informed", "--drafts", "many"], "--drafts: cannot read 'many'"),
        (["--drafter", "graph"], "--drafter graph needs the graph; give --graph FILE"),
        (["--drafts", "4,2"], "--drafts belongs to --drafter informed"),
        (["--backend", "expanded"], "--backend says how drafts enter a forward, and a trace has none"),
        (["--drafter", "informed", "--temperature", 1], "a state log keeps the best tokens of every state"),
    ],
)
def test_recordings_that_are_refused(
    arguments: list[object], message: str, common: list[object], tmp_path: Path
) -> None:
    assert message in run("record", *common, *arguments, "--out", tmp_path / "log", code=1)
    assert not (tmp_path / "log").exists()


def test_arguments_that_do_not_go_together(logs: Path, graph: Path) -> None:
    assert "give --traces FOLDER, or state logs with --drafter" in run("evaluate", graph, code=1)
    both = run("evaluate", logs / "informed-6", "--graph", graph, "--traces", logs / "informed-6", code=1)
    assert "the state logs are the arguments; leave --traces out" in both
    said = run("evaluate", graph.parent / "traces", "--drafter", "informed", code=1)
    assert "holds a trace of plain decoding, expected a log of evaluated states" in said


def test_several_workers_record_no_log(common: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        leads = True

        def device(self, device: str) -> str:
            return device

    monkeypatch.setattr("calibrate.recording.workers.join_workers", Two)
    said = run("record", *common, "--drafter", "informed", "--out", tmp_path / "log", code=1)
    assert "a state log is recorded by one process; start it without torchrun" in said
