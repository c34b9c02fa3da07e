"""Run directories: recordings, which are facts that cost model time, and analyses, which are made of them anew.

A recording (a folder under ``traces``) stays good while the facts in its own manifest hold: model, policy, prompts,
lengths, cache, temperature, seed, dtype. Everything else in a run (graphs, values, figures) follows from recordings in
seconds, so another budget, method or tool version goes on with the recordings that are there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibrate.files import write_json
from calibrate.traces.folder import LOCK_NAME, FolderLock, check_folder
from figures.records.quality import QUALITY_NAME
from figures.records.run import RESULTS_NAME
from verify.files.strict_json import StrictJsonError, read_json, show
from verify.policies.contract import PolicyError
from verify.policies.specification import canonical_policy

RUN_FORMAT = "draftgraph-run"
CONFIG_NAME = "config.json"
TRACES = "traces"
_MAX_CONFIG_BYTES = 16 * 2**20

#: What an analysis writes beside ``config.json``, as patterns; all of it can be made again from the recordings.
_ANALYSES = (
    RESULTS_NAME,
    QUALITY_NAME,
    "study.csv",
    "quality.csv",
    "graphs",
    "measured",
    "figures",
    "report.html",
    "*.budget.json",
)
#: Lists of the configuration that say which results a run holds. They may grow; they shrink only with ``overwrite``.
_GROWING = ("policies", "methods", "budgets")


class RunDirectoryError(ValueError):
    """An output directory that must not be written to, or that is no run."""


def slug(text: str) -> str:
    """A policy or method name as part of a file name: ``threshold:0.9`` -> ``threshold-0.9``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def open_run(
    out: str | Path,
    config: dict[str, Any],
    recordings: Mapping[str, dict[str, Any]],
    *,
    overwrite: bool = False,
    overwrite_traces: bool = False,
) -> Path:
    """Make or continue a run directory, and write its ``config.json``.

    What is recorded there is not recorded again. Results are made anew, so a run may go on with more budgets, methods
    or policies, and with another version of the tool.

    Args:
        out: the directory.
        config: the full configuration, as it will stand in ``config.json``.
        recordings: path of each trace folder in the directory -> facts of the recording that the run needs there.
        overwrite: results that the run will not hold any more may be dropped. Recordings stay.
        overwrite_traces: delete the results and the recordings that are there. Other files stay.

    Raises:
        RunDirectoryError: the directory holds files that are no run, another kind of run, or results that this run
            would drop without ``overwrite``.
        calibrate.traces.table.TraceError: a trace folder holds a recording of other facts; or the run is to be
            overwritten while another process is recording into it.
    """
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} exists and is not a directory; give another --out")
    # A config.json alone proves nothing: every Hugging Face checkpoint has one, and an overwrite would delete it.
    found = _config(path)
    is_run = isinstance(found, dict) and found.get("format") == RUN_FORMAT
    if path.is_dir() and any(path.iterdir()) and not is_run:
        raise RunDirectoryError(f"{path} exists and holds files that are not a run; give another --out")
    if is_run and found is not None and not overwrite_traces:
        mend = "give another --out, or --overwrite-traces to delete the recordings and make them again"
        for folder, facts in recordings.items():
            check_folder(path / folder, facts, mend)
        if not overwrite:
            _check_growing(path, found, config)
    if is_run and (overwrite or overwrite_traces):
        _delete(path, (*_ANALYSES, TRACES) if overwrite_traces else _ANALYSES)
    write_json(path / CONFIG_NAME, {"format": RUN_FORMAT, **config})
    return path


def _config(path: Path) -> Any:
    """What ``config.json`` of a folder holds; None where there is none."""
    file = path / CONFIG_NAME
    if not file.is_file():
        return None
    try:
        found = read_json(file, _MAX_CONFIG_BYTES)
        if isinstance(found, dict):
            _complete_policies(found)
        return found
    except (StrictJsonError, PolicyError) as error:
        raise RunDirectoryError(f"{file}: {error}") from error


def _complete_policies(config: dict[str, Any]) -> None:
    """Older runs have the temperature of all their policies beside them alone."""
    policies, temperature = config.get("policies"), config.get("temperature")
    if isinstance(policies, list) and isinstance(temperature, int | float):
        config["policies"] = [
            canonical_policy(policy, temperature) if isinstance(policy, str) else policy for policy in policies
        ]


def _check_growing(path: Path, found: dict[str, Any], config: dict[str, Any]) -> None:
    mend = "give another --out, or --overwrite, which keeps the recordings"
    kind = config.get("study")
    if found.get("study") != kind:
        there, now = (f"the study {show(name)}" if name else "a calibration" for name in (found.get("study"), kind))
        raise RunDirectoryError(f"{path} holds {there}, not {now}; {mend}")
    for name in _GROWING:
        old, new = found.get(name), list(config.get(name, ()))
        dropped = [item for item in old if item not in new] if isinstance(old, list) else []
        if dropped:
            listed = ", ".join(show(item) for item in dropped)
            raise RunDirectoryError(
                f"{path} holds results of {name} that this run would drop ({listed}); name them too, {mend}"
            )


def _delete(path: Path, patterns: Sequence[str]) -> None:
    """Delete parts of a run, unless one of its recordings is being written: the lock must not go from under its
    holder, nor the run from under a process that is making it."""
    locks = [FolderLock(found.parent) for found in path.glob(f"**/{LOCK_NAME}")]
    try:
        for lock in locks:
            lock.acquire()
        parts = [part for pattern in patterns for part in path.glob(pattern)]
        graphs = [part.with_name(part.name.replace(".budget.json", ".json")) for part in parts]  # of verdicts, beside
        for part in dict.fromkeys([*parts, *(graph for graph in graphs if graph.exists())]):
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part)
            else:
                part.unlink()
    finally:
        for lock in locks:
            lock.release()
