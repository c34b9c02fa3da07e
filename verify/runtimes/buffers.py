"""The exported static buffers of a graph, read by a server: a file is refused, or it is a graph that may be used as is.

``draftgraph export GRAPH.json --out GRAPH.safetensors`` writes them; ``verify.graph.buffers`` says what the arrays are.
The file is safetensors, so nothing in it is ever run. Whatever follows from the formulas is worked out anew and
compared, because a kernel that follows a wrong pointer fails far from its cause.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verify.files.strict_json import StrictJsonError, Words, expect_field, fail, show
from verify.files.tensors import parse_tensors
from verify.graph.buffers import BUFFERS_FORMAT, BUFFERS_VERSION, MAX_BUFFER_BYTES, static_buffers
from verify.graph.file import MAX_EDGES, MAX_NODES, RANK_ORIGIN, GraphFile
from verify.graph.formulas import Formula, format_formula
from verify.graph.structure import all_edges, fewest_steps
from verify.graph.truncation import SPLITS
from verify.graph.validity import REQUIRED, Validity, edge_step, read_validity
from verify.ranked import TIE_RULE

#: Axes of every array: N nodes, S pairs, E edges, or a number. The last array is float32, all others int32.
_SHAPES: dict[str, tuple[str | int, ...]] = {
    "formulas": ("N", "S", 2),
    "lengths": ("N",),
    "depth": ("N",),
    "parent_ptr": ("N + 1",),
    "parent_index": ("E",),
    "child_ptr": ("N + 1",),
    "child_index": ("E",),
    "max_i": ("N",),
    "max_j": ("N",),
    "min_masked": ("N",),
    "completes_at": ("N",),
    "truncation": ("N",),
    "truncation_value": ("N",),
}
_SCALARS = ("format", "version", "rank_origin", "tie_rule", "max_formula")
_OPTIONAL = ("model_revision", "schedule", "truncation_split")
_METADATA = (*_SCALARS, *(name for name in REQUIRED if name not in _OPTIONAL))
_WHOLE = re.compile(r"0|[1-9][0-9]{0,9}")


class BuffersError(ValueError):
    """A file of static buffers that breaks the format."""


@dataclass(frozen=True, eq=False)
class Buffers:
    """Static buffers that were checked.

    Attributes:
        arrays: as :func:`verify.graph.buffers.static_buffers` gives them, read-only.
        validity: for whom the graph holds; compare it with the run by :meth:`Validity.mismatches`.
        max_formula: pairs of the largest formula.
        truncation_split: the split that the values of beginnings are of, None where there are none.
    """

    arrays: dict[str, np.ndarray]
    validity: Validity
    max_formula: int
    truncation_split: str | None

    @property
    def budget(self) -> int:
        """Draft nodes, the root excluded."""
        return len(self.arrays["lengths"]) - 1

    def cut(self, drafts: int) -> tuple[np.ndarray, np.ndarray, float]:
        """The graph cut to at most ``drafts`` draft nodes, for a server whose forwards have room for so many.

        Returns:
            formulas [N', S, 2] and lengths [N'] of the nodes kept, the root first, in truncation order; and the
            accepted drafts to expect of them, NaN where the file does not say.

        Raises:
            ValueError: fewer than 0 drafts.
        """
        if drafts < 0:
            raise ValueError(f"drafts is {drafts}, expected at least 0")
        kept = self.arrays["truncation"][: 1 + drafts]
        value = float(self.arrays["truncation_value"][len(kept) - 1])
        return self.arrays["formulas"][kept], self.arrays["lengths"][kept], value


def load_buffers(path: str | Path) -> Buffers:
    """Read and check the static buffers at ``path``.

    Raises:
        BuffersError: the file is missing, too large, no safetensors, of another version, or breaks a rule; the message
            names the place, what was expected and what was found.

    Complexity: linear in the file, and ``(N / 64) * total formula size`` machine words for the check that every edge is
    there.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            fail("path", "a safetensors file", Words("a directory or a device"))
        with open(path, "rb") as file:
            data = file.read(MAX_BUFFER_BYTES + 1)
        return _parse(data)
    except OSError as error:
        raise BuffersError(f"{path}: path: expected a readable file, found {(error.strerror or '').lower()}") from None
    except StrictJsonError as error:
        raise BuffersError(f"{path}: {error}") from None


def parse_buffers(data: bytes) -> Buffers:
    """The static buffers of a file with the content ``data``; errors as :func:`load_buffers`."""
    try:
        return _parse(data)
    except StrictJsonError as error:
        raise BuffersError(f"buffers: {error}") from None


def _parse(data: bytes) -> Buffers:
    if len(data) > MAX_BUFFER_BYTES:
        fail("size", f"at most {MAX_BUFFER_BYTES} bytes", Words("more"))
    arrays, metadata = parse_tensors(data, ("F32", "I32"), loose=True)
    validity, largest, split = _read_metadata(metadata)
    _check_shapes(arrays, largest)
    nodes = _read_formulas(arrays["formulas"], arrays["lengths"], validity, largest)
    edges = all_edges(nodes, edge_step(validity.policy), MAX_EDGES)
    derived = static_buffers(GraphFile(nodes, edges, fewest_steps(nodes, edges), validity))
    for name in _SHAPES:
        if not name.startswith("truncation"):
            _check_same(name, arrays[name], derived[name])
    _check_truncation(arrays, split)
    return Buffers(arrays, validity, largest, split)


def _read_metadata(metadata: dict[str, str]) -> tuple[Validity, int, str | None]:
    for name, only in (
        ("format", BUFFERS_FORMAT),
        ("version", str(BUFFERS_VERSION)),
    ):  # first: others have other fields
        if metadata.get(name) != only:
            more = "; export the graph again" if name == "version" else ""
            fail(f"metadata.{name}", f'"{only}"{more}', metadata.get(name, Words("no such field")))
    for name in _METADATA:
        expect_field(metadata, name, "metadata")
    unknown = [name for name in metadata if name not in (*_METADATA, *_OPTIONAL)]
    if unknown:
        fail("metadata", f"no field but {', '.join(_METADATA)}", Words(f"the field {show(unknown[0])}"))
    for name, only in (("rank_origin", RANK_ORIGIN), ("tie_rule", TIE_RULE)):
        if metadata[name] != only:
            fail(f"metadata.{name}", f'"{only}"', metadata[name])
    stated: dict[str, object] = {name: metadata.get(name) for name in REQUIRED}
    stated |= {"schedule": metadata["schedule"]} if "schedule" in metadata else {}
    for name in ("block_length", "top_j"):
        stated[name] = _whole(metadata, name)
    try:
        stated["temperature"] = float(metadata["temperature"])
    except ValueError:
        fail("metadata.temperature", "a number", metadata["temperature"])
    split = metadata.get("truncation_split")
    if split is not None and split not in SPLITS:
        fail("metadata.truncation_split", f"one of {', '.join(SPLITS)}", split)
    return read_validity(stated), _whole(metadata, "max_formula"), split


def _whole(metadata: dict[str, str], name: str) -> int:
    if not _WHOLE.fullmatch(metadata[name]):
        fail(f"metadata.{name}", "a whole number in digits", metadata[name])
    return int(metadata[name])


def _check_shapes(arrays: dict[str, np.ndarray], largest: int) -> None:
    """All arrays are there, and no other, of the right kind, and of shapes that fit each other."""
    for name in _SHAPES:
        if name not in arrays:
            fail("file", f"the array {show(name)}", Words(f"only {', '.join(map(show, arrays))}"[:200] or "none"))
    unknown = [name for name in arrays if name not in _SHAPES]
    if unknown:
        fail("file", f"no array but {', '.join(_SHAPES)}", Words(f"the array {show(unknown[0])}"))
    nodes, edges = len(arrays["lengths"]), arrays["parent_index"].size
    if not 1 <= nodes <= MAX_NODES:
        fail("lengths", f"1 to {MAX_NODES} nodes, the root first", Words(f"{nodes} nodes"))
    sizes = {"N": nodes, "N + 1": nodes + 1, "S": max(1, largest), "E": edges}
    for name, axes in _SHAPES.items():
        kind = np.float32 if name == "truncation_value" else np.int32
        if arrays[name].dtype != kind:
            fail(f"{name}.dtype", f'"{"F32" if kind is np.float32 else "I32"}"', Words(str(arrays[name].dtype)))
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in axes)
        if arrays[name].shape != shape:
            meant = f"the shape {list(shape)}, [{', '.join(map(str, axes))}]"
            fail(f"{name}.shape", meant, Words(str(list(arrays[name].shape))))


def _read_formulas(formulas: np.ndarray, lengths: np.ndarray, validity: Validity, largest: int) -> tuple[Formula, ...]:
    """The rules for nodes of a graph file, on padded pairs."""
    if lengths[0] != 0:
        fail("lengths[0]", "0, the root", int(lengths[0]))
    highest = formulas.shape[1] if largest else 0
    _check_range("lengths", lengths[1:], np.ones(len(lengths) - 1, dtype=bool), 1, highest, 1)
    if lengths.max() != largest:
        fail("metadata.max_formula", f"{lengths.max()}, the pairs of the largest formula", largest)
    if largest >= validity.block_length:
        fail("lengths", f"fewer than {validity.block_length} pairs (the block length)", Words(f"{largest} pairs"))
    named = np.arange(formulas.shape[1]) < lengths[:, None]
    for rank, word, high in ((0, "position", validity.block_length), (1, "vocabulary", validity.top_j)):
        _check_range("formulas", formulas[:, :, rank], named, 1, high, 0, f", {word} rank")
        _check_range("formulas", formulas[:, :, rank], ~named, 0, 0, 0, ", padding")
    ahead = formulas[:, 1:, 0] <= formulas[:, :-1, 0]
    if (wrong := np.argwhere(ahead & named[:, 1:])).size:
        node, pair = wrong[0].tolist()
        before, after = formulas[node, pair : pair + 2, 0].tolist()
        fail(f"formulas[{node}]", "position ranks in ascending order, each once", Words(f"{before} before {after}"))
    pairs = zip(formulas.tolist(), lengths.tolist(), strict=True)
    nodes = tuple(tuple((i, j) for i, j in padded[:size]) for padded, size in pairs)
    first: dict[Formula, int] = {}
    for index, node in enumerate(nodes):
        if first.setdefault(node, index) != index:
            found = Words(f"{format_formula(node)[:200]}, which is formulas[{first[node]}] too")
            fail(f"formulas[{index}]", "a node that stands once", found)
    return nodes


def _check_range(
    name: str, values: np.ndarray, asked: np.ndarray, low: int, high: int, offset: int, what: str = ""
) -> None:
    """``values`` where ``asked`` lie within ``low`` and ``high``; the first axis begins at ``offset``."""
    wrong = np.argwhere(asked & ((values < low) | (values > high)))
    if wrong.size:
        place = wrong[0].tolist()
        found = int(values[tuple(place)])
        index = "".join(f"[{number + (offset if axis == 0 else 0)}]" for axis, number in enumerate(place))
        expected = f"an integer from {low} to {high}" if low < high else str(low)
        fail(f"{name}{index}{what}", expected, found)


def _check_same(name: str, found: np.ndarray, derived: np.ndarray) -> None:
    """An array that follows from the formulas."""
    if found.shape != derived.shape:
        edges = f"{derived.size} edges, all that the policy allows between the nodes"
        fail(f"{name}.shape", edges, Words(f"{found.size}"))
    wrong = np.argwhere(found != derived)
    if wrong.size:
        place = tuple(wrong[0].tolist())
        index = "".join(f"[{number}]" for number in place)
        fail(f"{name}{index}", f"{derived[place]}, as the formulas have it", int(found[place]))


def _check_truncation(arrays: dict[str, np.ndarray], split: str | None) -> None:
    """An order of all nodes, root first, each behind one of its parents; and values that never fall, or none at all."""
    order, value = arrays["truncation"], arrays["truncation_value"]
    nodes = np.arange(len(order))
    if not np.array_equal(np.sort(order), nodes):
        missing = np.setdiff1d(nodes, order)[0]
        fail("truncation", "every node once", Words(f"none at node {missing}, or one beyond {len(order) - 1}"))
    if order[0] != 0:
        fail("truncation[0]", "0, the root", int(order[0]))
    place = np.argsort(order)
    if len(order) > 1:
        first = np.minimum.reduceat(place[arrays["parent_index"]], arrays["parent_ptr"][1:-1])
        if (late := np.flatnonzero(first > place[1:])).size:
            node = int(late[0]) + 1
            fail(f"truncation[{place[node]}]", "a node behind one of its parents", Words(f"node {node} before all"))
    if split is None:
        if not np.isnan(value).all():
            fail("truncation_value", "NaN throughout, as no truncation_split is stated", Words("numbers"))
        return
    if not np.isfinite(value).all() or value[0] != 0 or (np.diff(value) < 0).any():
        fail("truncation_value", "finite numbers that begin at 0 and never fall", Words("others"))
