"""Acceptance traces: raw facts of a plain decode, one row per denoising step, columnar in memory and on disk.

A trace keeps what happened, never what was concluded from it: the masked positions with their best tokens, and what
the unmasking policy committed. Ranks at an anchor, chains and acceptances are derived later (``drafting``), so that a
new kind of graph never needs a new recording.

On disk a trace is a folder: ``manifest.json`` (what was run) and Parquet shards. A shard holds whole prompts, is
written under a temporary name and renamed, so it is whole or absent; a rerun skips the prompts found in whole shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from verify.files.writing import write_atomically
from verify.policies.contract import PolicyError
from verify.policies.specification import canonical_policy

TRACE_FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
SHARD_PATTERN = "shard-*.parquet"

#: The highest position or rank that the int16 columns hold; recordings beyond it are refused.
MAX_RANK = 2**15 - 1

_SCALARS = {"prompt_index": np.int32, "block": np.int32, "step": np.int32}
TRACE_SCHEMA = pa.schema(
    [
        ("prompt_index", pa.int32()),
        ("block", pa.int32()),
        ("step", pa.int32()),
        ("event", pa.dictionary(pa.int8(), pa.string())),
        ("masked_position", pa.list_(pa.int16())),
        ("top_token", pa.list_(pa.int32())),
        ("top_probability", pa.list_(pa.float32())),
        ("commit_position", pa.list_(pa.int16())),
        ("commit_token", pa.list_(pa.int32())),
    ]
)


class TraceError(ValueError):
    """A trace that cannot be read, or that is not the one asked for."""


@dataclass(frozen=True, eq=False)
class Traces:
    """Columnar traces of one run; rows ordered by (prompt_index, block, step).

    With ``S`` steps, ``M`` masked positions summed over steps, ``J`` recorded vocabulary ranks and ``C`` commits:

    Attributes:
        prompt_index: int32 [S], index of the prompt in its prompt set.
        block: int32 [S], 0-based block of the prompt.
        step: int32 [S], 1-based denoising step within the block; step 1 used the block's refresh forward.
        masked_ptr: int64 [S + 1], row ``s`` owns masked entries ``masked_ptr[s]:masked_ptr[s + 1]``.
        masked_position: int16 [M], offsets in the block that were masked before the step committed, in position-rank
            order under the distribution that the step used (rank 1 first).
        top_token: int32 [M, J], in vocabulary-rank order under the same distribution.
        top_probability: float32 [M, J], probabilities of ``top_token``.
        commit_ptr: int64 [S + 1], as ``masked_ptr`` for the commits.
        commit_position: int16 [C], offsets in the block that the step committed.
        commit_token: int32 [C], the tokens it committed there.
        metadata: the facts of the run (manifest "run" section).
    """

    prompt_index: np.ndarray
    block: np.ndarray
    step: np.ndarray
    masked_ptr: np.ndarray
    masked_position: np.ndarray
    top_token: np.ndarray
    top_probability: np.ndarray
    commit_ptr: np.ndarray
    commit_position: np.ndarray
    commit_token: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def n_steps(self) -> int:
        return len(self.prompt_index)

    @property
    def top_j(self) -> int:
        return int(self.top_token.shape[1])

    def select(self, prompt_indices: Iterable[int]) -> Traces:
        """The steps of the prompts ``prompt_indices``, in their order on disk. Splits are by prompt, so this is the
        only cut.
        """
        rows = np.isin(self.prompt_index, np.asarray(list(prompt_indices), dtype=np.int64))
        masked_ptr, masked = _select_ragged(self.masked_ptr, rows)
        commit_ptr, commits = _select_ragged(self.commit_ptr, rows)
        return Traces(
            prompt_index=self.prompt_index[rows],
            block=self.block[rows],
            step=self.step[rows],
            masked_ptr=masked_ptr,
            masked_position=self.masked_position[masked],
            top_token=self.top_token[masked],
            top_probability=self.top_probability[masked],
            commit_ptr=commit_ptr,
            commit_position=self.commit_position[commits],
            commit_token=self.commit_token[commits],
            metadata=self.metadata,
        )

    def prompt_hashes(self) -> list[str]:
        """The hash of every prompt that is here, by prompt index; see :func:`hashes_of_prompts`."""
        return hashes_of_prompts(self.metadata, np.unique(self.prompt_index).tolist())

    def trace_hash(self) -> str:
        """SHA-256 over every fact that acceptance depends on (not probabilities, not metadata), as hex."""
        digest = hashlib.sha256()
        for name in ("prompt_index", "block", "step", "masked_ptr", "masked_position", "top_token"):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        for name in ("commit_ptr", "commit_position", "commit_token"):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()

    def committed_blocks(self) -> dict[tuple[int, int], dict[int, int]]:
        """``(prompt_index, block) -> {offset in block: token}``: what the recorded decode wrote."""
        written: dict[tuple[int, int], dict[int, int]] = {}
        for s in range(self.n_steps):
            low, high = self.commit_ptr[s], self.commit_ptr[s + 1]
            target = written.setdefault((int(self.prompt_index[s]), int(self.block[s])), {})
            positions = self.commit_position[low:high].tolist()
            target.update(zip(positions, self.commit_token[low:high].tolist(), strict=True))
        return written


def hashes_of_prompts(metadata: Mapping[str, Any], prompt_indices: Sequence[int]) -> list[str]:
    """The hashes (``calibrate.prompts.encoding.prompt_hash``) of some prompts of a recording, in that order.

    Args:
        metadata: the facts of the run.
        prompt_indices: ascending.

    Raises:
        TraceError: the manifest does not name the prompts.
    """
    hashes = metadata.get("prompt_hashes")
    named = isinstance(hashes, list) and all(isinstance(found, str) for found in hashes)
    if not named or (prompt_indices and len(hashes) <= prompt_indices[-1]):  # type: ignore[arg-type]
        raise TraceError(
            f"the manifest of this trace does not hold one hash for each of its {len(prompt_indices)} prompts "
            "(prompt_hashes), so nobody can say whether another trace is of the same prompts; record again"
        )
    return [hashes[prompt_index] for prompt_index in prompt_indices]  # type: ignore[index]


def _select_ragged(ptr: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.diff(ptr)
    new_ptr = np.concatenate([[0], np.cumsum(lengths[rows])]).astype(np.int64)
    return new_ptr, np.repeat(rows, lengths)


def traces_to_table(traces: Traces, events: Sequence[str] | None = None) -> pa.Table:
    """Convert to the on-disk table.

    ``events`` says what else each step was: "refresh" (the block's first), "block_end" (it completed the block) or
    "early_stop" (it completed the block, which holds an end token); "" for most steps, and "refresh+block_end" or
    "refresh+early_stop" for a block that was complete after one.
    """
    top_j = traces.top_j
    wide_ptr = pa.array(traces.masked_ptr * top_j, type=pa.int32())
    masked_ptr = pa.array(traces.masked_ptr, type=pa.int32())
    commit_ptr = pa.array(traces.commit_ptr, type=pa.int32())
    labels = list(events) if events is not None else [""] * traces.n_steps
    columns = [
        pa.array(traces.prompt_index),
        pa.array(traces.block),
        pa.array(traces.step),
        pa.array(labels, type=pa.string()).dictionary_encode().cast(TRACE_SCHEMA.field("event").type),
        pa.ListArray.from_arrays(masked_ptr, pa.array(traces.masked_position)),
        pa.ListArray.from_arrays(wide_ptr, pa.array(traces.top_token.reshape(-1))),
        pa.ListArray.from_arrays(wide_ptr, pa.array(traces.top_probability.reshape(-1))),
        pa.ListArray.from_arrays(commit_ptr, pa.array(traces.commit_position)),
        pa.ListArray.from_arrays(commit_ptr, pa.array(traces.commit_token)),
    ]
    return pa.Table.from_arrays(columns, schema=TRACE_SCHEMA)


def table_to_traces(table: pa.Table, top_j: int, metadata: dict[str, Any]) -> Traces:
    """Convert an on-disk table, sorted by (prompt_index, block, step) here, back to :class:`Traces`."""
    table = table.sort_by(
        [("prompt_index", "ascending"), ("block", "ascending"), ("step", "ascending")]
    ).combine_chunks()

    def ragged(name: str, dtype: type) -> tuple[np.ndarray, np.ndarray]:
        column = table.column(name)
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
        offsets = array.offsets.to_numpy().astype(np.int64)
        values = array.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]] if len(array) else array.values
        return offsets - offsets[0], np.asarray(values).astype(dtype, copy=False)

    scalars = {name: table.column(name).to_numpy().astype(dtype) for name, dtype in _SCALARS.items()}
    masked_ptr, masked_position = ragged("masked_position", np.int16)
    token_ptr, top_token = ragged("top_token", np.int32)
    probability_ptr, top_probability = ragged("top_probability", np.float32)
    commit_ptr, commit_position = ragged("commit_position", np.int16)
    commit_token_ptr, commit_token = ragged("commit_token", np.int32)
    for name, found, expected in (
        ("top_token", token_ptr, masked_ptr * top_j),
        ("top_probability", probability_ptr, masked_ptr * top_j),
        ("commit_token", commit_token_ptr, commit_ptr),
    ):
        if not np.array_equal(found, expected):
            raise TraceError(
                f"the trace's column {name} has {found[-1]} entries, expected {expected[-1]} (top_j={top_j}); "
                "its shards and its manifest do not belong together, record again"
            )
    return Traces(
        **scalars,
        masked_ptr=masked_ptr,
        masked_position=masked_position,
        top_token=top_token.reshape(-1, top_j),
        top_probability=top_probability.reshape(-1, top_j),
        commit_ptr=commit_ptr,
        commit_position=commit_position,
        commit_token=commit_token,
        metadata=metadata,
    )


def write_shard(path: Path, table: pa.Table, facts: Mapping[str, Any] | None = None) -> None:
    """Write one Parquet shard with page checksums, under a temporary name, then rename it.

    ``facts`` about this shard alone (the batch size it was recorded with) go into its Parquet metadata, as JSON under
    the key ``draftgraph``; reading ignores them.
    """
    table = table.replace_schema_metadata({"draftgraph": json.dumps(facts)} if facts else None)
    with write_atomically(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_shard(path: Path, schema: pa.Schema = TRACE_SCHEMA) -> pa.Table:
    """Read one shard of ``schema``, checking page checksums.

    Raises:
        TraceError: the file is truncated, altered, or not a trace shard. The message says which file to delete; a
            rerun of the recording then makes its prompts again.
    """
    mend = f"delete {path.name} and rerun the same recording: only its prompts are decoded again"
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        names = table.schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names are decoded only when asked for
        raise TraceError(f"trace shard {path} cannot be read ({error}); {mend}") from error
    if names != schema.names:
        raise TraceError(f"trace shard {path} has columns {names}, expected {schema.names}; {mend}")
    for found, expected in zip(table.schema, schema, strict=True):
        if found.type != expected.type:
            raise TraceError(f"trace shard {path}: {found.name} is {found.type}, expected {expected.type}; {mend}")
    return table.replace_schema_metadata(None)


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a trace folder, in the order of their names."""
    return sorted(folder.glob(SHARD_PATTERN))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``manifest.json`` of a trace folder; its policy is made complete where the temperature stood beside it only.

    Raises:
        TraceError: no manifest, not JSON, or a format version that this code does not read; or a policy with another
            temperature than the one beside it.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TraceError(
            f"{folder} holds no {MANIFEST_NAME}, so it is not a trace folder; record one with `draftgraph record`"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TraceError(f"{path} is not valid JSON ({error}); restore it or record again") from error
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version != TRACE_FORMAT_VERSION:
        raise TraceError(f"{path} has trace format version {version!r}, this draftgraph reads {TRACE_FORMAT_VERSION}")
    run = manifest.get("run")
    if not isinstance(run, dict) or type(run.get("top_j")) is not int or run["top_j"] < 1:
        raise TraceError(f'{path} lacks the facts of the run ("run" with "top_j"); restore it or record again')
    policy, temperature = run.get("policy"), run.get("temperature")
    if isinstance(policy, str) and isinstance(temperature, int | float):
        try:
            run["policy"] = canonical_policy(policy, temperature)
        except PolicyError as error:
            raise TraceError(f"{path}: {error}; restore it or record again") from error
    return manifest


def differing_facts(one: Mapping[str, Any], other: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those of ``names`` in which two runs differ.

    Where both state the model's revision, that says whether the model is the same; its name need not, for one folder
    has many names.
    """
    revised = one.get("model_revision") is not None and other.get("model_revision") is not None
    return [name for name in names if one.get(name) != other.get(name) and not (name == "model" and revised)]


def read_traces(folder: str | Path, *, partial: bool = False) -> Traces:
    """Read a whole trace folder into memory.

    Args:
        folder: written by ``calibrate.recording.recorder.record``.
        partial: take a recording that was stopped, with the prompts that are there.

    Raises:
        TraceError: no manifest, a broken shard, no shard at all, a prompt that stands in two shards, or (unless
            ``partial``) fewer prompts than the manifest names.
    """
    folder = Path(folder)
    if read_manifest(folder)["run"].get("drafter") is not None:
        raise TraceError(
            f"{folder} holds a log of evaluated states (of a decode with drafts), expected a trace of plain decoding; "
            "record one with `draftgraph record`"
        )
    metadata, table = read_whole(folder, TRACE_SCHEMA, partial=partial)
    return table_to_traces(table, int(metadata["top_j"]), metadata)


def read_whole(folder: Path, schema: pa.Schema, *, partial: bool = False) -> tuple[dict[str, Any], pa.Table]:
    """The facts of a recording and all its shards of ``schema`` as one table; errors as in :func:`read_traces`."""
    metadata = read_manifest(folder)["run"]
    tables = [read_shard(path, schema) for path in shard_paths(folder)]
    if not tables:
        raise TraceError(f"{folder} holds no trace shard; the recording was stopped before its first prompt. Rerun it")
    owners = np.concatenate([np.unique(table.column("prompt_index").to_numpy()) for table in tables])
    if len(owners) != len(np.unique(owners)):
        raise TraceError(f"{folder} holds a prompt in two shards; delete the folder and record again")
    prompts = metadata.get("prompts")
    if not partial and prompts is not None and len(owners) != prompts:
        raise TraceError(
            f"{folder} holds {len(owners)} of {prompts} prompts: the recording was stopped, or a shard was removed; "
            "run the same recording again, it goes on"
        )
    return metadata, pa.concat_tables(tables)
