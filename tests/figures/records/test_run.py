from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from figures.records.record import save_record
from figures.records.run import FigureDataError, Run, best_row, load_run


def test_rows_are_read_as_they_stand(run_directory: Path, run: Run) -> None:
    payload = json.loads((run_directory / "results.json").read_text())
    assert len(run.rows) == len(payload["rows"])
    for row, item in zip(run.rows, payload["rows"], strict=True):
        assert vars(row) == {name: item.get(name) for name in vars(row)}
    assert [list(item.counts) for item in run.histograms] == [item["counts"] for item in payload["histograms"]]
    tables = [[list(row) for row in item.position_by_depth] for item in run.rank_counts]
    assert tables == [item["position_by_depth"] for item in payload["rank_counts"]]
    assert run.config == payload["config"]
    assert run.panels() == [("static:1", "dual"), ("threshold:0.9", "dual")]


def test_unknown_fields_and_absent_options_are_fine(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        payload["novel"] = {"anything": [1]}
        for row in payload["rows"]:
            row["novel"] = "x"
            for name in ("prompts", "graph", "reading", "nfe_reduction_low", "nfe_reduction_high"):
                row.pop(name)
        payload["rows"] = payload["rows"][:5]
        for name in ("trie", "histograms", "rank_counts", "config"):
            del payload[name]

    run = load_run(changed(change))
    assert len(run.rows) == 5
    assert run.rows[0].prompts is None
    assert run.histograms == ()
    assert run.rank_counts == ()


def _set(place: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set the item at a path such as ``rows.3.budget``; a value of ``...`` deletes it."""

    def change(payload: dict[str, Any]) -> None:
        *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
        target: Any = payload
        for part in path:
            target = target[part]
        if value is ...:
            del target[last]
        else:
            target[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", "other"), 'format: expected "draftgraph-results", found "other"'),
        (_set("format", ...), 'format: expected "draftgraph-results", found no such field'),
        (_set("version", 2), "version: expected 1, the only one this release reads, found 2"),
        (_set("version", 1.0), "version: expected 1, the only one this release reads, found 1.0"),
        (_set("version", True), "version: expected 1, the only one this release reads, found true"),
        (_set("rows", []), "rows: expected at least one result row, found none"),
        (_set("rows", ...), 'file: expected the field "rows", found only "format"'),
        (_set("rows", {}), "rows: expected a list, found an object of 0 fields"),
        (_set("rows.3", 7), "rows[3]: expected an object, found 7"),
        (_set("rows.3.method", ...), 'rows[3]: expected the field "method", found only "reading", "budget"'),
        (_set("rows.3.budget", -1), "rows[3].budget: expected an integer of at least 0"),
        (_set("rows.3.budget", 3.0), "rows[3].budget: expected an integer of at least 0"),
        (_set("rows.3.split", "train"), 'split: expected one of search, validation, test, found "train"'),
        (_set("rows.3.policy", ""), "rows[3].policy: expected a text"),
        (_set("rows.3.nfe_reduction", None), "rows[3].nfe_reduction: expected a number, found null"),
        (_set("rows.3.nfe_reduction", ...), "rows[3].nfe_reduction: expected a number, found null"),
        (_set("rows.3.nfe_reduction", "2"), 'nfe_reduction: expected a finite number of at least 0, found "2"'),
        (_set("rows.3.accepted_drafts", -0.5), "accepted_drafts: expected a finite number of at least 0, found -0.5"),
        (_set("rows.3.nfe_reduction_low", None), "expected both ends of the interval or neither, found one of them"),
        (_set("rows.3.nfe_reduction_low", 99.0), "rows[3].nfe_reduction_low: expected at most nfe_reduction_high = "),
        (_set("rows.3.graph", "../../secret.json"), "rows[3].graph: expected a relative path without '..'"),
        (_set("rows.3.graph", "/etc/passwd"), 'so that the file lies in the run, found "/etc/passwd"'),
        (_set("rows.3.graph", "C:\\graph.json"), 'so that the file lies in the run, found "C:\\\\graph.json"'),
        (_set("rows.3.graph", "a\\..\\..\\graph.json"), "rows[3].graph: expected a relative path"),
        (_set("rows.3.method", 5), "rows[3].method: expected a text of 1 to 4096 characters, found 5"),
        (_set("rows.3.seconds", "1\x1b[2J"), 'expected a finite number of at least 0, found "1\\u001b[2J"'),
        (_set("comparisons", [{"policy": "static:1"}]), 'comparisons[0]: expected the field "budget"'),
        (_set("config", []), "config: expected an object, found []"),
        (_set("histograms.0.counts", [1, 1.5]), "histograms[0].counts[1]: expected an integer"),
        (_set("histograms.0.counts", ...), 'histograms[0]: expected the field "counts"'),
        (_set("rank_counts.0.position_by_depth", []), "expected a table of at least one row and one column"),
        (_set("rank_counts.0.position_by_depth.1", [1]), "position_by_depth[1]: expected 12 columns, as in the first"),
    ],
)
def test_each_error_names_place_expected_and_found(
    changed: Callable[..., Path], change: Callable[[dict[str, Any]], None], message: str
) -> None:
    # Row 3 is a test row with intervals.
    def on_test_row(payload: dict[str, Any]) -> None:
        rows = payload["rows"]
        index = next(n for n, row in enumerate(rows) if (row["split"], row["method"]) == ("test", "greedy"))
        rows[3], rows[index] = rows[index], rows[3]
        change(payload)

    directory = changed(on_test_row)
    with pytest.raises(FigureDataError, match=re.escape(message)) as caught:
        load_run(directory)
    assert str(directory / "results.json") in str(caught.value)


def test_a_cell_that_comes_twice_is_refused(changed: Callable[..., Path]) -> None:
    directory = changed(lambda payload: payload["rows"].append(payload["rows"][4]))
    with pytest.raises(FigureDataError, match=r"expected every cell once, found .* again, as in rows\[4\]"):
        load_run(directory)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(FigureDataError, match=r"nowhere: expected a run directory, found no directory there"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(FigureDataError, match=r"results\.json: path: expected a readable JSON file, found no such"):
        load_run(tmp_path)
    file = tmp_path / "results.json"
    file.write_text('{"format": "draftgraph-results", "version": 1, "rows": [')
    with pytest.raises(FigureDataError, match=r"results\.json: text: expected JSON, found none at line 1"):
        load_run(tmp_path)
    file.write_text('{"format": "draftgraph-results", "version": 1, "rows": [{"nfe_reduction": NaN}]}')
    with pytest.raises(FigureDataError, match="expected a finite number, found NaN"):
        load_run(tmp_path)
    file.write_text("[]")
    with pytest.raises(FigureDataError, match=r"file: expected an object, found \[\]"):
        load_run(tmp_path)


def test_the_best_row_is_not_chosen_on_test_prompts(run: Run) -> None:
    def row(method: str, split: str, value: float) -> Any:
        template = run.select(method="greedy", split="test")[0]
        return type(template)(**{**vars(template), "method": method, "split": split, "nfe_reduction": value})

    rows = [row("a", "test", 9.0), row("a", "search", 1.0), row("b", "test", 2.0), row("b", "search", 3.0)]
    assert best_row(run, rows).method == "b"
    assert best_row(run, [*rows, row("c", "validation", 0.5)]).method == "c"
    with pytest.raises(FigureDataError, match=r"no row of a calibrated graph on search prompts, by which"):
        best_row(run, rows[:1])
    baselines = [row("chain", "search", 50.0), row("plain", "search", 60.0), row("lp_bound", "search", 70.0)]
    assert best_row(run, [*baselines, *rows]).method == "b"
    with pytest.raises(FigureDataError, match=r"no row of a calibrated graph .* \(only chain, lp_bound, plain\)"):
        best_row(run, baselines)


def test_graph_files_that_cannot_be_read(run_directory: Path, changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        rows = [row for row in payload["rows"] if row["method"] == "greedy"]
        rows[0]["graph"] = None
        rows[1]["graph"] = "graphs/none.json"

    run = load_run(changed(change))
    first, second = run.select(method="greedy")[:2]
    with pytest.raises(FigureDataError, match=r"greedy with budget 3, policy static:1, .* names no graph file"):
        run.load_graph(first)
    with pytest.raises(FigureDataError, match=r"graph of greedy with budget 3.*none\.json: path: expected a readable"):
        run.load_graph(second)


def test_a_link_does_not_lead_out_of_the_run(changed: Callable[..., Path], tmp_path: Path) -> None:
    def change(payload: dict[str, Any]) -> None:
        next(row for row in payload["rows"] if row["method"] == "greedy")["graph"] = "graphs/link.json"

    directory = changed(change)
    (tmp_path / "outside.json").write_text("{}")
    (directory / "graphs").mkdir(exist_ok=True)
    (directory / "graphs" / "link.json").symlink_to(tmp_path / "outside.json")
    run = load_run(directory)
    with pytest.raises(
        FigureDataError, match=r'expected a file in .*, found "graphs/link.json", which leads out of it'
    ):
        run.load_graph(run.select(method="greedy")[0])


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "results.json")
    with pytest.raises(FigureDataError, match="path: expected a JSON file, found neither a file nor a directory"):
        load_run(tmp_path)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deep_nesting_ends_in_a_sentence(tmp_path: Path, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    header = '{"format": "draftgraph-results", "version": 1, "rows": [], "config": {"a": '
    (tmp_path / "results.json").write_text(header + deep + "}}")
    with pytest.raises(FigureDataError, match="nesting of at most 16 levels"):
        load_run(tmp_path)


def test_what_is_written_is_read(run: Run, tmp_path: Path) -> None:
    save_record(run, tmp_path / "results.json")
    assert load_run(tmp_path) == run
    broken = replace(run, rows=(*run.rows, run.rows[0]))
    with pytest.raises(FigureDataError, match="expected every cell once"):
        save_record(broken, tmp_path / "results.json")
    assert load_run(tmp_path) == run


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_read_permission(changed: Callable[..., Path]) -> None:
    directory = changed(lambda payload: None)
    (directory / "results.json").chmod(0)
    with pytest.raises(FigureDataError, match="Permission denied"):
        load_run(directory)
