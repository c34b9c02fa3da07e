"""Search, validation and test prompts from trace folders: recordings of one run, and no prompt on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.traces.table import Traces, differing_facts, read_traces
from drafting.anchors import AnchorTable
from drafting.provenance import trace_validity
from studies.statistics.crossval import SplitError
from verify.graph.file import Validity
from verify.policies.specification import step_sizes

_SAME = (
    "model", "model_revision", "dtype", "policy", "temperature", "block_length", "cache", "top_j",
    "generation_length",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Splits:
    """Anchors of disjoint prompts from one run.

    Attributes:
        tables: one per split, whole chains.
        block_length: positions per block.
        step_size: pairs per denoising step, None where it varies.
        policy: the unmasking policy.
        trace_hashes: what each split was recorded as.
        run: the facts of the run, as the first split's manifest states them.
    """

    tables: tuple[AnchorTable, ...]
    block_length: int
    step_size: int | None
    policy: str
    trace_hashes: tuple[str, ...]
    run: Mapping[str, Any]

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
    first = recorded[0].metadata
    for folder, traces in zip(folders, recorded, strict=True):
        for name in differing_facts(first, traces.metadata, _SAME):
            raise SplitError(
                f"{folder} was recorded with {name} {traces.metadata.get(name)!r}, {folders[0]} with "
                f"{first.get(name)!r}; splits must come from one run on different prompts"
            )
    seen: dict[str, Path | str] = {}
    for folder, traces in zip(folders, recorded, strict=True):
        prints = _fingerprints(traces)
        shared = [seen[mark] for mark in prints if mark in seen]
        if shared:
            raise SplitError(
                f"{len(shared)} of the {len(prints)} prompts in {folder} stand in {shared[0]} too, decoded alike; "
                "held-out prompts must be others (bundled prompts have three splits, see `draftgraph record --split`)"
            )
        seen |= dict.fromkeys(prints, folder)
    return _splits(recorded)


def cut_splits(folder: str | Path, shares: Sequence[int], seed: int = 0) -> Splits:
    """Cut the prompts of one trace folder at random into splits of sizes in proportion to ``shares``.

    Raises:
        SplitError: fewer than two prompts for a split.
        calibrate.traces.table.TraceError: a folder that cannot be read.
    """
    traces = read_traces(folder)
    prompt_indices = np.random.default_rng(seed).permutation(np.unique(traces.prompt_index))
    ends = (np.cumsum(shares) * len(prompt_indices) / np.sum(shares)).round().astype(int)
    parts = np.split(prompt_indices, ends[:-1])
    if min(len(part) for part in parts) < 2:
        raise SplitError(
            f"{folder} holds {len(prompt_indices)} prompts, too few for {len(shares)} splits of at least two prompts each; "
            "record more prompts, or give the splits as trace folders of their own"
        )
    return _splits([traces.select(part) for part in parts])


def _splits(recorded: Sequence[Traces]) -> Splits:
    run = recorded[0].metadata
    return Splits(
        tables=tuple(AnchorTable.from_traces(traces, max_depth=None) for traces in recorded),
        block_length=int(run["block_length"]),
        step_size=step_sizes(run["policy"]),
        policy=run["policy"],
        trace_hashes=tuple(traces.trace_hash() for traces in recorded),
        run=run,
    )


def _fingerprints(traces: Traces) -> list[str]:
    """Per prompt, a hash of its whole decode. The recorded ranks of another prompt never agree at every step."""
    found = []
    ends = np.flatnonzero(np.diff(traces.prompt_index, append=-1))
    low = 0
    for high in (ends + 1).tolist():
        masked = slice(traces.masked_ptr[low], traces.masked_ptr[high])
        commits = slice(traces.commit_ptr[low], traces.commit_ptr[high])
        digest = hashlib.sha256()
        for part in (traces.masked_position[masked], traces.top_token[masked], traces.commit_token[commits]):
            digest.update(np.ascontiguousarray(part).tobytes())
        found.append(digest.hexdigest())
        low = high
    return found
