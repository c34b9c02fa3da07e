"""Which drafter a command is asked for, by ``--drafter``, ``--graph`` and ``--drafts``, and whether a run fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.cli.graphs import read_graph

if TYPE_CHECKING:
    from calibrate.measuring.memory import Load
    from calibrate.models.checkpoint import Checkpoint
    from calibrate.models.settings import DecodeSettings
    from verify.decoding import DecodeConfig
    from verify.drafters.contract import Drafter
    from verify.graph.file import GraphFile
    from verify.graph.validity import Validity
    from verify.policies.contract import Policy

GRAPH, INFORMED = "graph", "informed"
#: What is decoded with where neither an option nor a drafter says otherwise.
DEFAULT_POLICY, DEFAULT_DRAFTS, DEFAULT_TOP_J = "threshold:0.9", 10, 8


@dataclass(frozen=True, eq=False)
class AskedDrafter:
    """The drafter that a command was asked for.

    Attributes:
        name: for tables and for names of folders.
        drafter: what proposes the drafts.
        path: its file, None where options alone describe it.
        validity: for whom it was made, None where it may be run with anything.
        provenance: where it comes from, as far as its file says so.
        values: what it is worth, per split, as far as its file says so.
        graph: the graph file, where it is a graph; its forwards are predicted by traces of plain decoding.
    """

    name: str
    drafter: Drafter
    path: Path | None = None
    validity: Validity | None = None
    provenance: Mapping[str, Any] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    graph: GraphFile | None = None

    @property
    def option(self) -> str:
        """The options that ask for it."""
        if self.path is None:
            return f"--drafter {INFORMED} --drafts {self.drafter.max_drafts}"
        return f"--{GRAPH} {self.path}" if self.graph is not None else f"--drafter {self.path}"

    @property
    def said(self) -> str:
        """What stands for it in a message: its file, or the options."""
        return self.option if self.path is None else str(self.path)

    def description(self) -> dict[str, Any]:
        """What it is, for files; formulas are left out, as they stand in its own file."""
        stated = {name: value for name, value in self.drafter.describe().items() if name != "formulas"}
        return {**stated, "file": None if self.path is None else str(self.path)}

    def mismatches(self, run: Validity) -> list[str]:
        """What stands between the drafter and a ``run``, one line each; empty when it fits."""
        what = "the graph was calibrated" if self.graph is not None else "the drafter was tuned"
        return [] if self.validity is None else self.validity.mismatches(run, what)

    def check(self, run: Validity, policy: str | None = None) -> None:
        """Refuse a ``run`` that the drafter was not made for.

        Args:
            run: model, policy and so on.
            policy: what ``--policy`` asks for; where it is what does not fit, the message says to leave it out.

        Raises:
            verify.verifier.ValidityMismatchError: something differs; the message names all that does.
        """
        from verify.verifier import ValidityMismatchError

        if wrong := self.mismatches(run):
            unasked = policy is not None and any(line.startswith("policy:") for line in wrong)
            raise ValidityMismatchError(
                f"{self.said} is not valid for this run: {'; '.join(wrong)}"
                + ("; leave --policy out" if unasked else "")
            )

    def check_recording(self, run: Validity, folder: Path) -> None:
        """Refuse a recording in ``folder``, of the decodes ``run``, that the drafter was not made for.

        Raises:
            ValueError: something differs; the message names all that does.
        """
        if wrong := self.mismatches(run):
            raise ValueError(f"{self.said} does not fit the recording in {folder}: " + "; ".join(wrong))


def read_drafter(drafter: str | None, graph: Path | None, drafts: int | None) -> AskedDrafter | None:
    """The drafter that the options of a command ask for; None for plain decoding.

    Args:
        drafter: ``--drafter``: ``graph``, ``informed``, or a file.
        graph: ``--graph``.
        drafts: ``--drafts``.

    Raises:
        ValueError: options that do not go together, an unknown name, or a file that is refused.
    """
    from verify.files.quoting import quoted

    if drafter == INFORMED:
        if graph is not None:
            raise ValueError(
                "--drafter informed needs no graph; leave --graph out, give --drafter graph, or a drafter file that "
                "holds both"
            )
        return informed_drafter(DEFAULT_DRAFTS if drafts is None else drafts)
    if drafts is not None:
        raise ValueError("--drafts belongs to --drafter informed; a file holds its own number of drafts")
    if drafter in (None, GRAPH):
        if graph is None and drafter == GRAPH:
            raise ValueError("--drafter graph needs the graph; give --graph FILE")
        return None if graph is None else drafter_of_graph(graph)
    if graph is not None:
        raise ValueError(f"--drafter {quoted(drafter)} names the drafter already; leave --graph out")
    path = Path(drafter)
    if path.suffix != ".json" and not path.exists():
        raise ValueError(f"unknown drafter {quoted(drafter)}, expected graph, informed, or a file (FILE.json)")
    return read_file(path)


def informed_drafter(drafts: int) -> AskedDrafter:
    """The informed drafter with its default settings."""
    from verify.drafters.informed import InformedDrafter

    return AskedDrafter(f"{INFORMED}-{drafts}", InformedDrafter(drafts))


def drafter_of_graph(path: Path) -> AskedDrafter:
    """The drafter of a graph file; errors as of :func:`studies.cli.graphs.read_graph`."""
    from verify.drafters.graph import GraphDrafter

    file = read_graph(path)
    return AskedDrafter(
        path.stem, GraphDrafter(file.nodes[1:]), path, file.validity, file.provenance, file.values, file
    )


def read_file(path: Path) -> AskedDrafter:
    """The drafter in a file, be it a graph or a drafter file.

    Raises:
        GraphFileError, DrafterFileError: it is neither.
    """
    from verify.drafters.file import DRAFTER_FORMAT, load_drafter
    from verify.graph.file import GraphFileError

    try:
        return drafter_of_graph(path)
    except GraphFileError as error:
        if f'found "{DRAFTER_FORMAT}"' not in str(error):
            raise
    file = load_drafter(path)
    return AskedDrafter(path.stem, file.make(), path, file.validity, file.provenance, file.values)


def rule_for(
    asked: AskedDrafter | None,
    policy: str | None,
    temperature: float | None,
    top_p: float | None = None,
    top_k: int | None = None,
) -> tuple[str, Policy]:
    """The policy as written and as it is: as asked for, else the drafter's.

    Raises:
        verify.policies.contract.PolicyError: it cannot be read.
    """
    from verify.policies.sampling import with_filters
    from verify.policies.specification import make_policy, without_sampling

    valid = asked.validity if asked is not None else None
    spec = policy or (valid.policy if valid else DEFAULT_POLICY)
    if temperature is None and valid is not None and without_sampling(spec) == spec:
        temperature = valid.temperature
    spec = with_filters(spec, top_p, top_k)
    return spec, make_policy(spec, temperature)


def settings_for(
    asked: AskedDrafter | None,
    checkpoint: Checkpoint,
    spec: str,
    *,
    block_length: int | None,
    cache: str | None,
    top_j: int | None = None,
    schedule: str | None = None,
    **options: Any,
) -> DecodeSettings:
    """How a checkpoint is decoded with the drafter: what is not asked for is the drafter's.

    Args:
        asked: the drafter, None for plain decoding.
        checkpoint: the model.
        spec: the policy, as written.
        block_length, cache, schedule: as asked for.
        top_j: vocabulary ranks to keep; by default those that the drafter was made with, or 8.
        options: as in :func:`calibrate.models.settings.decode_settings`, which tells the errors too.
    """
    from calibrate.models.settings import decode_settings

    valid = asked.validity if asked is not None else None
    read = asked.drafter.max_vocabulary_rank if asked is not None else 1
    return decode_settings(
        checkpoint,
        spec,
        block_length=block_length or (valid.block_length if valid else None),
        cache=cache or (valid.cache if valid else None),
        schedule=schedule if schedule is not None else (valid.schedule if valid else None),
        top_j=top_j if top_j is not None else max(valid.top_j if valid else DEFAULT_TOP_J, read),
        **options,
    )


def load_of(drafter: Drafter | None, config: DecodeConfig, prompts: Sequence[Sequence[int]], batch_size: int) -> Load:
    """What decoding ``prompts`` (token ids) with a drafter asks of the memory; None for plain decoding."""
    from calibrate.measuring.memory import Load
    from verify.drafters.contract import most_bridges

    drafts, bridges = 0, 0
    if drafter is not None:
        drafts, bridges = drafter.max_drafts, most_bridges(drafter, config.cache, schedule=config.schedule)
    return Load.of_decode(config, [len(prompt) for prompt in prompts], batch_size, drafts, bridges=bridges > 0)
