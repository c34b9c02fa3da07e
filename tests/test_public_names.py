"""What a user imports: every public name is there, and none is hidden by a module of its package."""

import pkgutil
from importlib import import_module

import pytest

LAZY = ("verify", "calibrate", "drafting", "figures")


@pytest.mark.parametrize("package", LAZY)
def test_every_public_name_is_found(package: str) -> None:
    module = import_module(package)
    assert module.__all__ == dir(module)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'; it has "):
        _ = module.nothing


@pytest.mark.parametrize("package", LAZY)
def test_no_public_name_is_that_of_a_module(package: str) -> None:
    module = import_module(package)
    assert {found.name for found in pkgutil.iter_modules(module.__path__)}.isdisjoint(module.__all__)


def test_the_one_obvious_line_of_each_package() -> None:
    from calibrate import load_checkpoint, read_traces, record
    from drafting import DraftGraph, search
    from figures import draw_all, load_run
    from verify import Verifier, decode, load_graph, make_policy

    every = (load_checkpoint, read_traces, record, DraftGraph, search, draw_all, load_run)
    assert all(map(callable, (*every, Verifier, decode, load_graph, make_policy)))
