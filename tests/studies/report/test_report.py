"""The report page: everything a reader needs is on it, nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from studies.report.report import choose, conclusions, read_verdicts, write_report
from studies.runs.calibration import calibrate
from studies.runs.configuration import CalibrationConfig
from studies.runs.run_directory import RunDirectoryError


@pytest.fixture(scope="module")
def run(checkpoint: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "run"
    config = CalibrationConfig(
        model=str(checkpoint), prompts=str(prompts), policies=("static:1",), block_length=8, generation_length=16,
        top_j=4, budgets=(0, 2, 4),
    )  # fmt: skip
    calibrate(config, out)
    return out


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.sources: list[str] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self._in_cell = tag == "td" or (self._in_cell and tag == "span")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells.append(data.strip())


def test_the_page_holds_every_row_and_needs_no_network(run: Path) -> None:
    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.sources and all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert not re.search(r"(src|href)=[\"']?https?:", text)
    results = json.loads((run / "results.json").read_text())
    for row in results["rows"]:
        if row["split"] == "test":
            assert f"{row['nfe_reduction']:.2f}" in page.cells
            assert str(row["forwards_measured"]) in page.cells
    assert "exactly the forward passes that the traces predicted" in text
    assert text.count('class="first chosen"') + text.count('class=" chosen"') == 1


def budget_file(run: Path, name: str, budget: int, policy: str = "static:1", **change: object) -> None:
    """What ``draftgraph budget`` says of the run, with made-up numbers."""
    config = json.loads((run / "results.json").read_text())["config"]
    rows = [
        {"budget": d, "latency": 1.0 + d, "forwards": 20 - 2 * d, "milliseconds_per_prompt": 9.0, "speedup": 1 + d / 9}
        for d in range(3)
    ]  # fmt: skip
    content = {
        "format": "draftgraph-budget", "version": 1, "sentence": f"D = {budget} is <fast>.", "budget": budget,
        "predicted_speedup_interval": [1.1, 1.2], "rows": rows,
        "validity": {"policy": policy, **{key: config[key] for key in ("model", "cache", "block_length")}},
    }  # fmt: skip
    (run / f"{name}.budget.json").write_text(json.dumps(content | change))


def test_a_priced_budget_comes_first(run: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run, tmp_path / "run"))
    unpriced = write_report(out).read_text(encoding="utf-8")
    assert "`draftgraph latency` measures that on your device" in unpriced and "By forwards alone" not in unpriced
    budget_file(out, "static-1", 1)
    budget_file(out, "elsewhere", 2, policy="static:2")
    (out / "static-1.json").write_text("{}")
    text = write_report(out).read_text(encoding="utf-8")
    first = re.search(r'<ul class="say">\s*<li class="(\w+)">(.*?)</li>', text)
    assert first is not None and first.groups() == ("good", "D = 1 is &lt;fast&gt;.")
    assert "Graph of the chosen budget: <code>static-1.json</code> (D = 1)" in text
    assert '<li class="note">By forwards alone: ' in text or '<li class="bad">By forwards alone: ' in text
    assert "the verdict above" in text and "measures that" not in text and "D = 2 is" not in text
    assert 'alt="speedup-static-1"' in text


def test_a_verdict_against_speculation_names_no_graph(run: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run, tmp_path / "run"))
    (out / "static-1.json").write_text("{}")  # of an earlier verdict
    budget_file(out, "static-1", 0)
    assert [(found["kind"], found["graph"]) for found in verdicts_of(out)] == [("bad", None)]
    budget_file(out, "static-1", 1, predicted_speedup_interval=[0.9, 1.2])
    assert [(found["kind"], found["graph"]) for found in verdicts_of(out)] == [("note", "static-1.json")]
    budget_file(out, "static-1", 1, validity={"policy": "static:1", "model": "another"})
    assert verdicts_of(out) == []
    config = json.loads((out / "results.json").read_text())["config"]
    own = {"policy": "static:1", **{key: config[key] for key in ("model", "cache", "block_length")}}
    budget_file(out, "static-1", 1, validity={**own, "temperature": 0.7})
    assert verdicts_of(out) == []
    budget_file(out, "static-1", 1, latency={"dtype": "bfloat16"})
    assert verdicts_of(out) == []
    budget_file(out, "static-1", 1, validity={**own, "temperature": 0.0}, latency={"dtype": config["dtype"]})
    assert len(verdicts_of(out)) == 1
    budget_file(out, "static-1", 1, sentence=None)
    with pytest.raises(RunDirectoryError, match=r"static-1.budget.json holds no verdict"):
        verdicts_of(out)


def verdicts_of(run: Path) -> list[dict]:
    return read_verdicts(run, json.loads((run / "results.json").read_text())["config"], "static:1")


def test_the_choice_never_looks_at_held_out_rows() -> None:
    search = [
        {"method": "a", "budget": 8, "nodes": 8, "forwards_predicted": 50},
        {"method": "b", "budget": 4, "nodes": 4, "forwards_predicted": 50},
        {"method": "plain", "budget": 0, "nodes": 0, "forwards_predicted": 10},
        {"method": "c", "budget": 4, "nodes": 0, "forwards_predicted": 10},
    ]
    assert choose(search) == search[1]
    assert choose(search[2:]) is None


def test_a_broken_promise_is_the_first_thing_said() -> None:
    row = {
        "method": "greedy", "budget": 4, "exact": True, "tokens_identical": 0.5, "forwards_measured": 9,
        "forwards_predicted_measured": 9, "measured_prompts": 2,
    }  # fmt: skip
    kind, sentence = next(iter(conclusions([row], None, [], 4)))
    assert kind == "bad" and "1 of 1 graphs changed a token" in sentence
    said = list(conclusions([row | {"exact": False}], None, [], 4))
    assert said[0][0] == "note" and "near-lossless only" in said[1][1]


def test_a_run_that_is_not_finished(run: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["config"]["policies"].append("static:2")
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    assert "is not finished" in write_report(tmp_path / "run").read_text(encoding="utf-8")


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="does not exist"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text('{"rows": []}')
    with pytest.raises(RunDirectoryError, match="holds no rows"):
        write_report(tmp_path)
