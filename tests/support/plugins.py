"""Packages that add rules, without installing any."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType, SimpleNamespace

import pytest

from verify.policies import registry
from verify.policies.confidence import StaticTopK
from verify.policies.parameters import Whole
from verify.policies.rule import Rule


def install(monkeypatch: pytest.MonkeyPatch, **packages: object) -> None:
    """Make packages ``draftgraph-NAME`` with what their entry point is, or with an error that importing it raises.

    The registry has seen none of them; the caller clears ``registry._added`` when they are gone.
    """
    points = []
    for name, value in packages.items():
        module = ModuleType(f"plugin_{name}")
        if isinstance(value, Exception):

            def fail(_: str, error: Exception = value) -> object:
                raise error

            module.__getattr__ = fail  # type: ignore[method-assign]
        else:
            module.RULES = value  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        point = EntryPoint(name, f"{module.__name__}:RULES", registry.GROUP)
        points.append(point._for(SimpleNamespace(name=f"draftgraph-{name}")))  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points if group == registry.GROUP else [])
    registry._added.cache_clear()


def rule(name: str, **changes: object) -> Rule:
    """``static`` under another name, with a default."""
    settings = dict(
        parameters=(Whole("k", default=1),), make=StaticTopK, summary="As static.", source="a test", examples=(name,)
    )
    return Rule(name, **(settings | changes))  # type: ignore[arg-type]
