"""What a served graph really accepts, request by request: counted beside the decode, kept in a file (docs/drift.md).

The counter watches a decode and changes nothing. A runtime that is not ours counts the same numbers and writes the same
file; then ``draftgraph watch`` tells whether the graph still keeps what its traces promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from verify.files.json_text import format_json, plain_json
from verify.files.strict_json import (
    MAX_INTEGER,
    StrictJsonError,
    Words,
    expect_format,
    expect_integer,
    expect_list,
    expect_object,
    fail,
    read_json,
)
from verify.files.writing import write_atomically
from verify.graph.buffers import FillLimits
from verify.graph.file import MAX_NODES
from verify.graph.formulas import Formula
from verify.graph.structure import read_nodes
from verify.graph.validity import Validity, read_validity
from verify.observing import ForwardFact, StepFact

COUNTS_FORMAT, COUNTS_VERSION = "draftgraph-counts", 1
FIELDS = ("format", "version", "validity", "nodes", "by", "forwards", "anchors", "accepted")
MAX_BYTES = 64 * 2**20
MAX_DEPTH = 32767

By = Literal["node", "depth"]


class CountsFileError(ValueError):
    """A file of counts that breaks the format."""


@dataclass(frozen=True, eq=False)
class AcceptanceCounts:
    """Forward passes and accepted drafts of ``R`` requests, in the order in which they were served.

    Attributes:
        validity: what was decoded, None where the runtime does not say.
        by: what a column of ``accepted`` is: a draft ``node`` (the graph's, in the order of its file, the root left
            out), or a ``depth`` (column ``d``: at least ``d + 1`` drafts were accepted).
        forwards: int64 [R], all forward passes of a request.
        anchors: int64 [R], those that started at an anchor: all but the refresh forwards.
        accepted: int64 [R, C], at how many anchors the column's draft was accepted.
        nodes: the nodes of the graph, the root first; None where the runtime does not say.
    """

    validity: Validity | None
    by: By
    forwards: np.ndarray
    anchors: np.ndarray
    accepted: np.ndarray
    nodes: tuple[Formula, ...] | None = None

    @property
    def requests(self) -> int:
        """``R``."""
        return len(self.anchors)

    @property
    def accepted_drafts(self) -> np.ndarray:
        """int64 [R], accepted drafts over all anchors of each request."""
        return self.accepted.sum(axis=1)


@dataclass(eq=False)
class _Request:
    forwards: int = 0
    anchors: int = 0
    block: int = -1
    states: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    reached: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    accepted: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class AcceptanceCounter:
    """Counts accepted nodes of a graph: give it to ``decode_batch`` as ``observer`` and as ``forward_observer``.

    Args:
        nodes: the draft nodes, the root left out, as the decode was given them.
        mask_token_id: the model's.

    Complexity: a comparison of the reached state with the drafts of the forward per denoising step, O(D * L).
    """

    def __init__(self, nodes: Sequence[Formula], mask_token_id: int) -> None:
        self.nodes, self.mask_token_id = tuple(nodes), mask_token_id
        self._limits = FillLimits.of(self.nodes)
        self._requests: dict[int, _Request] = {}

    def on_forward(self, fact: ForwardFact) -> None:
        """A forward evaluated a state and its drafts; its distributions are not used yet.

        Raises:
            ValueError: the drafts are not those of the nodes.
        """
        found = self._requests.setdefault(fact.prompt_index, _Request(accepted=np.zeros(len(self.nodes), np.int64)))
        found.forwards += 1
        refresh = fact.block != found.block  # the first forward of a block, which carries no drafts
        found.anchors += not refresh
        found.block, found.reached, found.states = fact.block, fact.states[0].copy(), fact.states[1:]
        masked, depth = int((found.reached == self.mask_token_id).sum()), fact.ranked.top_token.shape[-1]
        found.rows = np.flatnonzero(self._limits.usable(masked, depth) & (not refresh))
        if len(found.rows) != len(found.states):
            raise ValueError(
                f"a forward evaluated {len(found.states)} drafts, expected the {len(found.rows)} nodes that can be "
                "filled there; count with the nodes that the decode drafts by"
            )

    def on_step(self, fact: StepFact) -> None:
        """A denoising step was made: if it led to a draft of the forward, that draft is accepted."""
        found = self._requests[fact.prompt_index]
        if not len(found.states) or not len(fact.commit_position):
            return
        found.reached[fact.commit_position] = fact.commit_token
        row = np.flatnonzero((found.states == found.reached).all(axis=1))
        if len(row):
            found.accepted[found.rows[row[0]]] += 1

    def counts(self, validity: Validity | None = None, order: Iterable[int] | None = None) -> AcceptanceCounts:
        """What was counted so far.

        Args:
            validity: what was decoded.
            order: prompt indices in the order in which they are to stand; ascending by default.
        """
        found = [self._requests[index] for index in (sorted(self._requests) if order is None else order)]
        return AcceptanceCounts(
            validity=validity,
            by="node",
            forwards=np.array([one.forwards for one in found], dtype=np.int64),
            anchors=np.array([one.anchors for one in found], dtype=np.int64),
            accepted=np.array([one.accepted for one in found], dtype=np.int64).reshape(-1, len(self.nodes)),
            nodes=((), *self.nodes),
        )


def save_counts(counts: AcceptanceCounts, path: str | Path) -> None:
    """Write ``counts`` to ``path``: whole or not at all, and only when :func:`load_counts` would take it.

    Raises:
        CountsFileError: the counts break the format.
        OSError: the file cannot be written; whatever stood at ``path`` is untouched.
    """
    payload: dict[str, Any] = {"format": COUNTS_FORMAT, "version": COUNTS_VERSION}
    payload |= {name: getattr(counts, name) for name in FIELDS[2:]}
    payload["validity"] = None if counts.validity is None else counts.validity.stated()
    payload = plain_json(payload)
    try:
        _counts(payload)
    except StrictJsonError as error:
        raise CountsFileError(f"{path}: {error}") from None
    with write_atomically(path) as temporary:
        temporary.write_text(format_json(payload, by_row=("nodes", "accepted")), encoding="utf-8")


def load_counts(path: str | Path) -> AcceptanceCounts:
    """Read the file of counts at ``path``.

    Raises:
        CountsFileError: the file is missing, too large, not JSON, of another version, or breaks a rule of
            docs/drift.md; the message names the place, what was expected and what was found.
    """
    try:
        return _counts(read_json(path, MAX_BYTES))
    except StrictJsonError as error:
        raise CountsFileError(f"{path}: {error}") from None


def _counts(payload: object) -> AcceptanceCounts:
    """Check a parsed file and make what it says. Raises :class:`StrictJsonError`."""
    outer = expect_format(payload, COUNTS_FORMAT, COUNTS_VERSION)
    expect_object(payload, "file", FIELDS)
    validity = None if outer["validity"] is None else read_validity(outer["validity"])
    nodes = None
    if outer["nodes"] is not None:
        length, top_j = (validity.block_length, validity.top_j) if validity else (MAX_DEPTH, MAX_DEPTH)
        nodes = read_nodes(outer["nodes"], length, top_j, MAX_NODES)
    by = outer["by"]
    if by not in ("node", "depth"):
        fail("by", '"node" or "depth"', by)
    rows = expect_list(outer["accepted"], "accepted", "a list of one list a request")
    forwards = _integers(outer["forwards"], "forwards", len(rows))
    anchors = _integers(outer["anchors"], "anchors", len(rows))
    width = len(expect_list(rows[0], "accepted[0]")) if rows else 0
    if by == "node" and nodes is not None and rows and width != len(nodes) - 1:
        fail("accepted[0]", f"{len(nodes) - 1} counts, one a node without the root", Words(f"{width}"))
    accepted = [_integers(row, f"accepted[{index}]", width) for index, row in enumerate(rows)]
    for index, (row, visited, passes) in enumerate(zip(accepted, anchors, forwards, strict=True)):
        if visited > passes:
            fail(f"anchors[{index}]", f"at most the {passes} forwards of the request", visited)
        if row and max(row) > visited:
            fail(f"accepted[{index}]", f"counts of at most the {visited} anchors of the request", max(row))
        if by == "depth" and any(above < below for above, below in pairwise(row)):
            fail(f"accepted[{index}]", "counts that do not grow with the depth", row)
    return AcceptanceCounts(
        validity=validity,
        by=by,
        forwards=np.array(forwards, dtype=np.int64),
        anchors=np.array(anchors, dtype=np.int64),
        accepted=np.array(accepted, dtype=np.int64).reshape(len(rows), width),
        nodes=nodes,
    )


def _integers(value: object, where: str, length: int) -> list[int]:
    """A list of ``length`` counts."""
    found = expect_list(value, where)
    if len(found) != length:
        fail(where, f"{length} counts", Words(f"{len(found)}"))
    return [expect_integer(item, f"{where}[{index}]", 0, MAX_INTEGER) for index, item in enumerate(found)]
