"""Informed drafts in a run: their state logs, and what a replay of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from calibrate.measuring.latency_table import LatencyTable
from calibrate.models.checkpoint import Checkpoint
from calibrate.progress import Reporter
from calibrate.recording.recorder import RecordingSpeed
from calibrate.recording.states import record_states, state_facts
from calibrate.traces.state_log import StateLog, read_states
from calibrate.traces.table import TraceError, Traces
from drafting.state_replay import StateReplay, replay_states
from studies.runs.configuration import INFORMED, CalibrationConfig
from studies.runs.recordings import decode_config
from verify.decoding import DecodeConfig
from verify.drafters.informed import InformedDrafter
from verify.layout import exactness
from verify.policies.contract import Policy
from verify.policies.specification import make_policy


def log_folder(traces: Path, drafts: int, split: str) -> Path:
    """Where the state log of informed drafts lies among the ``traces`` of a policy."""
    return traces / f"{INFORMED}-{drafts}" / split


def logged_drafts(traces: Path) -> list[int]:
    """The numbers of drafts whose state logs lie among the ``traces`` of a policy, ascending."""
    found = (path.name.removeprefix(f"{INFORMED}-") for path in traces.glob(f"{INFORMED}-*") if path.is_dir())
    return sorted(int(name) for name in found if name.isdecimal())


def log_config(config: CalibrationConfig, checkpoint: Checkpoint, policy: Policy) -> DecodeConfig:
    """The decode configuration of state logs: informed drafts read the best token of every position only, so the policy
    says how many vocabulary ranks are kept."""
    return replace(decode_config(config, checkpoint), top_j=policy.ranks)


def log_facts(
    config: CalibrationConfig, spec: str, checkpoint: Checkpoint, ids: Sequence[Sequence[int]], drafts: int
) -> dict[str, Any]:
    """The facts of the recording that :func:`count_informed` makes or continues."""
    policy = make_policy(spec, config.temperature)
    return state_facts(
        checkpoint, policy, log_config(config, checkpoint, policy), ids, InformedDrafter(drafts), chat=config.chat
    )


def count_informed(
    config: CalibrationConfig,
    spec: str,
    checkpoint: Checkpoint,
    ids: Sequence[Sequence[int]],
    folder: Path,
    drafts: int,
    reporter: Reporter,
    split: str,
) -> StateReplay:
    """Record the state log of ``drafts`` informed drafts on the prompts ``ids``, with progress, and replay it."""
    speeds: list[RecordingSpeed] = []
    policy = make_policy(spec, config.temperature)
    with reporter.task(f"record {spec}, {split}, {drafts} informed drafts", len(ids)) as advance_to:
        log = record_states(
            checkpoint, ids, policy, log_config(config, checkpoint, policy), folder,
            InformedDrafter(drafts), batch_size=config.batch_size, chat=config.chat,
            on_prompt=lambda done, _: advance_to(done), on_end=speeds.append,
        )  # fmt: skip
    if speeds and speeds[0].prompts:
        reporter.say(f"{speeds[0].sentence()} (batch {config.batch_size}, {drafts} informed drafts)")
    found = _counted(log, drafts, folder)
    if found.missed:
        reporter.say(missed_note(found, folder))
    return found


def missed_note(found: StateReplay, folder: Path) -> str:
    """One sentence for a replay of the log in ``folder`` that does not know every state that was proposed."""
    return (
        f"{folder} does not know {found.missed} of {found.proposed} proposed states, so the forwards predicted from it "
        "are an estimate, as a rule too many: drafts are not exact in this mode or dtype."
    )


def read_counts(traces: Path, drafts: int, split: str, recorded: Traces) -> StateReplay:
    """What the state log of a run says about ``drafts`` informed drafts on the prompts of ``split``.

    Args:
        traces: the recordings of a policy in a run.
        drafts: whose log.
        split: "search" or "test".
        recorded: the plain decodes of the split; the log must be of the same prompts.

    Raises:
        calibrate.traces.table.TraceError: no whole log there, one of other prompts, or one of another version.
    """
    folder = log_folder(traces, drafts, split)
    log = read_states(folder)
    if log.prompt_hashes() != recorded.prompt_hashes():
        raise TraceError(f"{folder} is a log of other prompts than the traces beside it; run the calibration again")
    return _counted(log, drafts, folder)


def _counted(log: StateLog, drafts: int, folder: Path) -> StateReplay:
    """The replay of a log by the drafter that recorded it, which therefore knows every state.

    Where drafts are not exact (a near-lossless mode, low precision), a state that was evaluated twice had two
    distributions, of which the log keeps one, and the replay may propose a state that the decode did not.

    Raises:
        TraceError: drafts are exact, and it does not: a drafter of another version proposed other states.
    """
    found, facts = replay_states(log, InformedDrafter(drafts)), log.metadata
    if found.missed and exactness(facts["cache"], facts["backend"]).exact and facts["dtype"] == "float32":
        raise TraceError(
            f"{folder} does not know {found.missed} of the {found.proposed} states that {drafts} informed drafts "
            "propose: it was recorded with another version of this tool. Delete the folder and run the calibration "
            "again; only this log is recorded anew"
        )
    return found


def counts_to_price(
    traces: Path, recorded: Sequence[Traces] | None, latency: LatencyTable
) -> tuple[dict[int, tuple[StateReplay, StateReplay]], str]:
    """What the state logs of a run say about informed drafts, and what is to be said about those that are left out.

    Args:
        traces: the recordings of a policy in a run.
        recorded: the plain decodes of the search and of the test prompts beside the logs; None where others are priced.
        latency: what a forward of as many blocks beside the real one takes.

    Returns:
        counts on both splits by the number of drafts, and sentences with a space before each.

    Raises:
        calibrate.traces.table.TraceError: as :func:`read_counts`.
    """
    found: dict[int, tuple[StateReplay, StateReplay]] = {}
    wide: dict[int, int] = {}
    logged, note = logged_drafts(traces), ""
    if logged and recorded is None:
        return {}, (
            " Informed drafts are not priced: their state logs are of the run's own search and test prompts; leave "
            "--validation and --test out."
        )
    for drafts in logged:
        search, test = (
            read_counts(traces, drafts, name, split)
            for name, split in zip(("search", "test"), recorded or (), strict=True)
        )
        for name, counts in (("search", search), ("test", test)):
            if counts.missed:
                note += f" {missed_note(counts, log_folder(traces, drafts, name))}"
        # Alone a forward is as wide as what it carries; in a batch it is padded to the widest that may come.
        alone = latency.batch == 1
        needed = max(counts.widths_per_prompt.shape[1] - 1 if alone else counts.widest for counts in (search, test))
        if needed > latency.drafts[-1]:
            wide[drafts] = needed
        else:
            found[drafts] = search, test
    if wide:
        note += (
            f" Informed drafts are not priced for D = {', '.join(map(str, wide))}: their forwards are up to as wide as "
            f"with {max(wide.values())} drafts of a graph, and latency was measured for at most {latency.drafts[-1]}."
        )
    return found, note
