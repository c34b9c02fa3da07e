"""The layers, verify < calibrate < drafting < figures < studies, and what each may import."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

LAYERS = ("verify", "calibrate", "drafting", "figures", "studies")
MODULES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]

HEAVY = ("transformers", "optuna", "networkx", "pyarrow", "matplotlib", "scipy", "pandas", "typer", "rich")


def imported_names(source: str, package: str) -> set[str]:
    """Every module that ``source`` imports, at its top or inside a function, as an absolute dotted name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*parent, *([node.module] if node.module else [])])
            else:
                module = node.module or ""
            names.add(module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.add(node.args[0].value)
    return names


def top_levels(path: Path) -> set[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return {name.split(".")[0] for name in imported_names(path.read_text(encoding="utf-8"), package)}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_names(layer: str) -> list[str]:
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in MODULES]
    return [".".join(part for part in own if part != "__init__") for own in parts if own[0] == layer]


def upward(path: Path) -> list[str]:
    """The layers above its own that the module at ``path`` imports."""
    own = LAYERS.index(path.relative_to(ROOT).parts[0])
    return sorted(top_levels(path) & set(LAYERS[own + 1 :]))


def modules_after(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter that ran ``code``."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_reader_of_imports_sees_every_kind() -> None:
    source = (
        "import a.b\nfrom c.d import e\nfrom . import f\nfrom .g import h\nfrom ..i import j\n"
        "def inner():\n    import k\n    import_module('l.m')\n"
    )
    assert imported_names(source, "top.sub") == {"a.b", "c.d", "top.sub", "top.sub.g", "top.i", "k", "l.m"}


def test_every_layer_has_modules() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_no_import_upward(path: Path) -> None:
    found = upward(path)
    assert not found, f"{short(path)} imports {found}, which lie above it in {' < '.join(LAYERS)}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.is_relative_to(ROOT / "verify")], ids=short)
def test_verify_imports_torch_and_numpy_only(path: Path) -> None:
    allowed = {"verify", "torch", "numpy"} | sys.stdlib_module_names
    found = top_levels(path) - allowed
    assert not found, f"{short(path)} imports {sorted(found)}; verify may use torch and numpy only"


@pytest.mark.parametrize("path", [path for path in MODULES if path.is_relative_to(ROOT / "drafting")], ids=short)
def test_drafting_never_names_torch(path: Path) -> None:
    assert "torch" not in top_levels(path), f"{short(path)} imports torch; drafting works on arrays"


def test_importing_verify_is_light() -> None:
    loaded = modules_after("import verify")
    assert not loaded & {*HEAVY, "torch", "calibrate", "drafting", "studies", "figures"}


def test_touching_all_of_verify_stays_light() -> None:
    loaded = modules_after("import verify\nfor name in verify.__all__: getattr(verify, name)")
    assert not loaded & {*HEAVY, "calibrate", "drafting", "studies", "figures"}


def test_every_module_of_verify_stays_light() -> None:
    names = module_names("verify")
    loaded = modules_after("".join(f"import {name}\n" for name in names))
    assert not loaded & {*HEAVY, "calibrate", "drafting", "studies", "figures"}


def test_importing_drafting_leaves_torch_out() -> None:
    names = module_names("drafting")
    code = "import drafting\nfor name in getattr(drafting, '__all__', ()): getattr(drafting, name)\n"
    code += "".join(f"import {name}\n" for name in names)
    assert "torch" not in modules_after(code)


def test_no_public_name_is_a_module_too() -> None:
    """Importing the module would put it in the place of the name."""
    import verify

    assert not set(verify.__all__) & {path.stem for path in MODULES if path.parent == ROOT / "verify"}


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    import verify

    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'; it has .*formula"):
        verify.nonsense  # noqa: B018
