"""Which drafter the options of a command name, and whether a run fits it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from studies.cli.drafters import load_of, read_drafter, read_file, rule_for, settings_for
from studies.cli.graphs import read_graph
from tests.support.models import tiny_checkpoint
from verify.decoding import DecodeConfig
from verify.drafters.file import DrafterFile, DrafterFileError, save_drafter
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.graph.file import GraphFile, GraphFileError, save_graph
from verify.graph.validity import Validity
from verify.policies.contract import PolicyError
from verify.verifier import ValidityMismatchError

MADE_FOR = Validity("tiny", "seed-0", "static:2", 8, "block_causal", 0.0, 3)
NODES = (((1, 1), (2, 1)), ((1, 1), (2, 3)))


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    save_graph(GraphFile.from_nodes(NODES, MADE_FOR, provenance={"search": "by hand"}), tmp_path / "graph.json")
    return tmp_path / "graph.json"


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    drafter = DrafterFile(5, InformedSettings(fill="graph"), NODES, MADE_FOR, {"test": {"nfe_reduction": 2.0}})
    save_drafter(drafter, tmp_path / "tuned.json")
    return tmp_path / "tuned.json"


def test_nothing_asked_for_is_plain_decoding() -> None:
    assert read_drafter(None, None, None) is None
    spec, rule = rule_for(None, None, None)
    assert (spec, rule.temperature) == ("threshold:0.9", 0.0)
    config = settings_for(None, tiny_checkpoint(), spec, block_length=None, cache=None).config
    assert (config.block_length, config.cache, config.top_j) == (8, "dual", 8)
    assert load_of(None, config, [[5, 6, 7]], 4).drafts == 0


def test_informed_drafts_have_a_number() -> None:
    asked, usual = read_drafter("informed", None, 6), read_drafter("informed", None, None)
    assert asked is not None and usual is not None
    assert (asked.name, asked.drafter.max_drafts, asked.validity) == ("informed-6", 6, None)
    assert (usual.name, usual.said) == ("informed-10", "--drafter informed --drafts 10")
    assert asked.description()["drafts"] == 6 and asked.description()["file"] is None
    asked.check(MADE_FOR)  # it may be run with anything


@pytest.mark.parametrize("named", ["option", "drafter", "argument"])
def test_a_graph_is_named_in_three_ways(named: str, graph: Path) -> None:
    asked = {
        "option": lambda: read_drafter(None, graph, None),
        "drafter": lambda: read_drafter(str(graph), None, None),
        "argument": lambda: read_file(graph),
    }[named]()
    assert asked is not None and asked.graph is not None
    assert (asked.name, asked.path, asked.option) == ("graph", graph, f"--graph {graph}")
    assert asked.drafter.max_drafts == asked.graph.budget == 2
    assert "formulas" not in asked.description() and asked.description()["file"] == str(graph)


def test_a_drafter_file_brings_settings_and_formulas(tuned: Path) -> None:
    asked = read_drafter(str(tuned), None, None)
    assert asked is not None and asked.graph is None and asked.values == {"test": {"nfe_reduction": 2.0}}
    assert (asked.drafter.max_drafts, asked.drafter.max_vocabulary_rank) == (5, 3)
    assert asked.description()["fill"] == "graph" and asked.option == f"--drafter {tuned}"


def test_what_is_not_asked_for_is_the_drafters(tuned: Path) -> None:
    asked = read_file(tuned)
    spec, rule = rule_for(asked, None, None)
    assert spec == "static:2"
    checkpoint = tiny_checkpoint()
    config = settings_for(asked, checkpoint, spec, block_length=None, cache=None, generation_length=16).config
    assert (config.block_length, config.cache, config.top_j) == (8, "block_causal", 3)
    load = load_of(asked.drafter, config, [[5, 6, 7]], 1)
    assert load.bridges and load.drafts == 5
    dual = replace(config, cache="dual")
    assert not load_of(asked.drafter, dual, [[5, 6, 7]], 1).bridges
    assert load_of(InformedDrafter(5, InformedSettings(copies=True)), dual, [[5, 6, 7]], 1).copies
    spec, rule = rule_for(asked, "static:1", 0.5)
    config = settings_for(asked, checkpoint, spec, block_length=4, cache="dual", top_j=7, generation_length=16).config
    assert config == DecodeConfig(4, 16, "dual", end_token_ids=config.end_token_ids, top_j=7)
    assert (rule.spec, rule.temperature) == ("static:1@temperature=0.5", 0.5)
    spec, rule = rule_for(asked, None, 0.5, top_p=0.9, top_k=4)
    assert (spec, rule.spec) == ("static:2@top_p=0.9,top_k=4", "static:2@temperature=0.5,top_p=0.9,top_k=4")
    with pytest.raises(PolicyError, match="top_k is '0', expected an integer of at least 1"):
        rule_for(asked, None, None, top_k=0)


def test_ranks_that_a_drafter_reads_are_kept(tmp_path: Path) -> None:
    save_drafter(DrafterFile(5, InformedSettings(fill="graph"), (((1, 12),),)), tmp_path / "free.json")
    asked = read_file(tmp_path / "free.json")
    assert asked.validity is None
    assert settings_for(asked, tiny_checkpoint(), "static:1", block_length=None, cache=None).config.top_j == 12


@pytest.mark.parametrize(("file", "what"), [("graph", "the graph was calibrated"), ("tuned", "the drafter was tuned")])
def test_a_run_that_does_not_fit_is_refused(file: str, what: str, request: pytest.FixtureRequest) -> None:
    asked = read_file(request.getfixturevalue(file))
    asked.check(MADE_FOR)
    with pytest.raises(ValidityMismatchError, match=rf"{file}\.json is not valid for this run: cache: {what} for"):
        asked.check(replace(MADE_FOR, cache="dual"), "static:2")
    with pytest.raises(ValidityMismatchError, match=r"the run has 'static:1'; leave --policy out"):
        asked.check(replace(MADE_FOR, policy="static:1"), "static:1")
    with pytest.raises(ValidityMismatchError, match=r"the run has 'static:1'$"):
        asked.check(replace(MADE_FOR, policy="static:1"))
    with pytest.raises(ValueError, match=f"does not fit the recording in traces: block length: {what} for 8, the run"):
        asked.check_recording(replace(MADE_FOR, block_length=4), Path("traces"))


def test_options_that_do_not_go_together(graph: Path, tuned: Path) -> None:
    for arguments, message in (
        (("informed", graph, None), "--drafter informed needs no graph; leave --graph out"),
        (("graph", None, None), "--drafter graph needs the graph; give --graph FILE"),
        ((None, graph, 3), "--drafts belongs to --drafter informed; a file holds its own number of drafts"),
        ((str(tuned), None, 3), "--drafts belongs to --drafter informed; a file holds its own number of drafts"),
        ((str(tuned), graph, None), "names the drafter already; leave --graph out"),
        (("or\x1b[2Jacle", None, None), r'unknown drafter "or\\u001b\[2Jacle", expected graph, informed, or a file'),
        (("informed", None, -1), "drafts is -1, expected a whole number of at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            read_drafter(*arguments)


def test_files_that_are_something_else(graph: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match="this is a drafter file, which --drafter takes"):
        read_graph(tuned)
    with pytest.raises(GraphFileError, match="path: expected a readable JSON file"):
        read_drafter("nowhere.json", None, None)
    broken = tmp_path / "broken.json"
    broken.write_text(tuned.read_text(encoding="utf-8").replace('"drafts": 5', '"drafts": -5'), encoding="utf-8")
    with pytest.raises(DrafterFileError, match=r"broken\.json: drafts: expected an integer from 0"):
        read_file(broken)
    results = tmp_path / "results.json"
    results.write_text('{"format": "draftgraph-results", "version": 1, "rows": []}')
    with pytest.raises(GraphFileError, match="these are results, graphs are under"):
        read_file(results)
