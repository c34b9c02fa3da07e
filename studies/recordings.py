"""Recording a split for a study, from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibrate.checkpoints import Checkpoint
from calibrate.recorder import record
from calibrate.traces import Traces
from studies.configuration import CalibrationConfig
from studies.progress import Reporter
from verify.decode import DecodeConfig
from verify.policies import make_policy


def decode_config(config: CalibrationConfig, checkpoint: Checkpoint) -> DecodeConfig:
    """The decode configuration of a study's configuration under a checkpoint."""
    return DecodeConfig(
        block_length=config.block_length,
        generation_length=config.generation_length,
        context=config.context,
        backend=config.backend,
        end_token_ids=checkpoint.end_token_ids,
        top_j=config.top_j,
        seed=config.seed,
    )


def record_split(
    config: CalibrationConfig,
    spec: str,
    checkpoint: Checkpoint,
    ids: Sequence[Sequence[int]],
    folder: Path,
    reporter: Reporter,
    label: str,
) -> Traces:
    """Record the prompts ``ids`` under policy ``spec`` into ``folder``, with progress; goes on after a stop."""
    policy = make_policy(spec, config.temperature)
    with reporter.task(f"record {label}", len(ids)) as advance_to:
        return record(
            checkpoint,
            ids,
            policy,
            decode_config(config, checkpoint),
            folder,
            on_prompt=lambda done, _: advance_to(done),
        )
