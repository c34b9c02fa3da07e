"""The GPU benchmark's dry run: every part on tiny models on the CPU, and what a part that fails leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import PARTS, main
from benchmarks.gpu_attention import packed_attention_mask
from benchmarks.gpu_bench import TINY, Bench, Sizes
from benchmarks.gpu_trace_driven import configurations
from calibrate.models.shapes import SDAR_TINY

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("gpu")
    parts = [
        name for name in PARTS if name != "memory"
    ]  # tests/benchmarks/test_memory.py holds it against the profiler
    assert main(["--tiny", "--device", "cpu", "--out", str(out), "--seconds", "900", "--parts", ",".join(parts)]) == 0
    found = {path.stem: json.loads(path.read_text()) for path in out.iterdir()}
    assert sorted(found) == sorted([*parts, "summary"])
    return found


def test_every_part_is_complete_and_names_the_device(results: dict[str, Any]) -> None:
    for name, content in results.items():
        assert content["device"].startswith("cpu") and content["versions"]["torch"] == torch.__version__
        assert name == "summary" or (content["complete"] and content["status"] == "complete")
    assert [part["status"] for part in results["summary"]["parts"]] == ["complete"] * 6


def test_identity(results: dict[str, Any]) -> None:
    content = results["identity"]
    assert content["identical"] and len(content["cells"]) == 4 * 2
    assert all(cell["forwards"] < cell["forwards_plain"] for cell in content["cells"])
    assert {cell["graph"] for cell in content["cells"]} == {"chain", "published", "greedy", "exact"}
    assert [row["decode"] for row in content["bf16"]] == ["plain", "greedy", "greedy"]


def test_latency_tables(results: dict[str, Any]) -> None:
    tables = results["latency"]["tables"]
    assert {(table["model"], table["batch"], table["backend"], table["engine"]) for table in tables} == {
        (shape.name, *rest)
        for shape in TINY.shapes
        for rest in ((1, "packed", "slots"), (2, "packed", "slots"), (1, "expanded", "rows"))
    }
    assert results["cuda_graphs"]["note"] == "no CUDA graphs on this device"


def test_trace_driven(results: dict[str, Any]) -> None:
    for row in results["trace_driven"]["rows"]:
        assert row["tokens_identical"] and row["forwards_as_predicted"] and row["rounds"] == row["prompts_decoded"] == 2
        done = {(entry["method"], entry["drafts"]): entry for entry in row["configurations"]}
        assert set(done) >= {("plain", 0), ("greedy", 1), ("greedy", 4), ("chain", 4), ("published", 4), ("exact", 4)}
        assert done["greedy", 4]["forwards"] < done["greedy", 1]["forwards"] < done["plain", 0]["forwards"]
        seconds = {drafts: done["greedy" if drafts else "plain", drafts]["seconds"] for drafts in (0, 1, 4)}
        assert row["best"] == min(seconds, key=lambda drafts: seconds[drafts])
        assert row["picked_over_best"] == pytest.approx(seconds[row["picked"]] / seconds[row["best"]] - 1)
        assert row["within_limit"] == (row["picked_over_best"] <= 0.02)
        # In block-causal mode four drafts may be nine blocks of rows, and four were timed at most.
        budgets = [1] if row["model"] == SDAR_TINY.name else [1, 4]
        assert [drafts for method, drafts in done if method == "informed"] == budgets
        assert done["informed", 1]["forwards"] < done["plain", 0]["forwards"]
        seconds = {0: done["plain", 0]["seconds"]} | {drafts: done["informed", drafts]["seconds"] for drafts in budgets}
        assert row["informed"]["best"] == min(seconds, key=lambda drafts: seconds[drafts])
        for entry in done.values():
            assert entry["measured_over_predicted"] == pytest.approx(
                entry["tokens_per_second"] / entry["predicted_tokens_per_second"]
            )


def test_costs(results: dict[str, Any]) -> None:
    for row in results["costs"]["bookkeeping"]:
        assert row["forward_ms"] > 0 and set(row["parts_ms"]) == set(row["parts_share"])
        total = row["forward_ms"] + sum(row["parts_ms"].values())
        assert row["bookkeeping_share"] == pytest.approx(1 - row["forward_ms"] / total)
        assert all(share > 0 for share in row["parts_share"].values())
    assert all(row["pairs"] >= 3 for row in results["costs"]["recording"])


def test_attention_kernels_agree(results: dict[str, Any]) -> None:
    rows = results["attention"]["rows"]
    assert len(rows) == 4 and "flex_attention" in rows[-1]["ms"]
    for row in rows:
        assert not row["failed"] and max(row["relative_error"].values()) < 1e-5
        assert row["over_fastest"][row["fastest"]] == 1.0


def test_the_mask_of_the_kernels() -> None:
    visible = packed_attention_mask(1, 3, 2, torch.device("cpu"))
    assert visible.int().tolist() == [[1, 1, 1, 1, 1, 0, 0]] * 2 + [[1, 1, 1, 0, 0, 1, 1]] * 2


def test_what_is_decoded() -> None:
    chain, order = (((1, 1),),), tuple(((i, 1),) for i in range(1, 13))
    found = configurations({"chain": chain, "greedy": order}, (0, 1, 2, 4, 12, 16))
    assert list(found) == ["plain 0", "greedy 1", "greedy 2", "greedy 4", "greedy 12"]
    assert len(found["greedy 4"]) == 4 and found["plain 0"] == ()


def test_parts_that_fail_or_run_out_of_time_keep_what_they_have(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "cpu", Sizes(), 100.0)

    def slow(bench: Bench, content: dict[str, Any]) -> None:
        content["rows"] = [1]
        bench.check(1000.0)
        raise AssertionError("never reached")

    def broken(bench: Bench, content: dict[str, Any]) -> None:
        content["rows"] = [2]
        raise RuntimeError("a kernel is missing")

    def full(bench: Bench, content: dict[str, Any]) -> None:
        raise torch.OutOfMemoryError("out")

    for name, part in (("slow", slow), ("broken", broken), ("full", full)):
        bench.run(name, 10.0, part)
    found = {
        name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("slow", "broken", "full", "summary")
    }
    assert found["slow"]["rows"] == [1] and found["slow"]["status"] == "ended by the clock"
    assert found["broken"]["rows"] == [2] and found["broken"]["status"] == "RuntimeError: a kernel is missing"
    assert not found["full"]["complete"] and found["full"]["status"] == "out of memory"
    assert [part["part"] for part in found["summary"]["parts"]] == ["slow", "broken", "full"]


def test_time_left_over_is_passed_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "cpu", Sizes(), 100.0)
    left = []
    for seconds in (30.0, 20.0, 90.0):
        bench.run("part", seconds, lambda bench, content: left.append(bench.left()))
    assert left[0] == pytest.approx(30, abs=5) and left[1] == pytest.approx(50, abs=5)
    assert left[2] == pytest.approx(100, abs=10)  # no more than there is in all


def test_the_shares_of_the_time_fit_into_ten_minutes() -> None:
    assert sum(seconds for _, seconds in PARTS.values()) < 590


def test_without_cuda_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        main(["--out", str(tmp_path / "gpu"), "--device", "cuda"])
    assert left.value.code == 2 and not (tmp_path / "gpu").exists()
    said = capsys.readouterr().err
    assert said.startswith(f"no CUDA device (torch {torch.__version__}); install torch with CUDA (CONTRIBUTING.md)")
    assert said.count("\n") == 1 and "--tiny --device cpu" in said


def test_unknown_parts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path), "--parts", "latency,speed"])
    assert "unknown parts speed" in capsys.readouterr().err
