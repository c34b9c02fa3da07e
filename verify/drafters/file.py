"""The drafter file: a tuned drafter as JSON, format version 1 (docs/drafter-format.md is its specification).

A file holds all that the drafter needs, the formulas of its graph included, so that it can be handed on alone. Like the
loader of graph files this one trusts nothing, and the writer sends what it writes through the same checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from verify.drafters.contract import Drafter
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import DEFAULTS, InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.drafts import DraftFiller
from verify.files.json_text import format_json, plain_json
from verify.files.strict_json import (
    StrictJsonError,
    Words,
    expect_format,
    expect_integer,
    expect_object,
    expect_plain,
    fail,
    parse_json,
    read_json,
    show,
)
from verify.files.typed_json import from_json, to_json
from verify.files.writing import write_atomically
from verify.graph.file import MAX_BYTES, MAX_KEYS, MAX_NODES, GraphFile, GraphFileError, load_graph, parse_graph
from verify.graph.formulas import ROOT, Formula
from verify.graph.structure import read_nodes
from verify.graph.validity import MAX_BLOCK_LENGTH, MAX_TOP_J, Validity, read_validity
from verify.graph.values import check_values

DRAFTER_FORMAT = "draftgraph-drafter"
DRAFTER_FORMAT_VERSION = 1
INFORMED = "informed"

MAX_DRAFTS = MAX_NODES

FIELDS = ("format", "version", "drafter", "drafts", "settings", "nodes", "validity", "values", "provenance")


class DrafterFileError(ValueError):
    """A drafter file, or a drafter to be written to one, that breaks the format."""


@dataclass(frozen=True)
class DrafterFile:
    """A drafter with everything that its file says.

    Attributes:
        drafts: drafts per forward at most.
        settings: of the informed drafter.
        formulas: of the graph that the settings give rows to, root left out, best first; empty where they give none.
        validity: for whom it was tuned, or None: it may then be run with anything.
        values: per split, what it is worth there.
        provenance: where it comes from (logs, search, seed, tool version, ...).
        drafter: which one; "informed" is the only one of version 1.
    """

    drafts: int
    settings: InformedSettings = DEFAULTS
    formulas: tuple[Formula, ...] = ()
    validity: Validity | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    drafter: str = INFORMED

    def make(self) -> InformedDrafter:
        """The drafter, ready for a decode."""
        return InformedDrafter(self.drafts, self.settings, self.formulas)


def load_drafter(path: str | Path) -> DrafterFile:
    """Read the drafter file at ``path``.

    Raises:
        DrafterFileError: the file is missing, too large, not JSON, of another version, or breaks a rule of
            docs/drafter-format.md; the message names the place, what was expected and what was found.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_drafter(DrafterFile(16, InformedSettings(coefficient=0.8)), f"{folder}/drafter.json")
    ...     found = load_drafter(f"{folder}/drafter.json")
    >>> found.drafts, found.settings.coefficient, found.make().max_drafts
    (16, 0.8, 16)
    """
    try:
        return _drafter(read_json(path, MAX_BYTES, MAX_KEYS))
    except StrictJsonError as error:
        raise DrafterFileError(f"{path}: {error}") from None


def load_drafts(path: str | Path) -> GraphFile | DrafterFile:
    """Read what is at ``path``, a graph file or a drafter file; errors as of their own loaders."""
    try:
        return load_graph(path)
    except GraphFileError as error:
        if f'found "{DRAFTER_FORMAT}"' not in str(error):
            raise
    return load_drafter(path)


def drafter_of(
    drafts: str | Path | GraphFile | DrafterFile | Drafter | DraftFiller | Iterable[Sequence[Sequence[int]]],
) -> tuple[Drafter, Validity | None]:
    """The drafter that ``drafts`` are, and for whom they were made, None where nothing says so.

    Args:
        drafts: a graph file or a drafter file, loaded or by its path; a drafter; or draft formulas, also none.

    Raises:
        The errors of :func:`load_drafts`.
    """
    found = load_drafts(drafts) if isinstance(drafts, str | Path) else drafts
    if isinstance(found, GraphFile):
        return GraphDrafter(found.nodes[1:]), found.validity
    if isinstance(found, DrafterFile):
        return found.make(), found.validity
    return (cast(Drafter, found) if hasattr(found, "for_sequence") else GraphDrafter(cast(Any, found))), None


def parse_drafts(text: str) -> GraphFile | DrafterFile:
    """What is in the ``text`` of a graph file or a drafter file; errors as of :func:`load_drafts`."""
    try:
        return parse_graph(text)
    except GraphFileError as error:
        if f'found "{DRAFTER_FORMAT}"' not in str(error):
            raise
    try:
        return _drafter(parse_json(text.encode("utf-8"), MAX_KEYS))
    except StrictJsonError as error:
        raise DrafterFileError(f"drafter: {error}") from None


def format_drafter(drafter: DrafterFile) -> str:
    """The text of the drafter's file."""
    return format_json(_payload(drafter), by_row=("nodes",))


def save_drafter(drafter: DrafterFile, path: str | Path) -> None:
    """Write ``drafter`` to ``path``: whole or not at all, and only when :func:`load_drafter` would take it.

    Raises:
        DrafterFileError: the drafter breaks the format.
        OSError: the file cannot be written; whatever stood at ``path`` is untouched.
    """
    payload = _payload(drafter)
    try:
        _drafter(payload)
    except StrictJsonError as error:
        raise DrafterFileError(f"{path}: {error}") from None
    data = format_drafter(drafter).encode("utf-8")
    if len(data) > MAX_BYTES:
        raise DrafterFileError(f"{path}: size: expected at most {MAX_BYTES} bytes, found {len(data)} bytes")
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)


def _payload(drafter: DrafterFile) -> dict[str, Any]:
    """The JSON object of ``drafter``, unchecked."""
    payload: dict[str, Any] = {"format": DRAFTER_FORMAT, "version": DRAFTER_FORMAT_VERSION}
    payload.update({name: getattr(drafter, name) for name in FIELDS[2:] if name != "nodes"})
    payload["validity"] = None if drafter.validity is None else drafter.validity.stated()
    payload["nodes"] = [ROOT, *drafter.formulas] if drafter.formulas else None
    return plain_json(to_json({name: payload[name] for name in FIELDS}))


def _drafter(payload: object) -> DrafterFile:
    """Check a parsed file and make what it says. Raises :class:`StrictJsonError`."""
    expect_format(payload, DRAFTER_FORMAT, DRAFTER_FORMAT_VERSION)
    outer = expect_object(payload, "file", FIELDS)
    if outer["drafter"] != INFORMED:
        fail("drafter", f'"{INFORMED}"', outer["drafter"])
    settings = _settings(outer["settings"])
    validity = None if outer["validity"] is None else read_validity(outer["validity"])
    length, top_j = (validity.block_length, validity.top_j) if validity else (MAX_BLOCK_LENGTH, MAX_TOP_J)
    formulas: tuple[Formula, ...] = ()
    if outer["nodes"] is not None:
        formulas = read_nodes(outer["nodes"], length, top_j, MAX_NODES)[1:]
    if settings.uses_graph and not formulas:
        found = outer["nodes"] if outer["nodes"] is None else Words("the root alone")
        fail("nodes", "the draft formulas that the settings give rows to", found)
    if outer["nodes"] is not None and not settings.uses_graph:
        fail("nodes", "null, as no setting gives rows to a graph", outer["nodes"])
    check_values(outer["values"], 1 + len(formulas))
    provenance = expect_object(outer["provenance"], "provenance")
    expect_plain(provenance, "provenance")
    return DrafterFile(
        drafts=expect_integer(outer["drafts"], "drafts", 0, MAX_DRAFTS),
        settings=settings,
        formulas=formulas,
        validity=validity,
        values=outer["values"],
        provenance=provenance,
    )


def _settings(value: object) -> InformedSettings:
    """The settings; those that are left out have their defaults, as those have that a later release adds."""
    stated = expect_object(value, "settings")
    known = [item.name for item in fields(InformedSettings)]
    unknown = [name for name in stated if name not in known]
    if unknown:  # it may change what is proposed, so it is not passed over
        fail("settings", f"no field but {', '.join(known)}", Words(f"the field {show(unknown[0])}"))
    try:
        return from_json(InformedSettings, stated, "settings")
    except StrictJsonError:
        raise
    except ValueError as error:
        raise StrictJsonError(f"settings: {str(error)[:300]}") from None
