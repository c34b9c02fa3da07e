"""Recording for commands and studies: alone or as one of several workers, with progress."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from calibrate.models.checkpoint import Checkpoint
from calibrate.models.settings import decode_settings
from calibrate.progress import Reporter
from calibrate.recording.group import record_in_group
from calibrate.recording.recorder import RecordingSpeed, record, run_facts
from calibrate.recording.workers import Workers
from calibrate.traces.table import Traces
from studies.runs.configuration import CalibrationConfig
from verify.decoding import DecodeConfig
from verify.policies.contract import Policy
from verify.policies.specification import make_policy


def decode_config(config: CalibrationConfig, checkpoint: Checkpoint) -> DecodeConfig:
    """The decode configuration of a study's configuration under a checkpoint."""
    return decode_settings(
        checkpoint,
        block_length=config.block_length,
        cache=config.cache,
        generation_length=config.generation_length,
        ignore_end_tokens=config.ignore_end_tokens,
        backend=config.backend,
        top_j=config.top_j,
        seed=config.seed,
    ).config


def recording_facts(
    config: CalibrationConfig, spec: str, checkpoint: Checkpoint, ids: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The facts of the recording that :func:`record_split` makes or continues."""
    policy = make_policy(spec, config.temperature)
    return run_facts(checkpoint, policy, decode_config(config, checkpoint), ids, chat=config.chat)


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
    traces = share_split(config, spec, checkpoint, ids, folder, reporter, label, None)
    assert traces is not None  # None is for workers that do not lead
    return traces


def share_split(
    config: CalibrationConfig,
    spec: str,
    checkpoint: Checkpoint,
    ids: Sequence[Sequence[int]],
    folder: Path,
    reporter: Reporter,
    label: str,
    workers: Workers | None,
) -> Traces | None:
    """:func:`record_split` together with other workers; None on those that do not lead."""
    return record_with_progress(
        checkpoint,
        ids,
        make_policy(spec, config.temperature),
        decode_config(config, checkpoint),
        folder,
        reporter,
        label,
        batch_size=config.batch_size,
        chat=config.chat,
        workers=workers,
    )


def record_with_progress(
    checkpoint: Checkpoint,
    ids: Sequence[Sequence[int]],
    policy: Policy,
    config: DecodeConfig,
    folder: Path,
    reporter: Reporter,
    label: str,
    *,
    batch_size: int = 1,
    chat: bool = False,
    prompt_source: str | None = None,
    workers: Workers | None = None,
) -> Traces | None:
    """Record, alone or with ``workers``, and show how far it is; None on workers that do not lead.

    The leader, or the only process, shows how far all are, and says at the end how fast it went.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "chat": chat, "prompt_source": prompt_source}
    alone = partial(record, checkpoint, ids, policy, config, folder, **options)
    if workers is not None:
        together = partial(record_in_group, workers, checkpoint, ids, policy, config, folder, **options)
        if not workers.leads:
            return together()
    speeds: list[RecordingSpeed] = []
    with reporter.task(f"record {label}", len(ids)) as advance_to:

        def on_prompt(done: int, _: int) -> None:
            advance_to(done)

        if workers is None:
            traces: Traces | None = alone(on_prompt=on_prompt, on_end=speeds.append)
        else:
            traces = together(on_prompt=on_prompt, on_end=speeds.append)
    if speeds and speeds[0].prompts:
        by = f", {workers.count} workers" if workers is not None else ""
        reporter.say(f"{speeds[0].sentence()} (batch {batch_size}{by})")
    elif speeds:
        reporter.say(f"all {len(ids)} prompts were recorded already")
    return traces
