"""The report page: everything a reader needs is on it, nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from figures.records.record import FigureDataError
from figures.records.run import ResultRow, load_run
from studies.report.advice import Advice, Pair, advise, choose, identity
from studies.report.report import read_verdict, write_report
from studies.runs.calibration import calibrate
from studies.runs.configuration import CalibrationConfig
from tests.support import saved_inputs


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


def budget_file(run: Path, name: str, budget: int, policy: str = "static:1", **change: Any) -> None:
    """What ``draftgraph budget`` says of the run, with made-up numbers."""
    config = json.loads((run / "results.json").read_text())["config"]
    content = saved_inputs.budget(budget)
    content["validity"] |= {"policy": policy, "model_revision": config["model_revision"]}
    content["validity"] |= {key: config[key] for key in ("cache", "block_length", "temperature", "top_j")}
    content["latency"] |= {"dtype": config["dtype"]}
    content |= {"sentence": f"D = {budget} is <fast>.", "search": "greedy", "graph": f"{name}.json"}
    content |= {"predicted_speedup": 1.15, "predicted_speedup_interval": [1.1, 1.2]}
    saved_inputs.write(run / f"{name}.budget.json", content | change)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run whose rows claim 48 held-out prompts, so that the page concludes something."""
    out = Path(shutil.copytree(run, tmp_path / "run"))
    change(out, lambda results: [row.update(prompts=48) for row in results["rows"]])
    return out


def change(run: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Write ``results.json`` anew after ``how`` has changed its content."""
    results = json.loads((run / "results.json").read_text())
    how(results)
    (run / "results.json").write_text(json.dumps(results))


def advice_on(run: Path) -> Advice:
    results = load_run(run)
    return advise(results, "static:1", read_verdict(results, "static:1"))


def test_below_twelve_prompts_nothing_is_concluded(run: Path, copy: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    prompts = json.loads((run / "results.json").read_text())["rows"][0]["prompts"]
    assert prompts < 12 and f"Nothing is concluded from {prompts} held-out prompts" in text
    assert "nothing concluded" in text and 'chosen"' not in text and "No row is marked" in text
    text = write_report(copy).read_text(encoding="utf-8")
    assert "Nothing is concluded" not in text and text.count('chosen">') == 1


def test_a_verdict_leads_the_page_and_marks_its_row(copy: Path) -> None:
    text = write_report(copy).read_text(encoding="utf-8")
    assert "By forwards alone: " in text and "<code>draftgraph latency</code> measures" in text and "`" not in text
    budget_file(copy, "static-1", 2)
    budget_file(copy, "elsewhere", 2, policy="static:2", sentence="Of another policy.")
    shutil.copy(copy / "graphs" / "static-1-greedy-D2.json", copy / "static-1.json")
    text = write_report(copy).read_text(encoding="utf-8")
    first = re.search(r'<ul class="say">\s*<li class="(\w+)"><code>static:1</code> (.*?)</li>', text)
    assert first is not None and first[1] in ("good", "note")
    assert first[2].startswith("D = 2 is &lt;fast&gt;. Measured in this run, the same prompts took ")
    assert text.index("Summary") < text.index("1.15 × (1.10 to 1.20)") < text.index("Policy <code>static:1")
    assert re.search(r"\d\.\d\d s → \d\.\d\d s \(\d+\.\d\d ×\)", text)
    marked = re.search(r'<tr class="[^"]*chosen"><td>(\w+)</td>\s*<td>(\d+)', text)
    assert marked is not None and marked.groups() == ("greedy", "2")
    assert "The marked row is the verdict of <code>static-1.budget.json</code>" in text
    assert "Graph file: <code>static-1.json</code>" in text and "By forwards alone" not in text
    assert "Of another policy" not in text
    drawn = (copy / "figures" / "graph-static-1.csv").read_text().splitlines()
    assert len(drawn) == 1 + 3  # the head of the table, the root and the two drafts of the verdict


def test_a_verdict_on_a_budget_that_the_run_does_not_hold(copy: Path) -> None:
    budget_file(copy, "static-1", 3)
    text = write_report(copy).read_text(encoding="utf-8")
    assert "this run does not hold the recommended graph (D = 3)" in text and 'chosen">' not in text
    assert "not in this run" in text and "<td>1.90 ×</td>" in text  # 1000 forwards over 526, as the verdict has them


def test_a_verdict_against_speculation_names_no_graph(copy: Path) -> None:
    (copy / "static-1.json").write_text("{}")  # of an earlier verdict
    budget_file(copy, "static-1", 0, graph=None)
    found = advice_on(copy)
    assert (found.kind, found.graph(load_run(copy))) == ("bad", None)
    assert found.marked is not None and found.marked.test.method == "plain"
    budget_file(copy, "static-1", 2, predicted_speedup_interval=[0.9, 1.2])
    assert (advice_on(copy).kind, advice_on(copy).graph(load_run(copy))) == ("note", copy / "static-1.json")


def test_verdicts_of_other_runs_are_passed_over(copy: Path) -> None:
    budget_file(copy, "static-1", 2)
    content = json.loads((copy / "static-1.budget.json").read_text())
    assert advice_on(copy).verdict is not None
    for place, name, value in (
        ("validity", "model_revision", "another"), ("validity", "temperature", 0.7), ("latency", "dtype", "bfloat16"),
        ("validity", "block_length", 4),
    ):  # fmt: skip
        saved_inputs.write(copy / "static-1.budget.json", content | {place: content[place] | {name: value}})
        assert advice_on(copy).verdict is None, name
    (copy / "static-1.budget.json").write_text("{")
    assert advice_on(copy).verdict is None
    budget_file(copy, "static-1", 2, sentence=None)
    with pytest.raises(FigureDataError, match=r"static-1.budget.json: sentence: expected a text of 1 to .* found null"):
        advice_on(copy)
    budget_file(copy, "static-1", 2, graph="../../secret.json")
    with pytest.raises(FigureDataError, match="graph: expected the name of a file beside this one"):
        advice_on(copy)


def test_measured_times_stand_beside_predicted_ones(copy: Path) -> None:
    """A verdict that the run's own clock contradicts is told as such, and loses its colour."""

    def slower(results: dict[str, Any]) -> None:
        for row in results["rows"]:
            if row["split"] == "test":
                row["seconds"] = 2.59 if row["budget"] == 0 else 4.01

    change(copy, slower)
    budget_file(copy, "static-1", 2)
    found = advice_on(copy)
    assert found.kind == "note" and found.measured() == "2.59 s → 4.01 s (0.65 ×)"
    assert "took 2.59 s plainly and 4.01 s with this graph, which is longer (1.55 times)" in found.sentence
    own = {"measured_prompts": 3, "measured_seconds_plain": 4.0, "measured_seconds": 2.0}
    budget_file(copy, "static-1", 2, **own)
    assert (advice_on(copy).kind, advice_on(copy).measured()) == ("good", "4.00 s → 2.00 s (2.00 ×)")
    del own["measured_seconds"]
    budget_file(copy, "static-1", 2, **own)
    with pytest.raises(FigureDataError, match="measured_seconds together, found some of them"):
        advice_on(copy)


def row(method: str, budget: int, forwards: int, nodes: int, **more: Any) -> ResultRow:
    return ResultRow(method, budget, "static:1", "dual", "test", nodes=nodes, forwards_predicted=forwards, **more)


def test_the_choice_never_looks_at_held_out_rows() -> None:
    pairs = [
        Pair(row(method, budget, 1, nodes), row(method, budget, forwards, nodes))
        for method, budget, forwards, nodes in (("a", 8, 50, 8), ("b", 4, 50, 4), ("plain", 0, 10, 0), ("c", 4, 10, 0))
    ]
    assert choose(pairs) == pairs[1]
    assert choose(pairs[2:]) is None


def test_a_broken_promise_is_said() -> None:
    facts: dict[str, Any] = {
        "tokens_identical": 0.5, "forwards_measured": 9, "forwards_predicted_measured": 9, "measured_prompts": 2,
    }  # fmt: skip
    one = row("greedy", 4, 9, 4, exact=True, **facts)
    found = identity([Pair(one, one)])
    assert found is not None and found[0] == "bad" and "1 of 1 graphs changed a token" in found[1]
    one = row("greedy", 4, 9, 4, exact=False, **facts)
    found = identity([Pair(one, one)])
    assert found is not None and found[0] == "note" and "near-lossless only" in found[1]
    assert identity([]) is None


def test_a_run_that_is_not_finished(copy: Path) -> None:
    change(copy, lambda results: results["config"]["policies"].append("static:2"))
    assert "is not finished" in write_report(copy).read_text(encoding="utf-8")


def test_a_row_without_its_partner(copy: Path) -> None:
    def drop(results: dict[str, Any]) -> None:
        results["rows"] = [row for row in results["rows"] if (row["split"], row["budget"]) != ("search", 2)]

    change(copy, drop)
    with pytest.raises(FigureDataError, match=r"rows\[\d+\]: expected the same graph on search prompts in another row"):
        write_report(copy)


def test_a_field_that_the_page_needs(copy: Path) -> None:
    change(copy, lambda results: [row.pop("seconds") for row in results["rows"]])
    with pytest.raises(FigureDataError, match=r"rows\[\d+\]\.seconds: expected a value in this row and its partner"):
        write_report(copy)


def test_a_graph_outside_the_run(copy: Path) -> None:
    change(copy, lambda results: [row.update(graph="../../graph.json") for row in results["rows"]])
    with pytest.raises(FigureDataError, match=r"rows\[0\]\.graph: expected a relative path without '..'"):
        write_report(copy)


def test_a_file_where_a_folder_is_expected(copy: Path) -> None:
    assert write_report(copy / "results.json") == copy / "report.html"
    with pytest.raises(FigureDataError, match=r'config\.json: format: expected "draftgraph-results"'):
        write_report(copy / "config.json")


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(FigureDataError, match="expected a readable JSON file, found no such file"):
        write_report(tmp_path)
    with pytest.raises(FigureDataError, match="expected a run directory, found no directory there"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "results.json").write_text('{"format": "draftgraph-results", "version": 1, "rows": []}')
    with pytest.raises(FigureDataError, match="expected at least one result row"):
        write_report(tmp_path)
