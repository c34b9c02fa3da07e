"""Run directories: a configuration, what was measured under it, and nothing of any other run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from calibrate.files import write_json
from calibrate.traces.folder import LOCK_NAME, FolderLock

RUN_FORMAT = "draftgraph-run"
RESULTS_FORMAT = "draftgraph-results"
RESULTS_VERSION = 1
CONFIG_NAME = "config.json"
RESULTS_NAME = "results.json"


class RunDirectoryError(ValueError):
    """An output directory that must not be written to, or that is no run."""


def slug(text: str) -> str:
    """A policy or method name as part of a file name: ``threshold:0.9`` -> ``threshold-0.9``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def open_run(out: str | Path, config: dict[str, Any], overwrite: bool = False) -> Path:
    """Make or continue a run directory.

    A directory of the same configuration is continued: what is recorded and measured there is not done again.

    Args:
        out: the directory.
        config: the full configuration, as it will stand in ``config.json``.
        overwrite: delete a run that is there first. Only a directory that holds a run is ever deleted.

    Raises:
        RunDirectoryError: the directory holds a run of another configuration (and ``overwrite`` is off), or files
            that are no run at all.
        calibrate.traces.table.TraceError: it is to be deleted, and another process is recording into it.
    """
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} exists and is no directory; give another --out")
    # A config.json alone proves nothing: every Hugging Face checkpoint has one, and an overwrite would delete it.
    found = read_json(path / CONFIG_NAME) if (path / CONFIG_NAME).is_file() else None
    is_run = isinstance(found, dict) and found.get("format") == RUN_FORMAT
    if path.is_dir() and any(path.iterdir()) and not is_run:
        raise RunDirectoryError(f"{path} exists and holds files that are no run; give another --out")
    if is_run and overwrite:
        _delete_run(path)
        is_run = False
    if is_run and found is not None:
        wanted = json.loads(json.dumps({"format": RUN_FORMAT, **config}))
        different = sorted(key for key in set(found) | set(wanted) if found.get(key) != wanted.get(key))
        if different:
            listed = "; ".join(f"{key}: there {found.get(key)!r}, now {wanted.get(key)!r}" for key in different)
            raise RunDirectoryError(
                f"{path} holds a run of another configuration ({listed}); give another --out, or --overwrite"
            )
    else:
        write_json(path / CONFIG_NAME, {"format": RUN_FORMAT, **config})
    return path


def _delete_run(path: Path) -> None:
    """Delete a run, unless one of its recordings is being written: the lock must not go from under its holder."""
    locks = [FolderLock(found.parent) for found in path.glob(f"**/{LOCK_NAME}")]
    try:
        for lock in locks:
            lock.acquire()
        shutil.rmtree(path)
    finally:
        for lock in locks:
            lock.release()


def read_json(path: str | Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        RunDirectoryError: the file is not there or is no JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} does not exist; is {path.parent} a run directory?") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunDirectoryError(f"{path} is not valid JSON ({error})") from error


def write_results(path: Path, config: dict[str, Any], sections: dict[str, Any]) -> None:
    """Write ``results.json``: format, version, configuration, then the sections (lists of rows)."""
    header = {"format": RESULTS_FORMAT, "version": RESULTS_VERSION, "config": config}
    write_json(path / RESULTS_NAME, {**header, **sections})
