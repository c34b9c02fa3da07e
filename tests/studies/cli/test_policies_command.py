"""``draftgraph policies``: tables for people, JSON for programs, and packages that are broken."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from studies.cli.app import app
from tests.support.command_line import run
from tests.support.plugins import install, rule
from verify.policies import registry
from verify.policies.registry import BUILT_IN
from verify.policies.specification import make_policy


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    yield
    registry._added.cache_clear()


def test_the_tables_name_every_rule() -> None:
    said = run("policies")
    for found in BUILT_IN.values():
        assert found.name in said and found.stands_for in said
    assert "tau: a number above 0 and at most 1" in said and "default 0.001" in said
    assert "best token, best 2 tokens, entropy" in said and "arXiv 2505.22618" in said


def test_json_is_what_programs_need(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, one=rule("mine", exact=False), broken=ImportError("no module named torchy"))
    result = CliRunner().invoke(app, ["policies", "--json"])
    assert result.exit_code == 0 and "draftgraph-broken" in result.stderr and "torchy" in result.stderr
    rules = {found["name"]: found for found in json.loads(result.stdout)}
    assert list(rules) == [*BUILT_IN, "mine"]
    dream = rules["dream"]
    assert dream["form"] == "dream:confidence|margin|entropy|origin:S[:eps]"
    assert dream["parameters"][2] == {
        "name": "eps", "range": "a number above 0 and at most 1", "required": False, "default": "0.001",
    }  # fmt: skip
    assert (dream["reads"], dream["monotone"], dream["stands_for"]) == (
        ["best token", "best 2 tokens", "entropy"],
        True,
        None,
    )
    assert rules["entropy"]["stands_for"] == "dream" and rules["static"]["distribution"] is None
    assert (rules["mine"]["distribution"], rules["mine"]["exact"]) == ("draftgraph-one", False)
    assert all(make_policy(text).temperature == 0 for found in rules.values() for text in found["examples"])


def test_a_rule_that_cannot_be_made_does_not_stop_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(k, sampling):
        raise AttributeError("no such thing")

    install(monkeypatch, one=rule("mine", make=broken))
    said = run("policies")
    assert "cannot be made" in said and "static:k" in said
