"""Storages: opened, torn, replaced, gone; and a real PostgreSQL server where there is one."""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest

from studies.tuning.journal import JournalWarning, StorageError
from studies.tuning.optuna_study import run_study
from studies.tuning.storage import is_shared, open_storage, shown
from tests.support.paths import ROOT
from tests.support.study_toys import CONFIG, data, values

DEMO = ROOT / "scripts" / "postgres_demo.sh"


def test_what_is_shared() -> None:
    assert not is_shared(None)
    assert not is_shared("memory")
    assert is_shared("journal:x")
    assert isinstance(open_storage(None), optuna.storages.InMemoryStorage)


def test_a_journal_in_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    for name in (str(tmp_path / "a" / "study.journal"), f"journal:{tmp_path / 'b' / 'study.journal'}"):
        assert run_study(data(), CONFIG, 1, storage=name).finished == 1
    assert (tmp_path / "b" / "study.journal").is_file()


def test_sqlite_gives_the_same_study_as_memory(tmp_path: Path) -> None:
    stored = run_study(data(), CONFIG, 6, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert values(stored.study) == values(run_study(data(), CONFIG, 6).study)


TORN = b'{"op_code":5,"worker_id":"x","trial_'


def test_a_torn_last_line_costs_nothing(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    first = values(run_study(data(), CONFIG, 7, storage=str(journal)).study)
    whole = journal.read_bytes()
    journal.write_bytes(whole + TORN)
    with pytest.warns(JournalWarning, match="is torn"):
        again = run_study(data(), CONFIG, 9, storage=str(journal))
    assert (again.own, again.finished) == (2, 9)
    assert values(again.study)[:7] == first
    assert journal.read_bytes().startswith(whole)


def test_a_partner_writes_behind_the_line_that_a_killed_worker_tore(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    torn_at: list[int] = []

    def kill_a_partner(finished: int) -> None:
        if finished == 4:
            torn_at.append(journal.stat().st_size)
            with journal.open("ab") as file:
                file.write(TORN)

    first = values(run_study(data(), CONFIG, 8, storage=str(journal), on_trial=kill_a_partner).study)
    assert journal.read_bytes()[torn_at[0] :].startswith(TORN + b"\n{")
    with pytest.warns(JournalWarning, match=r"line \d+ of .*study.journal is torn .* was left out; no trial needs it"):
        again = run_study(data(), CONFIG, 11, storage=str(journal))
    assert (again.own, again.finished) == (3, 11)
    assert values(again.study)[:8] == first
    assert values(again.study) == values(run_study(data(), CONFIG, 11).study)


def test_an_operation_glued_to_a_torn_line_is_read(tmp_path: Path) -> None:
    """Optuna's own file backend, or an earlier version of this tool, appends to the torn line itself."""
    journal = tmp_path / "study.journal"
    first = values(run_study(data(), CONFIG, 8, storage=str(journal)).study)
    lines = journal.read_bytes().splitlines(keepends=True)
    created = [place for place, line in enumerate(lines) if line.startswith(b'{"op_code":4')]
    lines[created[6]] = TORN + lines[created[6]]  # the trial that was made there must not vanish: later ids count it
    lines[created[7]] = TORN + TORN + lines[created[7]]
    journal.write_bytes(b"".join(lines))
    again = run_study(data(), CONFIG, 9, storage=str(journal))
    assert (again.own, again.finished) == (1, 9)
    assert values(again.study)[:8] == first


@pytest.mark.parametrize("damage", [b"\0\0\0\n", b"[1, 2]\n", b'{"op_code":5,,"worker_id":"x"}\n', b'{"op_code":77}\n'])
def test_a_journal_that_was_damaged_says_where_and_how_to_mend_it(tmp_path: Path, damage: bytes) -> None:
    journal = tmp_path / "study.journal"
    run_study(data(), CONFIG, 3, storage=str(journal))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:20], damage, *lines[20:]]))
    with pytest.raises(StorageError) as error:
        run_study(data(), CONFIG, 4, storage=str(journal))
    message = str(error.value)
    assert f"line 21 of {journal} is not an operation of a study" in message
    assert f"`head -n 20 {journal} > mended.journal`" in message
    mended = tmp_path / "mended.journal"
    mended.write_bytes(b"".join(lines[:20]))
    assert run_study(data(), CONFIG, 4, storage=str(mended)).finished >= 4


@pytest.mark.skipif(os.name != "posix", reason="a lock of Unix")
def test_the_lock_of_a_killed_worker_is_free_at_once(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    code = (
        "import sys, time; from pathlib import Path; from studies.tuning.journal import JournalFile\n"
        "with JournalFile(Path(sys.argv[1]))._locked():\n    print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(journal)], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    done: list[int] = []
    waiting = threading.Thread(
        target=lambda: done.append(run_study(data(), CONFIG, 1, storage=str(journal)).finished), daemon=True
    )
    waiting.start()
    waiting.join(1.0)
    assert not done
    holder.kill()
    waiting.join(20.0)  # Optuna's own lock would be given up after 30 seconds
    assert done == [1]
    holder.communicate()


@pytest.mark.parametrize("trouble", ["folder", "file", "replaced"])
def test_a_journal_that_goes_away_in_mid_study(tmp_path: Path, trouble: str) -> None:
    journal = tmp_path / "kept" / "study.journal"

    def disturb(finished: int) -> None:
        if finished != 3:
            return
        if trouble == "folder":
            journal.parent.rename(tmp_path / "moved")
        elif trouble == "file":
            journal.unlink()
        else:
            copy = journal.with_name("copy")
            shutil.copy(journal, copy)
            os.replace(copy, journal)

    with pytest.raises(StorageError) as error:
        run_study(data(), CONFIG, 10, storage=str(journal), on_trial=disturb)
    message = str(error.value)
    assert "went away while the study 'draftgraph' ran" in message
    assert "3 finished trials stay in it; when it is back, run the same command again" in message
    assert str(journal) in message
    if trouble == "folder":
        (tmp_path / "moved").rename(journal.parent)
        resumed = run_study(data(), CONFIG, 10, storage=str(journal))
        assert (resumed.own, resumed.finished) == (7, 10)
        assert values(resumed.study) == values(run_study(data(), CONFIG, 10).study)


def test_errors_of_a_trial_are_not_blamed_on_the_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = data()

    def broken(parameters: object) -> object:
        raise FileNotFoundError("something else")

    monkeypatch.setattr(found.objective, "run", broken)
    with pytest.raises(FileNotFoundError, match="something else"):
        run_study(found, CONFIG, 3, storage=str(tmp_path / "study.journal"))


def test_a_database_that_cannot_be_reached_or_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        open_storage(f"sqlite:///{tmp_path / 'nowhere' / 'study.db'}")
    with pytest.raises(StorageError, match=r"is not a database URL|no driver for|cannot be opened"):
        open_storage("nonsense://host/base")
    with pytest.raises(StorageError, match=r"expected grpc://HOST:PORT"):
        open_storage("grpc://host")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot be opened"):
        open_storage(str(tmp_path / "folder"))


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://me:secret@host/base") == "postgresql://me@host/base"
    assert shown("sqlite:///x.db") == "sqlite:///x.db"
    assert shown(None) == "memory"


@pytest.mark.skipif(os.name != "posix" or not DEMO.is_file(), reason="a shell script")
def test_two_workers_on_a_real_postgresql_server() -> None:
    """The script makes a throw-away cluster, lets two workers finish 20 trials, stops the server under a third."""
    found = subprocess.run(
        ["bash", str(DEMO), "--toy", "20"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if found.returncode == 77:
        pytest.skip(found.stderr.strip().splitlines()[-1])
    assert found.returncode == 0, found.stderr
    assert re.search(r"finished trials in the database: 2[01]", found.stdout)
    assert "went away while the study" in found.stdout
    folder = found.stdout.partition("folder ")[2].partition(",")[0]
    assert folder
    assert not Path(folder).exists()
