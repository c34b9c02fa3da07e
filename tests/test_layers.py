"""The layers, verify < calibrate < drafting < figures < studies: what each may import, and what importing it loads."""

from __future__ import annotations

import ast
import json
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

from calibrate.recording.states import record_states
from studies.cli.app import COMMANDS
from tests.support.command_line import run
from tests.support.models import tiny_checkpoint
from tests.support.paths import ROOT
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.decoding import DecodeConfig
from verify.drafters.file import DrafterFile, save_drafter
from verify.drafters.informed import InformedDrafter
from verify.policies.specification import make_policy

LAYERS = ("verify", "calibrate", "drafting", "figures", "studies")
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]

#: What a light start must not load. typer and rich are the command line itself.
HEAVY = {"torch", "transformers", "optuna", "networkx", "pyarrow", "matplotlib", "scipy", "pandas"}


def name_of(path: Path) -> str:
    """``verify/graph/file.py`` -> ``verify.graph.file``; an ``__init__.py`` is its package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in FILES}


def imported_names(source: str, package: str, checking: bool = True) -> set[str]:
    """Every module that ``source`` imports, at its top or inside a function, as an absolute dotted name.

    ``from a import b`` gives ``a.b`` too, as that may be a module. ``checking`` off leaves out what stands under
    ``if TYPE_CHECKING``: it is for a type checker and never runs.
    """
    tree = ast.parse(source)
    skipped: set[ast.AST] = set()
    if not checking:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                skipped.update(inner for statement in node.body for inner in ast.walk(statement))
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*parent, *([module] if module else [])])
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.add(node.args[0].value)
    return names


@cache
def imports(module: str, checking: bool = True) -> frozenset[str]:
    path = MODULES[module]
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return frozenset(imported_names(path.read_text(encoding="utf-8"), package, checking))


def runtime_of(module: str) -> set[str]:
    """The foreign package that ``verify.runtimes.NAME`` or ``verify.runtimes.NAME_part`` may import: ``NAME``."""
    parts = module.split(".")
    return {parts[2].split("_")[0]} if parts[:2] == ["verify", "runtimes"] and len(parts) == 3 else set()


def test_a_runtime_may_import_its_own_package_only() -> None:
    assert runtime_of("verify.runtimes.transformers_model") == runtime_of("verify.runtimes.transformers")
    assert runtime_of("verify.runtimes.transformers") == {"transformers"}
    assert runtime_of("verify.runtimes") == runtime_of("verify.graph.file") == set()


def offenders(layer: str, allowed: set[str] | None = None, forbidden: set[str] = frozenset()) -> list[str]:
    """The modules of ``layer`` that import a top-level name outside ``allowed``, or one of ``forbidden``."""
    found = []
    for module in MODULES:
        if module.split(".")[0] != layer:
            continue
        top = {name.split(".")[0] for name in imports(module)}
        wrong = (top - allowed - runtime_of(module) if allowed is not None else set()) | (top & forbidden)
        if wrong:
            found.append(f"{module} imports {', '.join(sorted(wrong))}")
    return found


def test_the_reader_of_imports_sees_every_kind() -> None:
    source = (
        "import a.b\nfrom c.d import e\nfrom . import f\nfrom .g import h\nfrom ..i import j\n"
        "def inner():\n    import k\n    import_module('l.m')\nif TYPE_CHECKING:\n    import n\n"
    )
    found = {
        "a.b", "c.d", "c.d.e", "top.sub", "top.sub.f", "top.sub.g", "top.sub.g.h", "top.i", "top.i.j", "k", "l.m",
    }  # fmt: skip
    assert imported_names(source, "top.sub") == found | {"n"}
    assert imported_names(source, "top.sub", checking=False) == found


def test_no_layer_imports_one_above_it() -> None:
    assert {module.split(".")[0] for module in MODULES} == set(LAYERS)
    found = [line for n, layer in enumerate(LAYERS) for line in offenders(layer, forbidden=set(LAYERS[n + 1 :]))]
    assert not found, "the line is " + " < ".join(LAYERS) + ":\n" + "\n".join(found)


def test_verify_imports_torch_and_numpy_only() -> None:
    found = offenders("verify", allowed={"verify", "torch", "numpy"} | sys.stdlib_module_names)
    assert not found, "\n".join(found)


def test_drafting_never_names_torch() -> None:
    found = offenders("drafting", forbidden={"torch"})
    assert not found, "\n".join(found)


def test_no_import_goes_in_a_circle() -> None:
    """Neither between files, nor between the folders of a package: a folder can be read after those it imports."""
    files = nx.DiGraph((module, name) for module in MODULES for name in imports(module, checking=False) & set(MODULES))
    files.remove_edges_from(list(nx.selfloop_edges(files)))  # ``from studies.cli import options``, in that package
    folders = nx.DiGraph()
    for first, second in files.edges:
        a, b = folder_of(first), folder_of(second)
        if a != b:
            folders.add_edge(a, b)
    found = [sorted(circle) for graph in (files, folders) for circle in circles(graph)]
    assert not found, f"these import each other, directly or through others: {found}"


def folder_of(module: str) -> str:
    """``verify.graph`` for ``verify.graph.file``; a module that lies in no folder of its package stands for itself."""
    parts = MODULES[module].relative_to(ROOT).parts
    return ".".join(parts[:2]) if len(parts) > 2 else module


def circles(graph: nx.DiGraph) -> list[set[str]]:
    return [part for part in nx.strongly_connected_components(graph) if len(part) > 1]


def test_circles_are_found() -> None:
    assert circles(nx.DiGraph([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")])) == [{"a", "b", "c"}]


LIGHT = HEAVY | {"typer", "rich", *LAYERS[1:]}
LINE = HEAVY | {"numpy", "verify", "drafting", "figures"}
NO_MODEL = {"torch", "transformers", "optuna", "matplotlib"}

#: What is run in a fresh interpreter, and what it must not load.
STARTS = {
    "import verify": LIGHT | {"numpy"},
    "import verify; verify.load_graph(GRAPH)": LIGHT,
    "import verify; verify.load_drafter(DRAFTER).make()": LIGHT,
    "for name in MODULES['verify']: import_module(name)": LIGHT - {"torch"},
    "for name in MODULES['drafting']: import_module(name)": NO_MODEL | {"typer"},
    "import calibrate, drafting, figures, studies": HEAVY | {"numpy", "typer", "rich"},
    "draftgraph('--version')": LINE,
    "draftgraph('--help')": LINE,
    "for command in COMMANDS: draftgraph(command, '--help')": LINE,
    "draftgraph('search', TRACES, '--budget', '2', '--out', OUT + '/g.json')": NO_MODEL,
    "draftgraph('evaluate', OUT + '/g.json', '--traces', TRACES)": NO_MODEL,
    "draftgraph('compare', OUT + '/g.json', GRAPH, '--traces', TRACES)": NO_MODEL,
    "draftgraph('inspect', GRAPH)": NO_MODEL,
    "draftgraph('policies')": HEAVY,
    "draftgraph('inspect', TRACES)": NO_MODEL,
    "draftgraph('inspect', LOG)": NO_MODEL,
    "draftgraph('evaluate', LOG, '--drafter', DRAFTER)": NO_MODEL,
    "draftgraph('export', GRAPH, '--out', OUT + '/g.safetensors')": NO_MODEL,
}

PRELUDE = """
import json, os, sys
from importlib import import_module

def draftgraph(*arguments):
    from studies.cli import main
    sys.argv = ["draftgraph", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop

facts = json.loads(sys.stdin.read())
GRAPH, TRACES, OUT, DRAFTER, LOG = (facts[name] for name in ("graph", "traces", "out", "drafter", "log"))
MODULES, COMMANDS = facts["modules"], facts["commands"]
for code in facts["codes"]:
    reader, writer = os.pipe()
    if not os.fork():  # every start begins where this interpreter stands: with nothing loaded
        sys.stdout = sys.stderr = open(os.devnull, "w")
        try:
            exec(code)
            # verify and verify.lazy are where lazy names come from; a package of verify beside them is a load.
            names = set(sys.modules) - {"verify.lazy"}
            packages = {name for name in names if name.startswith("verify.")}
            loaded = sorted({name.split(".")[0] for name in names - (set() if packages else {"verify"})})
        except BaseException as error:
            loaded = repr(error)
        with os.fdopen(writer, "w") as stream:
            json.dump(loaded, stream)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        print(json.dumps([code, json.load(stream)]))
    os.wait()
"""


def test_what_a_start_loads(tmp_path: Path) -> None:
    traces = write_folder(toy_traces(0, prompts=8, blocks=2, length=10), tmp_path / "traces")
    graph = tmp_path / "graph.json"
    run("search", traces, "--budget", 3, "--out", graph)
    modules = {layer: [name for name in MODULES if name.split(".")[0] == layer] for layer in LAYERS}
    record_states(
        tiny_checkpoint(),
        [[5, 6, 7]],
        make_policy("static:1"),
        DecodeConfig(8, 8),
        tmp_path / "log",
        InformedDrafter(2),
    )
    save_drafter(DrafterFile(2), tmp_path / "drafter.json")
    facts = {
        "graph": str(graph), "traces": str(traces), "out": str(tmp_path), "modules": modules,
        "drafter": str(tmp_path / "drafter.json"), "log": str(tmp_path / "log"),
        "commands": list(COMMANDS), "codes": list(STARTS),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE], cwd=ROOT, input=json.dumps(facts), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    loaded = dict(json.loads(line) for line in done.stdout.splitlines())
    assert set(loaded) == set(STARTS)
    failed = [f"{code}: {found}" for code, found in loaded.items() if isinstance(found, str)]
    assert not failed, "\n".join(failed)
    found = [f"{code} loads {sorted(wrong)}" for code, never in STARTS.items() if (wrong := never & set(loaded[code]))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("module", "command"), [("typer", "--help"), ("torch", "record"), ("numpy", "evaluate")])
def test_ctrl_c_during_the_start_is_one_line(module: str, command: str, tmp_path: Path) -> None:
    """Ctrl-C comes while ``module`` is being imported."""
    script = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupter())
from studies.cli import main
main()
"""
    arguments = {
        "--help": [],
        "record": ["--out", str(tmp_path / "traces")],
        "evaluate": ["graph.json", "--traces", str(tmp_path)],
    }[command]
    done = subprocess.run(
        [sys.executable, "-c", script, command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    said = done.stdout + done.stderr
    assert len(said.splitlines()) == 1 and said.startswith("stopped."), said
    # A process that Ctrl-C killed has the exit code 130 in a shell, and -SIGINT here.
    assert done.returncode in (130, -signal.SIGINT)


def test_no_public_name_is_a_module_too() -> None:
    """Importing the module would put it in the place of the name."""
    found = []
    for layer in LAYERS:
        public = set(getattr(__import__(layer), "__all__", ()))
        found += [f"{layer}.{path.stem}" for path in FILES if path.parent == ROOT / layer and path.stem in public]
        found += [f"{layer}.{name}" for name in public if (ROOT / layer / name).is_dir()]
    assert not found


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    import verify

    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'; it has .*formula"):
        verify.nonsense  # noqa: B018
