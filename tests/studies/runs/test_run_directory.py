"""Run directories: what may be deleted, and what may not."""

from pathlib import Path

import pytest

from calibrate.traces.folder import FolderLock
from calibrate.traces.table import TraceError
from studies.runs.run_directory import open_run


def test_a_run_that_is_being_recorded_is_not_deleted(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", {"a": 1}, overwrite=True)
    folder = run / "traces" / "static-1" / "search"
    folder.mkdir(parents=True)
    (folder / "shard-000000.parquet").write_bytes(b"x")
    lock = FolderLock(folder)
    lock.acquire()
    with pytest.raises(TraceError, match="is being recorded by another process"):
        open_run(tmp_path / "run", {"a": 2}, overwrite=True)
    assert (folder / "shard-000000.parquet").exists()
    lock.release()
    open_run(tmp_path / "run", {"a": 2}, overwrite=True)
    assert not folder.exists()
