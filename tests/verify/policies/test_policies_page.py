"""docs/policies.md: its rule, installed as a package, is made from text, is lossless, and survives a graph file."""

import sys
from importlib.metadata import entry_points
from types import ModuleType

import pytest

from drafting.graph import DraftGraph
from tests.support.command_line import run
from tests.support.models import random_formulas, tiny_denoiser
from tests.support.paths import DOCS
from verify.decoding import DecodeConfig, decode
from verify.drafters.informed import InformedDrafter
from verify.graph.file import GraphFile, Validity, load_graph, save_graph
from verify.policies import registry
from verify.policies.contract import UnknownPolicyError
from verify.policies.specification import make_policy, step_sizes

PAGE = (DOCS / "policies.md").read_text(encoding="utf-8")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path of imports, and a registry that has seen no package."""
    monkeypatch.syspath_prepend(tmp_path)
    registry._added.cache_clear()
    yield tmp_path
    registry._added.cache_clear()
    sys.modules.pop("leftmost_rule", None)


@pytest.fixture
def installed(site):
    """The example of the page, as an installed package."""
    script = PAGE.partition("```python\n")[2].partition("```")[0]
    entry = PAGE.partition("```toml\n")[2].partition("```")[0]
    (site / "leftmost_rule.py").write_text(script, encoding="utf-8")
    info = site / "draftgraph_leftmost-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: draftgraph-leftmost\nVersion: 1.0\n", encoding="utf-8")
    announced = entry.replace('[project.entry-points."draftgraph.policies"]', "[draftgraph.policies]").replace('"', "")
    (info / "entry_points.txt").write_text(announced, encoding="utf-8")
    assert [point.name for point in entry_points(group=registry.GROUP)] == ["leftmost"]


def test_the_rule_of_the_page_is_made_from_text(installed):
    policy = make_policy("leftmost:4", 0.5)
    assert policy.spec == "leftmost:4@temperature=0.5" and make_policy(policy.spec) == policy
    assert make_policy("leftmost:1").spec == "leftmost" and step_sizes("leftmost:4") == 4
    assert "draftgraph-leftmost" in (listed := run("policies")) and "leftmost[:k]" in listed
    assert isinstance(sys.modules["leftmost_rule"], ModuleType)


@pytest.mark.parametrize("spec", ["leftmost:2", "leftmost:2@temperature=0.7,top_k=9"])
def test_the_rule_of_the_page_is_lossless(installed, spec):
    denoiser, policy = tiny_denoiser(seed=3), make_policy(spec)
    config = DecodeConfig(8, 16, "block_causal", top_j=4)
    plain = decode(denoiser, [5, 9, 14, 3], policy, config)
    for drafts in (random_formulas(1, 30, step_size=2), InformedDrafter(5)):
        found = decode(denoiser, [5, 9, 14, 3], policy, config, drafts)
        assert (found.tokens, found.steps) == (plain.tokens, plain.steps)


def test_a_graph_of_the_rule_is_readable_without_the_package(installed, site, tmp_path):
    validity = Validity("tiny", None, "leftmost:2", 8, "dual", 0.0, 4)
    nodes = [((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1), (4, 1))]
    graph = DraftGraph.from_formulas(nodes, 2).to_graph_file(validity)
    save_graph(graph, tmp_path / "graph.json")
    assert DraftGraph.from_graph_file(load_graph(tmp_path / "graph.json")).step_size == 2
    (site / "draftgraph_leftmost-1.0.dist-info" / "entry_points.txt").unlink()
    registry._added.cache_clear()
    found = load_graph(tmp_path / "graph.json")
    assert found == graph == GraphFile.from_nodes(nodes, validity) and found.validity.policy == "leftmost:2"
    assert DraftGraph.from_graph_file(found).step_size is None
    assert "leftmost:2" in run("inspect", tmp_path / "graph.json")
    with pytest.raises(UnknownPolicyError, match=r"unknown policy 'klas:0.9'; did you mean klass:tau\[:eps\[:n\]\]\?"):
        make_policy("klas:0.9")
    with pytest.raises(UnknownPolicyError, match="unknown policy 'leftmost:2'"):
        make_policy("leftmost:2")
