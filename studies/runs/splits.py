"""Search, validation and test prompts from trace folders: recordings of one run, and no prompt on two sides.

Every command that takes two recordings reads them here, and every graph file is asked here whether the prompts that it
is valued on chose it. Prompts are told apart by the hashes of their token ids, which every manifest holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.traces.table import TraceError, Traces, differing_facts, read_traces
from drafting.anchors import AnchorTable
from drafting.provenance import SEARCHED_PROMPTS, trace_validity
from studies.statistics.crossval import SplitError
from verify.graph.file import Validity
from verify.policies.specification import step_sizes

_SAME = (
    "model", "model_revision", "dtype", "policy", "temperature", "block_length", "schedule", "cache", "top_j",
    "generation_length", "chat", "mask_token_id", "end_token_ids",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Splits:
    """Anchors of disjoint prompts from one run.

    Attributes:
        recordings: the traces of each split.
        tables: their anchors, whole chains.
        block_length: positions per block.
        step_size: pairs per denoising step, None where it varies.
        policy: the unmasking policy.
        trace_hashes: what each split was recorded as.
        run: the facts of the run, as the first split's manifest states them.
        repeated: prompts that were left out because the same token ids came before them in the recording.
    """

    recordings: tuple[Traces, ...]
    tables: tuple[AnchorTable, ...]
    block_length: int
    step_size: int | None
    policy: str
    trace_hashes: tuple[str, ...]
    run: Mapping[str, Any]
    repeated: int = 0

    @property
    def validity(self) -> Validity:
        """For whom a graph from these prompts is valid."""
        return trace_validity(self.run)


def read_splits(folders: Sequence[str | Path]) -> Splits:
    """Read one split per trace folder.

    Raises:
        SplitError: recordings of different runs, or a prompt that stands in two of them.
        calibrate.traces.table.TraceError: a folder that cannot be read.
    """
    recorded = [read_traces(folder) for folder in folders]
    check_same_run([(str(folder), traces.metadata) for folder, traces in zip(folders, recorded, strict=True)])
    if len(recorded) > 1:
        check_disjoint(
            [(str(folder), _hashes(str(folder), traces)) for folder, traces in zip(folders, recorded, strict=True)]
        )
    return _splits(recorded)


def check_same_run(splits: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse splits that were recorded with other models, rules or lengths.

    Args:
        splits: (name, facts of the recording) of each split.

    Raises:
        SplitError: a fact that differs from that of the first split.
    """
    named, first = splits[0]
    for name, facts in splits[1:]:
        for fact in differing_facts(first, facts, _SAME):
            raise SplitError(
                f"{name} was recorded with {fact} {facts.get(fact)!r}, {named} with {first.get(fact)!r}; splits must "
                "come from one run on different prompts"
            )


def check_disjoint(splits: Iterable[tuple[str, Sequence[str]]]) -> None:
    """The one leak check: no prompt may stand in two splits.

    Args:
        splits: (name, one key per prompt) of each split; equal keys are equal prompts.

    Raises:
        SplitError: a prompt that stands in two splits.
    """
    seen: dict[str, str] = {}
    for name, prompts in splits:
        shared = [seen[prompt] for prompt in prompts if prompt in seen]
        if shared:
            raise SplitError(
                f"{len(shared)} of the {len(prompts)} prompts in {name} stand in {shared[0]} too; a value on prompts "
                "that the search has seen is no held-out value. Give other prompts (bundled prompts have three splits, "
                "files can be cut with --split-fraction)"
            )
        seen |= dict.fromkeys(prompts, name)


def _hashes(folder: str, traces: Traces) -> list[str]:
    try:
        return traces.prompt_hashes()
    except TraceError as error:
        raise TraceError(f"{folder}: {error}") from error


def cut_splits(folder: str | Path, shares: Sequence[int], seed: int = 0) -> Splits:
    """Cut the prompts of one trace folder at random into splits of sizes in proportion to ``shares``.

    A prompt that was recorded twice counts once, so that no cut puts it on two sides.

    Raises:
        SplitError: fewer than two prompts for a split.
        calibrate.traces.table.TraceError: a folder that cannot be read.
    """
    whole = read_traces(folder)
    traces = distinct_prompts(whole)
    prompt_indices = np.random.default_rng(seed).permutation(np.unique(traces.prompt_index))
    ends = (np.cumsum(shares) * len(prompt_indices) / np.sum(shares)).round().astype(int)
    parts = np.split(prompt_indices, ends[:-1])
    if min(len(part) for part in parts) < 2:
        raise SplitError(
            f"{folder} holds {len(prompt_indices)} prompts, too few for {len(shares)} splits of at least two prompts "
            "each; record more prompts, or give the splits as trace folders of their own"
        )
    repeated = len(np.unique(whole.prompt_index)) - len(prompt_indices)
    return _splits([traces.select(part) for part in parts], repeated)


def distinct_prompts(traces: Traces) -> Traces:
    """``traces`` with every prompt once: of those with the same token ids the first is kept.

    Raises:
        calibrate.traces.table.TraceError: the manifest does not name the prompts.
    """
    first: dict[str, int] = {}
    for prompt_index, found in zip(np.unique(traces.prompt_index).tolist(), traces.prompt_hashes(), strict=True):
        first.setdefault(found, prompt_index)
    return traces if len(first) == len(np.unique(traces.prompt_index)) else traces.select(first.values())


def searched_note(name: str, provenance: Mapping[str, Any], traces: Traces) -> str | None:
    """One sentence for a graph that is valued on prompts that chose it, or that does not say which prompts did.

    Args:
        name: of the graph, for the sentence.
        provenance: of its file.
        traces: what it is valued on.

    Returns:
        None where none of the prompts had a part in choosing the graph.

    Raises:
        calibrate.traces.table.TraceError: the manifest does not name the prompts.
    """
    here, searched = traces.prompt_hashes(), provenance.get(SEARCHED_PROMPTS)
    if not isinstance(searched, list):
        return f"Note: {name} does not name the prompts that it was found on; these prompts may be among them."
    shared = len(set(here) & {found for found in searched if isinstance(found, str)})
    if not shared:
        return None
    some = f"{shared} of these {len(set(here))} prompts" if shared < len(set(here)) else "these very prompts"
    return f"Note: {name} was found on {some} and looks too good here; give traces of prompts that no search saw."


def _splits(recorded: Sequence[Traces], repeated: int = 0) -> Splits:
    run = recorded[0].metadata
    return Splits(
        recordings=tuple(recorded),
        tables=tuple(AnchorTable.from_traces(traces, max_depth=None) for traces in recorded),
        block_length=int(run["block_length"]),
        step_size=step_sizes(run["policy"]),
        policy=run["policy"],
        trace_hashes=tuple(traces.trace_hash() for traces in recorded),
        run=run,
        repeated=repeated,
    )
