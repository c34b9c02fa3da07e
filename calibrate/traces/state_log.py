"""State logs: every state that the forwards of a decode with drafts evaluated, accepted or not.

A trace of plain decoding holds the states that a decode went through. What a drafter that learns proposes depends also
on what its rejected drafts showed; with a log of them the same decode loop runs again without a model
(``drafting.state_replay``). A log is recorded with one drafter; logs of several drafters of the same decodes are read
as one, and know more states together.

On disk a log is a folder like that of a trace: ``manifest.json`` and Parquet shards of whole prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calibrate.traces.table import TraceError, differing_facts, hashes_of_prompts, read_manifest, read_whole
from verify.blocks import RecordedBlocks
from verify.layout import SequenceLayout

#: One row per evaluated state, and one per block that tells how it ended, with nothing masked and no ranks. ``behind``
#: is empty, or the tokens of the block before where a bridge took it to end otherwise than it did. Ranks are those of
#: the masked positions, offsets ascending, ``top_j`` each. Under a schedule a state is as long as its block.
STATE_SCHEMA = pa.schema(
    [
        ("prompt_index", pa.int32()),
        ("block", pa.int32()),
        ("behind", pa.list_(pa.int32())),
        ("state", pa.list_(pa.int32())),
        ("top_token", pa.list_(pa.int32())),
        ("top_probability", pa.list_(pa.float64())),
    ]
)

#: The same of a decode whose policy reads entropies: float64 of the masked positions, offsets ascending.
ENTROPY_SCHEMA = STATE_SCHEMA.append(pa.field("entropy", pa.list_(pa.float64())))

#: Facts in which logs that are read as one may differ.
_OWN_FACTS = frozenset(
    {"drafter", "tool_version", "model_source", "device_name", "prompt_source", "chat", "offers_copies"}
)


@dataclass(frozen=True, eq=False)
class BlockStates:
    """The evaluated states of one block of one prompt; ``n`` states.

    Attributes:
        index: what a state stands behind (empty for the real course) and the state itself, as bytes -> its number.
        token: int32 [n, L, J], as in :class:`verify.ranked.RankedBlocks`; ``L`` is the length of this block.
        probability: float64 [n, L, J], NaN at committed positions.
        entropy: float64 [n, L], NaN at committed positions; None in a log without entropies.
    """

    index: dict[tuple[bytes, bytes], int]
    token: np.ndarray
    probability: np.ndarray
    entropy: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class StateLog:
    """The evaluated states of recorded decodes.

    Attributes:
        blocks: by (prompt_index, block).
        first: int64 [L] per prompt, its first block as the decode found it: masked, but for a tail of the prompt.
        ends: int64 [L] by (prompt_index, block), the block as it ended.
        metadata: the facts of the run.
    """

    blocks: dict[tuple[int, int], BlockStates]
    first: dict[int, np.ndarray]
    ends: dict[tuple[int, int], np.ndarray]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt_indices(self) -> list[int]:
        """Ascending."""
        return sorted(self.first)

    @property
    def offers_copies(self) -> bool:
        """Whether the model offers copies; a log of a version that did not say so is taken to be of one that does."""
        return bool(self.metadata.get("offers_copies", True))

    @property
    def states(self) -> int:
        """Evaluated states, all prompts."""
        return sum(len(block.index) for block in self.blocks.values())

    def prompt_hashes(self) -> list[str]:
        """The hash of every prompt that is here; see :func:`calibrate.traces.table.hashes_of_prompts`."""
        return hashes_of_prompts(self.metadata, self.prompt_indices)

    def log_hash(self) -> str:
        """SHA-256 over every state with its best tokens (not their probabilities), as hex."""
        digest = hashlib.sha256()
        for key in sorted(self.blocks):
            block = self.blocks[key]
            digest.update(repr(key).encode())
            for state, number in sorted(block.index.items()):
                digest.update(state[0] + state[1] + np.ascontiguousarray(block.token[number]).tobytes())
        return digest.hexdigest()

    def layout(self, prompt_index: int) -> SequenceLayout:
        """Where the blocks of a prompt lie; under a schedule each is as long as it was, nothing is decided again."""
        facts = self.metadata
        recorded = None
        if facts.get("schedule") is not None:
            ends = sorted((block, end) for (owner, block), end in self.ends.items() if owner == prompt_index)
            recorded = RecordedBlocks(tuple(len(end) for _, end in ends), facts["generation_length"])
        lengths = self.prompt_length(prompt_index), facts["generation_length"], facts["block_length"]
        return SequenceLayout.make(*lengths, facts["cache"], recorded)

    def prompt_length(self, prompt_index: int) -> int:
        """Tokens of a prompt."""
        return int(self.metadata["prompt_lengths"][prompt_index])

    def find(
        self, prompt_index: int, block: int, states: np.ndarray, bridges: np.ndarray
    ) -> list[tuple[BlockStates, int] | None]:
        """Where the states that a forward evaluates stand in the log, None for each that it does not know.

        Args:
            prompt_index: whose.
            block: the number of the block that is being solved.
            states: int64 [n, L], of that block.
            bridges: int64 [K, 2, L], the block as it may end and a state of the next one; they follow ``states``.
        """
        here, ahead = self.blocks.get((prompt_index, block)), self.blocks.get((prompt_index, block + 1))
        end = self.ends[prompt_index, block].tobytes()
        keys = [(here, b"", state) for state in states]
        keys += [(ahead, b"" if one.tobytes() == end else one.tobytes(), state) for one, state in bridges]
        found = []
        for part, behind, state in keys:
            number = None if part is None else part.index.get((behind, state.tobytes()))
            found.append(None if part is None or number is None else (part, number))
        return found

    def select(self, prompt_indices: Iterable[int]) -> StateLog:
        """The log of some prompts."""
        chosen = set(prompt_indices)
        return StateLog(
            {key: block for key, block in self.blocks.items() if key[0] in chosen},
            {prompt_index: first for prompt_index, first in self.first.items() if prompt_index in chosen},
            {key: end for key, end in self.ends.items() if key[0] in chosen},
            self.metadata,
        )


def log_schema(facts: Mapping[str, Any]) -> pa.Schema:
    """The columns of the shards of a log, by the facts of its run: those of a policy that reads entropies say so."""
    return ENTROPY_SCHEMA if facts.get("entropies") else STATE_SCHEMA


def is_state_log(folder: str | Path) -> bool:
    """Whether the folder of a recording holds a state log; a trace of plain decoding is none.

    Raises:
        TraceError: it has no manifest that can be read.
    """
    return read_manifest(Path(folder))["run"].get("drafter") is not None


def read_states(folders: str | Path | Sequence[str | Path], *, partial: bool = False) -> StateLog:
    """Read the log in a folder, or in several folders of the same decodes as one.

    Args:
        folders: written by ``calibrate.recording.states.record_states``, with one drafter each.
        partial: take recordings that were stopped, with the prompts that are in all of them.

    Raises:
        TraceError: as ``read_traces``; or logs of other decodes.
    """
    paths = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    for path in paths:
        if not is_state_log(path):
            raise TraceError(
                f"{path} holds a trace of plain decoding, expected a log of evaluated states; record one with "
                "`draftgraph record --drafter informed`"
            )
    schemas = [log_schema(read_manifest(path)["run"]) for path in paths]
    read = [read_whole(path, schema, partial=partial) for path, schema in zip(paths, schemas, strict=True)]
    facts = read[0][0]
    for path, (other, _) in zip(paths[1:], read[1:], strict=True):
        different = differing_facts(facts, other, [key for key in facts if key not in _OWN_FACTS])
        if different:
            raise TraceError(
                f"{paths[0]} and {path} are logs of different decodes ({', '.join(different)} differ); give folders "
                "that were recorded with the same model, prompts and policy"
            )
    metadata = {**facts, "drafter": [found["drafter"] for found, _ in read]}
    log = states_of_table(pa.concat_tables([table for _, table in read]), metadata)
    common = set.intersection(*(set(table.column("prompt_index").to_pylist()) for _, table in read))
    return log.select(common) if partial else log


def states_of_table(table: pa.Table, metadata: dict[str, Any]) -> StateLog:
    """The log of an on-disk table; of a state that was evaluated twice the first is taken."""
    length, top_j, mask = metadata["block_length"], metadata["top_j"], metadata["mask_token_id"]
    table = table.combine_chunks()
    prompt, block = table.column("prompt_index").to_numpy(), table.column("block").to_numpy()
    rows = len(prompt)
    values = _values(table, "state").astype(np.int64)
    own = pc.list_value_length(table.column("state")).to_numpy().astype(np.int64)
    wrong = own > length if metadata.get("schedule") is not None else own != length
    if wrong.any():
        raise TraceError(
            f"a log of {rows} states in blocks of {length} holds {len(values)} tokens, expected {rows * length}; its "
            "shards and its manifest do not belong together, record again"
        )
    states = np.full((rows, length), -1, dtype=np.int64)  # behind a shorter block stands no token, masked or not
    states[np.arange(length) < own[:, None]] = values
    token = np.zeros((rows, length, top_j), dtype=np.int32)
    probability = np.full((rows, length, top_j), np.nan)
    masked = states == mask
    entropy = np.full((rows, length), np.nan) if "entropy" in table.schema.names else None
    columns = {"top_token": token, "top_probability": probability}
    if entropy is not None:
        columns["entropy"] = entropy
    for name, target in columns.items():
        values, expected = _values(table, name), np.count_nonzero(masked) * int(np.prod(target.shape[2:]))
        if len(values) != expected:
            raise TraceError(
                f"the log's column {name} has {len(values)} entries, expected {expected} (top_j={top_j}); its shards "
                "and its manifest do not belong together, record again"
            )
        target[masked] = values.reshape(-1, *target.shape[2:])
    behind = [np.array(one, dtype=np.int64).tobytes() for one in table.column("behind").to_pylist()]
    found: dict[tuple[int, int], dict[tuple[bytes, bytes], int]] = {}
    kept: dict[tuple[int, int], list[int]] = {}
    first: dict[int, np.ndarray] = {}
    ends: dict[tuple[int, int], np.ndarray] = {}
    complete = ~masked.any(axis=1)
    for row, (prompt_index, number) in enumerate(zip(prompt.tolist(), block.tolist(), strict=True)):
        if complete[row]:
            end = states[row, : own[row]]
            if not np.array_equal(ends.setdefault((prompt_index, number), end), end):
                raise TraceError(
                    f"the logs end block {number} of prompt {prompt_index} differently: they are near-lossless decodes "
                    "that parted, or were made by different versions; read each of them alone"
                )
            continue
        index = found.setdefault((prompt_index, number), {})
        key = behind[row], states[row, : own[row]].tobytes()
        if key not in index:
            index[key] = len(index)
            kept.setdefault((prompt_index, number), []).append(row)
        if number == 0 and prompt_index not in first:  # the refresh forward of the first block comes first
            first[prompt_index] = states[row, : own[row]]
    blocks = {}
    for place, index in found.items():
        part = np.s_[kept[place], : own[kept[place][0]]]
        blocks[place] = BlockStates(index, token[part], probability[part], None if entropy is None else entropy[part])
    return StateLog(blocks, first, ends, metadata)


def _values(table: pa.Table, name: str) -> np.ndarray:
    column = table.column(name)
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False))
