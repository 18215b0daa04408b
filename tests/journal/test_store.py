"""The journal's file alone: appended data can be read again, and a file that is not a journal is refused."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightwork.errors import JournalError
from lightwork.journal.lock import FileLock
from lightwork.journal.store import KEPT, SCHEMA, Store, StoreBusy
from lightwork.journal.writer import Job, Writer

pytestmark = pytest.mark.bare

HOLDER = """
import sys, time
from pathlib import Path
from lightwork.journal.lock import FileLock
held = FileLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(1000)
"""


@contextmanager
def made(path: Path) -> Iterator[Store]:
    store = Store.create(path)
    try:
        yield store
    finally:
        store.close()


def test_what_is_appended_is_there_again(tmp_path: Path) -> None:
    """Batches are read in order after the file was closed; a snapshot replaces the batches before it."""
    path = tmp_path / "journal"
    with made(path) as store:
        for data in (b"one", b"", b"three"):
            store.append(data)
        assert list(store.batches()) == [b"one", b"", b"three"]
        store.add_snapshot(b"all", "a label")
        store.append(b"four")
        store.set_meta({"app": b"x"})
    store = Store.open(path)
    found = store.snapshot()
    assert found is not None
    seq, data = found
    assert (data, list(store.batches(seq))) == (b"all", [b"four"])
    assert store.meta()["app"] == b"x"
    (snapshot,) = store.snapshots()
    assert (snapshot.number, snapshot.label, snapshot.size) == (1, "a label", 3)
    store.close()


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    """Only this user can read the file and SQLite's files beside it: they contain secrets."""
    with made(tmp_path / "journal") as store:
        store.append(b"x")
        assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_snapshots_are_bounded(tmp_path: Path) -> None:
    """Only the latest snapshots are kept, and they keep their numbers."""
    with made(tmp_path / "journal") as store:
        for number in range(KEPT + 5):
            store.add_snapshot(b"%d" % number, "")
        assert [snapshot.number for snapshot in store.snapshots()] == list(range(6, KEPT + 6))
        assert store.snapshot(6) == (0, b"5")
        assert store.snapshot(5) is None


def test_reading_while_somebody_writes(tmp_path: Path) -> None:
    """A reader sees committed data and does not block the writer."""
    with made(tmp_path / "journal") as store:
        store.append(b"one")
        reader = Store.open(tmp_path / "journal", readonly=True)
        batches = reader.batches()
        assert next(batches) == b"one"
        store.append(b"two")
        batches.close()
        assert list(reader.batches()) == [b"one", b"two"]
        with pytest.raises(StoreBusy, match="readonly"):
            reader.append(b"three")
        reader.close()


# --- what is refused --------------------------------------------------------------------------------


def text_file(path: Path) -> None:
    path.write_text("dear diary\n" * 100)


def other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE log (seq INTEGER)")
    connection.close()


def newer(path: Path) -> None:
    with made(path) as store:
        store._connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def damaged(path: Path) -> None:
    with made(path) as store:
        store.append(b"x" * 100_000)
    data = bytearray(path.read_bytes())
    data[4096 : 3 * 4096] = os.urandom(2 * 4096)
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    with made(path) as store:
        store.append(b"x" * 100_000)
    os.truncate(path, path.stat().st_size // 2)


def absent(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (text_file, "is not a journal: expected an SQLite file, got another format. Use another path"),
        (other_database, "is not a journal: it is the database of another program"),
        (newer, "was written by a newer version of lightwork than this one"),
        (damaged, "is damaged: .*checkpoint"),
        (cut_short, "is damaged: .*checkpoint"),
        (absent, "there is no journal .*: check the path"),
    ],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    """The error says what the file is and what to do, and the file does not change."""
    path = tmp_path / "journal"
    make(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(JournalError, match=message):
        Store.open(path)
    assert before == (path.read_bytes() if path.exists() else None)


def test_a_batch_that_is_not_what_was_written(tmp_path: Path) -> None:
    """The checksum detects damage that leaves SQLite's pages valid."""
    path = tmp_path / "journal"
    with made(path) as store:
        store.append(b"good")
        store.append(b"x" * 1000)
        store._connection.execute("UPDATE log SET data = CAST(replace(data, 'x', 'y') AS BLOB) WHERE seq = 2")
        batches = store.batches()
        assert next(batches) == b"good"
        with pytest.raises(JournalError, match="the checksum of batch 2 is wrong"):
            next(batches)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """If the file cannot be made, the error says why."""
    (tmp_path / "file").touch()
    for make in (Store.create, FileLock):
        with pytest.raises(JournalError, match="Not a directory"):
            make(tmp_path / "file" / "journal")


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Another process holds the lock until it ends, and the error names its pid."""
    path = tmp_path / "journal"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(JournalError, match=f"in use by the scheduler with pid {process.pid}"):
            FileLock(path)
        process.send_signal(signal.SIGKILL)
    FileLock(path).release()


# --- the writer -------------------------------------------------------------------------------------


class Written:
    """Records the callbacks of a writer."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.asked = threading.Event()
        self.failed: list[JournalError] = []

    def job(self, writer: Writer, name: str, write: Callable[[Store], None], *, is_last: bool = False) -> None:
        writer.put(Job(write, lambda: self.jobs.append(name), is_last=is_last, is_asked=name == "asked"))


def test_jobs_are_written_in_order(tmp_path: Path) -> None:
    """A writer asks once for the collected data, and ends after the last job."""
    written = Written()
    with made(tmp_path / "journal") as store:
        writer = Writer(store, written.asked.set, written.failed.append)
        writer.start()
        writer.wake()
        assert written.asked.wait(10)
        written.job(writer, "asked", lambda store: store.append(b"1"))
        written.job(writer, "more", lambda store: store.append(b"2"))
        written.job(writer, "last", lambda store: store.append(b"3"), is_last=True)
        writer.join(10)
        assert written.jobs == ["asked", "more", "last"]
        assert list(store.batches()) == [b"1", b"2", b"3"]


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """A writer skips nothing on a full disk: it tries again until there is space, and then everything is written."""
    written = Written()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with made(tmp_path / "journal") as store:
        writer = Writer(store, written.asked.set, written.failed.append)
        writer.start()
        tried = threading.Event()

        def write(store: Store) -> None:
            try:
                store.append(os.urandom(1 << 20))
            finally:
                tried.set()

        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, limit[1]))
            written.job(writer, "large", write)
            assert tried.wait(10)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, handler)
        written.job(writer, "last", lambda store: store.append(b"last"), is_last=True)
        writer.join(30)
        assert written.jobs == ["large", "last"]
        assert [len(data) for data in store.batches()] == [1 << 20, 4]
        assert written.failed == []


def test_a_disk_that_stays_full_is_given_up_at_the_end(tmp_path: Path) -> None:
    """If the app ends and the disk is still full, `join` raises, and the earlier data is intact."""
    written = Written()
    with made(tmp_path / "journal") as store:
        store.append(b"before")

        def write(store: Store) -> None:
            raise StoreBusy("the disk is full")

        writer = Writer(store, written.asked.set, written.failed.append)
        writer.start()
        written.job(writer, "large", write)
        written.job(writer, "last", lambda store: store.append(b"last"), is_last=True)
        with pytest.raises(StoreBusy, match="the disk is full"):
            writer.join(0.1)
        assert written.jobs == []
        assert list(store.batches()) == [b"before"]
