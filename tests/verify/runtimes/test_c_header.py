"""draftgraph.h: it compiles without a warning, decides as the verifier does, and refuses what the reader refuses.

``python -m tests.verify.runtimes.test_c_header FOLDER`` writes the seeds that ``make fuzz-c`` begins with.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.conformance.vectors import random_cases
from tests.support.c_header import SANITIZED, SOURCES, answers, build, compilers, doubles, ints, rule_bytes
from tests.support.models import END_ID, MASK_ID, random_formulas, tiny_denoiser
from tests.support.paths import DOCS, ROOT
from tests.verify.runtimes.test_buffers import GOOD, GRAPH, HOSTILE, content
from verify.decoding import DecodeConfig, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.graph.buffers import buffer_metadata, pad_formulas, static_buffers
from verify.graph.file import GraphFile, Validity
from verify.graph.formulas import formula
from verify.observing import ForwardFact
from verify.policies.specification import make_policy
from verify.runtimes import c_include
from verify.runtimes.buffers import BuffersError, parse_buffers

C, CPP = compilers("gcc", "clang", "cc"), compilers("g++", "clang++", "c++")
pytestmark = pytest.mark.skipif(not C, reason="no C compiler is installed (gcc, clang or cc): apt install gcc")

BY_HAND = json.loads((DOCS / "test-vectors" / "logits.json").read_text(encoding="utf-8"))["cases"]
RANDOM = int(os.environ.get("DRAFTGRAPH_VECTORS", "1000"))

#: What the header takes although the reader in Python refuses it: a schedule is a text that is compared, never read.
LOOSER = {"an absurd schedule"}

FORMAT, MEMORY, NUMBER, MISMATCH = 1, 2, 4, 5


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver under both sanitizers."""
    program = tmp_path_factory.mktemp("c") / "driver"
    if trouble := build(C[0], SOURCES / "driver.c", program, *SANITIZED):
        if "cannot find" in trouble:
            pytest.skip(f"{C[0]} has no sanitizers here: {trouble[-200:]}")
        pytest.fail(trouble)
    return program


@pytest.mark.parametrize(("compiler", "standard"), [
    *((name, standard) for name in C for standard in ("c99", "c11")),
    *((name, standard) for name in CPP for standard in ("c++11", "c++17")),
])  # fmt: skip
def test_it_compiles_without_a_warning_in_c_and_in_cpp(compiler: str, standard: str, tmp_path: Path) -> None:
    source = tmp_path / ("one.cpp" if "+" in standard else "one.c")
    source.write_text(
        '#include "draftgraph.h"\n#include "draftgraph.h"\nint main(void) { return dg_static(1).least - 1; }\n'
    )
    assert build(compiler, source, tmp_path / "one", "-O2", "-Wconversion", "-Wshadow", standard=standard) == ""
    assert build(compiler, source, tmp_path / "two", "-O2", "-ffast-math", standard=standard) != ""


def test_two_files_of_a_program_may_include_it(tmp_path: Path) -> None:
    (tmp_path / "one.c").write_text('#include "draftgraph.h"\nint main(void) { return dg_load_bytes(0) == 0; }\n')
    (tmp_path / "two.c").write_text('#include "draftgraph.h"\nsize_t more(void) { return dg_load_bytes(1); }\n')
    assert build(C[0], tmp_path / "one.c", tmp_path / "both", str(tmp_path / "two.c")) == ""


def test_the_header_is_installed_and_needs_libc_alone() -> None:
    assert (c_include() / "draftgraph.h").is_file()
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert "runtimes/c/*.h" in package["verify"]
    lines = (c_include() / "draftgraph.h").read_text(encoding="utf-8").splitlines()
    included = {line.split()[1] for line in lines if line.startswith("#include")}
    assert included == {"<math.h>", "<stddef.h>", "<stdint.h>", "<string.h>"}
    assert not [line for line in lines if "alloc(" in line]


def command(case: dict) -> bytes:
    """A case of vectors as the driver reads it; rows that must not be read are NaN."""
    rule, nodes = case["rule"], case["nodes"]
    formulas, lengths = pad_formulas([formula(node) for node in nodes])
    rows = np.array(case["rows"], dtype="<f4")
    rows[~np.array(case["expected"]["usable"])] = np.nan
    sizes = [case[name] for name in ("block_length", "vocabulary", "mask_token", "top_j")]
    threshold = (rule["k"], None, False) if rule["name"] == "static" else (rule["least"], rule["tau"], rule["strict"])
    parts = [ints(1, *sizes, len(nodes), formulas.shape[1], case["complete"]), rule_bytes(*threshold)]
    logits = np.array(case["logits"], dtype="<f4")
    return b"".join([*parts, ints(formulas, lengths, case["state"]), logits.tobytes(), rows.tobytes()])


def decided(case: dict, frames: list[Any]) -> dict:
    """An answer in the form of a case's ``expected``; the long way by match and walk is the short way by accept."""
    mask, length, top_j = case["mask_token"], case["block_length"], case["top_j"]
    order, tokens, _, usable_count, usable, drafts, count, walked, following, path, state, *last = frames
    assert int(usable_count[0]) == int(usable.sum()) and path.tolist() == walked.tolist()
    following = following.reshape(-1, length)
    rows = [row for row in path.tolist() if row >= 0]
    assert [int(one[0]) for one in last[:2]] == [len(rows) - 1, rows[-1]] and int(count[0]) == len(rows) - 1
    states = [case["state"], *(following[row].tolist() for row in rows)]
    commits = [
        [[position, token] for position, token in enumerate(after) if before[position] != token]
        for before, after in itertools.pairwise(states)
        if mask in before
    ]
    depth = min(top_j, case["vocabulary"] - 1)
    tokens = tokens.reshape(length, top_j)
    assert (tokens[:, depth:] == -1).all()
    return {
        "order": order.tolist(),
        "tokens": tokens[:, :depth].tolist(),
        "usable": usable.astype(bool).tolist(),
        "drafts": drafts.reshape(-1, length).tolist(),
        "path": rows,
        "commits": commits,
        "state": state.tolist(),
    }


def test_cases_made_by_hand(driver: Path) -> None:
    for case, frames in zip(BY_HAND, answers(driver, [command(case) for case in BY_HAND]), strict=True):
        assert decided(case, frames) == case["expected"], case["name"]


def test_random_cases(driver: Path) -> None:
    cases = list(random_cases(0, RANDOM))
    for case, frames in zip(cases, answers(driver, [command(case) for case in cases]), strict=True):
        assert decided(case, frames) == case["expected"], case


@pytest.mark.parametrize(("value", "message"), [
    (np.nan, "logits of position[3]: expected no NaN and no +inf; token, found 1"),
    (np.inf, "logits of position[3]: expected no NaN and no +inf; token, found 1"),
    (-np.inf, "logits of position[3]: expected a token above -inf"),
])  # fmt: skip
def test_logits_that_cannot_be_ranked_are_refused(driver: Path, value: float, message: str) -> None:
    case = json.loads(json.dumps(BY_HAND[0]))
    case["logits"][3][1:] = [value] * (case["vocabulary"] - 1)
    ((status, text),) = answers(driver, [command(case)])
    assert (int(status[0]), text.decode()) == (NUMBER, message)


def load_command(data: bytes, less: int = 1, cut: int = 2) -> bytes:
    """Load ``data`` in an arena of 1 / ``less`` of what is enough, and cut the graph."""
    return ints(2, len(data), less, cut) + data


#: What the driver answers about a graph, in its order, before the texts.
ARRAYS = (
    "formulas", "lengths", "depth", "parent_ptr", "parent_index", "child_ptr", "child_index", "max_i", "max_j",
    "min_masked", "completes_at", "truncation", "truncation_value",
)  # fmt: skip


def test_what_is_exported_is_loaded(driver: Path) -> None:
    spec = "threshold:0.9@temperature=0.5"
    other = Validity('toy "2" é', "ab\\12", spec, 32, "none", 0.5, 8, "adablock:0.3:10+13:16")
    by_two = Validity("m", None, "static:2", 8, "none", 0.0, 2)
    graphs = [
        GRAPH,
        GraphFile.from_nodes([], GRAPH.validity),
        GraphFile.from_nodes(random_formulas(0, 40, None, ranks=9, top_j=8), other),
        GraphFile.from_nodes([((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 2), (4, 1))], by_two),
    ]
    commands = [load_command(content(static_buffers(graph), buffer_metadata(graph))) for graph in graphs]
    for graph, (edges, largest, length, top_j, *rest) in zip(graphs, answers(driver, commands), strict=True):
        assert [int(one[0]) for one in (edges, largest, length, top_j)] == [
            len(graph.edges), max(map(len, graph.nodes)), graph.validity.block_length, graph.validity.top_j
        ]  # fmt: skip
        arrays = static_buffers(graph)
        for name, found in zip(ARRAYS, rest, strict=False):
            found = np.frombuffer(found, dtype="<f4") if isinstance(found, bytes) else found
            np.testing.assert_array_equal(found, arrays[name].ravel(), err_msg=name)
        texts, kept = rest[len(ARRAYS) : len(ARRAYS) + 7], rest[len(ARRAYS) + 8]
        validity, metadata = graph.validity, buffer_metadata(graph)
        fields = ("model", "model_revision", "policy", "cache", "temperature", "schedule", "truncation_split")
        assert [text.decode() for text in texts] == [metadata.get(name, "") for name in fields]
        assert np.flatnonzero(kept).tolist() == sorted(arrays["truncation"][:3].tolist())
        fits = validity == GRAPH.validity
        assert len(rest) == len(ARRAYS) + 9 + (0 if fits else 2)
        if not fits:
            assert int(rest[-2][0]) == MISMATCH and rest[-1].startswith(b"model: expected " + validity.model.encode())


def test_hostile_files_are_refused_with_a_message(driver: Path) -> None:
    found = answers(driver, [load_command(data) for data, _, _ in HOSTILE.values()])
    taken = {name for name, frames in zip(HOSTILE, found, strict=True) if len(frames) != 2}
    assert taken == LOOSER
    for name, frames in zip(HOSTILE, found, strict=True):
        if name not in LOOSER:
            assert int(frames[0][0]) == FORMAT and b": expected " in frames[1], name


def test_a_small_arena_is_said(driver: Path) -> None:
    ((status, text),) = answers(driver, [load_command(GOOD, less=40)])
    assert int(status[0]) == MEMORY and text.decode() == "arena: expected dg_load_bytes(size of the file)"


def test_turned_bytes_are_judged_as_by_the_reader_in_python(driver: Path) -> None:
    """One byte of the file changed at random: the header takes what the reader takes, and little else."""
    rng = np.random.default_rng(1)
    changed = []
    for number in rng.integers(0, len(GOOD), size=1500).tolist():
        data = bytearray(GOOD)
        data[number] ^= int(rng.integers(1, 256))
        changed.append(bytes(data))
    judged = {True: 0, False: 0}
    for data, frames in zip(changed, answers(driver, [load_command(data) for data in changed]), strict=True):
        taken = not (len(frames) == 2 and int(frames[0][0]) == FORMAT)
        try:
            parse_buffers(data)
            readable = True
        except BuffersError:
            readable = False
        judged[readable] += taken
        if not taken:
            assert not readable, frames[1]
    assert judged[True] >= 5 and judged[False] <= 15  # a policy's or a temperature's text, which is only compared


#: Of a rule: its specification, and least, tau, strict.
RULES = {
    "static:1": (1, None, False),
    "static:3": (3, None, False),
    "threshold:0.2": (1, 0.2, False),
    "threshold:0.5": (1, 0.5, False),
    "threshold:1": (1, 1.0, False),
    "dynamic:0.3": (1, 0.3, True),
}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"fill": "none"},
    {"coefficient": 0.5, "width": 3},
    {"coefficient": 0.0, "horizon": 2},
    {"width": 2, "follow": 2, "horizon": 3},
)


class Forwards(list[ForwardFact]):
    def on_forward(self, fact: ForwardFact) -> None:
        self.append(fact)


@pytest.fixture(scope="module")
def denoiser() -> Any:
    return tiny_denoiser(seed=3)


@pytest.mark.parametrize("spec", RULES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_informed_drafts_are_those_of_the_drafter(driver: Path, denoiser: Any, spec: str, settings: dict) -> None:
    """The forwards of real decodes, fed to the header: it reaches the same states, and proposes the same drafts."""
    length, proposed = 16, 0
    for drafts, prompt in ((1, [5, 9, 14, 3, 22, 7]), (4, [30, 31, 8]), (11, [11])):
        seen = Forwards()
        drafter = InformedDrafter(drafts, InformedSettings(bridges=False, **settings))
        config = DecodeConfig(block_length=length, generation_length=32, end_token_ids=(END_ID,))
        list(decode_batch(denoiser, [(0, prompt)], make_policy(spec), config, drafter, forward_observer=seen))
        used = drafter.settings
        parts = [ints(3, length, drafts, MASK_ID), rule_bytes(*RULES[spec]), doubles(used.coefficient)]
        parts.append(ints(used.horizon or 0, used.fill == "alternatives", used.width, used.follow, len(seen)))
        for before, fact in itertools.pairwise([None, *seen]):
            begins = before is None or before.block != fact.block
            rows = [ints(begins, len(fact.states), fact.states, fact.ranked.top_token[:, :, 0])]
            parts += [*rows, doubles(fact.ranked.top_probability[:, :, 0])]
        ((_, *frames),) = answers(driver, [b"".join(parts)])
        for number, (fact, after) in enumerate(itertools.pairwise([*seen, None])):
            steps, complete, block, states, _ = frames[5 * number : 5 * number + 5]
            assert steps >= 1
            if after is None or after.block != fact.block:
                assert complete[0] == 1 and MASK_ID not in block
                continue
            np.testing.assert_array_equal(after.states[0], block)
            np.testing.assert_array_equal(after.states[1:], states.reshape(-1, length))
            proposed += len(after.states) - 1
    assert proposed > 10


def test_informed_drafts_refuse_what_they_cannot_follow(driver: Path) -> None:
    tail = doubles(1.0) + ints(0, 1, 1, 0, 0)
    for rule in ((0, 0.5, False), (1, 0.0, False), (1, 1.5, False), (1, float("nan"), False)):
        ((_, status, text),) = answers(driver, [ints(3, 8, 4, 2) + rule_bytes(*rule) + tail])
        assert int(status[0]) == 3 and text.startswith(b"rule: expected at least one position a step, and 0 < tau <= 1")
    forward = ints(1, 1, [2, 2], [5, 2]) + doubles([0.5, 0.5])  # the mask token as the best one
    ((_, status, text),) = answers(
        driver, [ints(3, 2, 4, 2) + rule_bytes(1, None, False) + doubles(1.0) + ints(0, 1, 1, 0, 1) + forward]
    )
    assert int(status[0]) == NUMBER and b"that is not the mask token, found 2" in text


def write_seeds(folder: Path) -> list[Path]:
    """Inputs to begin with, each named by what it is for: the first letter of it (tests/verify/runtimes/c/fuzz.c)."""
    other = Validity("m", "ab12", "threshold:0.9", 32, "dual", 0.0, 8)
    graphs = (
        GRAPH,
        GraphFile.from_nodes([], GRAPH.validity),
        GraphFile.from_nodes([((1, 2),), ((1, 2), (3, 1))], other),
    )
    files = [content(static_buffers(graph), buffer_metadata(graph)) for graph in graphs]
    numbers = np.random.default_rng(0).integers(0, 256, size=(8, 400), dtype=np.uint8)
    seeds = {f"load-{k}": b"L" + data for k, data in enumerate(files)}
    seeds |= {f"arena-{k}": b"A\xff\xff" + data for k, data in enumerate(files)}
    seeds |= {f"core-{k}": b"C" + numbers[k].tobytes() for k in range(4)}
    seeds |= {f"informed-{k}": b"I" + numbers[4 + k].tobytes() for k in range(4)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in seeds]


def test_random_input_reaches_nothing_beyond_the_arrays(tmp_path: Path) -> None:
    """A short run of what docs/runtime-c.md tells to run for long."""
    if trouble := build(C[0], SOURCES / "fuzz.c", tmp_path / "fuzz", *SANITIZED, "-DDG_FUZZ_MAIN"):
        if "cannot find" in trouble:
            pytest.skip(f"{C[0]} has no sanitizers here: {trouble[-200:]}")
        pytest.fail(trouble)
    seeds = write_seeds(tmp_path / "seeds")
    done = subprocess.run([tmp_path / "fuzz", "20000", "1", *seeds], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith("20000 inputs: ")


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
