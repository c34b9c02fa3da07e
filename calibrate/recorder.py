"""Recording acceptance traces: the decode loop, observed, one Parquet shard after a few prompts.

A recording is named by its folder and by the facts in its manifest. Started again with the same facts it goes on
after the last whole shard; started with others it refuses, so that no trace mixes two decode rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from calibrate.checkpoints import Checkpoint, check_attention
from calibrate.files import write_json
from calibrate.prompts import prompt_set_hash
from calibrate.traces import (
    MANIFEST_NAME,
    MAX_RANK,
    TRACE_FORMAT_VERSION,
    TraceError,
    Traces,
    differing_facts,
    read_manifest,
    read_shard,
    read_traces,
    shard_paths,
    traces_to_table,
    write_shard,
)
from calibrate.version import tool_version
from verify.decode import DecodeConfig, StepFact, decode
from verify.policies import Policy

#: Facts that may differ between a recording and its continuation, as acceptance does not depend on them.
_FREE_FACTS = {"tool_version", "model_source"}


class TraceBuilder:
    """An observer that turns denoising steps into trace columns."""

    def __init__(self) -> None:
        self._facts: list[StepFact] = []

    def __len__(self) -> int:
        return len(self._facts)

    def on_step(self, fact: StepFact) -> None:
        # The loop hands over arrays that it does not change afterwards, so references are enough.
        self._facts.append(fact)

    def drop_sample(self, sample: int) -> None:
        """Forget the steps of a prompt that was not finished."""
        self._facts = [fact for fact in self._facts if fact.sample != sample]

    def build(self, metadata: dict[str, Any] | None = None) -> Traces:
        """All steps so far as :class:`Traces`; at least one step is needed."""
        facts = self._facts
        masked = [fact.masked_position for fact in facts]
        commits = [fact.commit_position for fact in facts]
        return Traces(
            sample=np.array([fact.sample for fact in facts], dtype=np.int32),
            block=np.array([fact.block for fact in facts], dtype=np.int32),
            step=np.array([fact.step for fact in facts], dtype=np.int32),
            masked_ptr=np.cumsum([0, *map(len, masked)], dtype=np.int64),
            masked_position=np.concatenate(masked).astype(np.int16),
            top_token=np.concatenate([fact.top_token for fact in facts]).astype(np.int32),
            top_probability=np.concatenate([fact.top_probability for fact in facts]).astype(np.float32),
            commit_ptr=np.cumsum([0, *map(len, commits)], dtype=np.int64),
            commit_position=np.concatenate(commits).astype(np.int16),
            commit_token=np.concatenate([fact.commit_token for fact in facts]).astype(np.int32),
            metadata=metadata or {},
        )

    def table(self) -> pa.Table:
        return traces_to_table(self.build(), [fact.event for fact in self._facts])


def run_facts(
    checkpoint: Checkpoint, policy: Policy, config: DecodeConfig, prompts: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The facts that a trace is valid for; written to the manifest and compared on a rerun.

    Raises:
        CheckpointError: a context mode that the checkpoint was not trained for.
        TraceError: a block length or a number of vocabulary ranks that a trace cannot hold.
    """
    check_attention(checkpoint, config.context)
    denoiser = checkpoint.denoiser
    top_j = min(config.top_j, denoiser.vocabulary_size - 1)
    for option, value in (("block length", config.block_length), ("top_j", top_j)):
        if value > MAX_RANK:
            raise TraceError(f"{option} is {value}; traces keep ranks in 16 bits, so give at most {MAX_RANK}")
    return {
        "model": checkpoint.name,
        "model_source": checkpoint.source or checkpoint.name,
        "model_revision": checkpoint.revision,
        "dtype": checkpoint.dtype,
        "device": denoiser.device.type,
        "mask_token_id": denoiser.mask_token_id,
        "end_token_ids": list(config.end_token_ids),
        "policy": policy.spec,
        "temperature": policy.temperature,
        "block_length": config.block_length,
        "generation_length": config.generation_length,
        "context": config.context,
        "top_j": top_j,
        "seed": config.seed,
        "prompts": len(prompts),
        "prompt_set_hash": prompt_set_hash(prompts),
        "tool_version": tool_version(),
    }


def record(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    config: DecodeConfig,
    folder: str | Path,
    *,
    shard_prompts: int = 4,
    on_prompt: Callable[[int, int], None] | None = None,
) -> Traces:
    """Record plain decodes of ``prompts`` into ``folder``; go on where an earlier recording stopped.

    Ctrl-C (or any error) writes the prompts that are finished before it is passed on.

    Args:
        checkpoint: the model.
        prompts: token ids per prompt; the index of a prompt is its ``sample``.
        policy: the unmasking policy.
        config: lengths and context mode; its back-end plays no part, as nothing is drafted.
        folder: the trace folder; made when missing.
        shard_prompts: prompts per shard, so what a kill can lose.
        on_prompt: called with (prompts done, prompts in all) at the start and after every prompt.

    Returns:
        The whole trace, read back from disk.

    Raises:
        TraceError: the folder holds a trace of other facts, a broken shard, or files that are no trace.
    """
    folder = Path(folder)
    facts = run_facts(checkpoint, policy, config, prompts)
    _claim_folder(folder, facts)
    done = set(_recorded_samples(folder))
    todo = [sample for sample in range(len(prompts)) if sample not in done]
    report = on_prompt or (lambda *_: None)
    report(len(done), len(prompts))
    builder, pending = TraceBuilder(), [sample for sample in todo]
    finished: list[int] = []
    current = -1
    try:
        for current in todo:
            decode(checkpoint.denoiser, prompts[current], policy, config, sample=current, observer=builder)
            finished.append(current)
            pending.pop(0)
            if len(finished) == shard_prompts or not pending:
                builder = _flush(folder, builder, finished)
            report(len(prompts) - len(pending), len(prompts))
    except BaseException:
        if current not in finished:
            builder.drop_sample(current)
        _flush(folder, builder, finished)
        raise
    return read_traces(folder)


def _flush(folder: Path, builder: TraceBuilder, finished: list[int]) -> TraceBuilder:
    if finished:
        write_shard(folder / f"shard-{finished[0]:06d}.parquet", builder.table())
        finished.clear()
    return TraceBuilder()


def _claim_folder(folder: Path, facts: dict[str, Any]) -> None:
    if folder.exists() and not folder.is_dir():
        raise TraceError(f"{folder} is a file, expected a folder for the trace; give another name")
    if not (folder / MANIFEST_NAME).exists():
        if folder.is_dir() and any(path.suffix != ".tmp" for path in folder.iterdir()):
            raise TraceError(f"{folder} exists and is not a trace folder; give another one or empty it")
        write_json(folder / MANIFEST_NAME, {"version": TRACE_FORMAT_VERSION, "run": facts})
        return
    found = read_manifest(folder)["run"]
    different = differing_facts(found, facts, [key for key in facts if key not in _FREE_FACTS])
    if different:
        listed = "; ".join(f"{key}: there {found.get(key)!r}, now {facts[key]!r}" for key in different)
        raise TraceError(f"{folder} holds a trace of another run ({listed}); give another folder or delete this one")


def _recorded_samples(folder: Path) -> Iterator[int]:
    for path in shard_paths(folder):
        yield from np.unique(read_shard(path).column("sample").to_numpy()).tolist()
