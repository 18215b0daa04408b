"""The journal's file: an SQLite database in WAL mode. Batches are appended; a snapshot replaces the batches before it.

Table ``log`` has a row for each batch. Table ``snapshot`` has the combined result of all batches up to some batch.
Table ``meta`` has the properties of the whole file. The caller defines the contents of a batch and of a snapshot. Each
has a checksum, because SQLite does not detect all damage to its pages.

The file is written with ``synchronous=FULL``: a commit that has returned survives a power failure.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from lightwork._version import __version__
from lightwork.errors import JournalError

__all__ = ["APPLICATION_ID", "KEPT", "SCHEMA", "Store", "StoreBusy", "StoredSnapshot"]

APPLICATION_ID = 0x4C574A4C
"""Application id of an SQLite file that is a lightwork journal: "LWJL"."""

SCHEMA = 2
"""Version of the tables and their contents."""

KEPT = 20
"""Number of snapshots to keep; the oldest is dropped first."""

_TABLES = """
CREATE TABLE log (seq INTEGER PRIMARY KEY AUTOINCREMENT, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE snapshot (
    number INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, label TEXT NOT NULL, time REAL NOT NULL,
    crc INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
"""

_BUSY_TIMEOUT = 10.0
"""Seconds to wait for a reader that blocks writers."""


class StoreBusy(JournalError):
    """The file cannot be written now: the disk is full or unreachable. A later attempt may succeed."""


class StoredSnapshot(NamedTuple):
    """The properties of a snapshot, without its data.

    Attributes:
        number: Number of the snapshot in the file, counted from 1.
        label: Why the snapshot was made.
        time: When it was made, in seconds since the epoch.
        size: Size of its data in bytes.
    """

    number: int
    label: str
    time: float
    size: int


class Store:
    """An open journal, from `create` or `open`. Only one thread at a time may use it.

    Args:
        path: The file.
        connection: The SQLite connection to the file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    # --- opening ----------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path) -> Store:
        """Make the file, which must not exist or must be empty. Only this user can read it.

        Raises:
            JournalError: The file cannot be made.
        """
        try:
            # Made here, because SQLite would use the process's umask. A reader of the file can pose as the scheduler.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.chmod(path, 0o600)
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be made: {error.strerror}. Use another path") from error
        with _told(path):
            store = cls._connected(path)
            try:
                # Before WAL mode: in WAL mode, the header with the application id may be missing for a long time.
                store._connection.executescript(
                    f"BEGIN; {_TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA};COMMIT;"
                )
                store._begin_writing()
                store.set_meta({"lightwork": __version__.encode()})
            except BaseException:
                store.close()
                raise
        return store

    @classmethod
    def open(cls, path: Path, *, readonly: bool = False) -> Store:
        """Open an existing journal. With `readonly`, this works while an app writes to the journal.

        Raises:
            JournalError: The file is not a journal, is of a newer version, is damaged, or cannot be read or written.
        """
        _check_header(path)
        if not readonly and not os.access(path, os.W_OK):
            raise JournalError(
                f"the journal {path} cannot be written: permission denied. Correct its permissions, or use another path"
            )
        with _told(path):
            store = cls._connected(path, readonly=readonly)
            try:
                if not readonly:
                    store._begin_writing()
                problem = store._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if problem != "ok":
                    raise _damaged(path, problem)
            except BaseException:
                store.close()
                raise
        return store

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Return whether there is a file at the path that is not empty. A new file is empty."""
        try:
            return path.stat().st_size > 0
        except OSError:
            return False

    @classmethod
    def _connected(cls, path: Path, *, readonly: bool = False) -> Store:
        address = f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rw'}"
        connection = sqlite3.connect(
            address, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        return cls(path, connection)

    def _begin_writing(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._connection.close()

    # --- reading ----------------------------------------------------------------------------------

    def meta(self) -> dict[str, bytes]:
        """Return the properties of the whole file."""
        with _told(self.path):
            return dict(self._connection.execute("SELECT key, value FROM meta"))

    def snapshots(self) -> list[StoredSnapshot]:
        """Return all snapshots, the oldest first."""
        with _told(self.path):
            rows = self._connection.execute("SELECT number, label, time, length(data) FROM snapshot ORDER BY number")
            return [StoredSnapshot(*row) for row in rows]

    def snapshot(self, number: int | None = None) -> tuple[int, bytes] | None:
        """Return the number of the last batch in a snapshot, and the snapshot's data; None if it does not exist.

        Args:
            number: Number of the snapshot; None for the latest.

        Raises:
            JournalError: The snapshot is damaged.
        """
        which = "ORDER BY number DESC LIMIT 1" if number is None else "WHERE number = ?"
        with _told(self.path):
            row = self._connection.execute(
                f"SELECT seq, crc, data FROM snapshot {which}", () if number is None else (number,)
            ).fetchone()
        if row is None:
            return None
        if zlib.crc32(row[2]) != row[1]:
            raise _damaged(self.path, "the checksum of a snapshot is wrong")
        return row[0], row[2]

    def batches(self, after: int = 0) -> Generator[bytes, None, None]:
        """Yield the batches after the batch with the number `after`, in order.

        Raises:
            JournalError: A batch is damaged or missing.
        """
        with _told(self.path), closing(self._connection.cursor()) as cursor:
            for seq, crc, data in cursor.execute("SELECT seq, crc, data FROM log WHERE seq > ? ORDER BY seq", (after,)):
                if zlib.crc32(data) != crc:
                    raise _damaged(self.path, f"the checksum of batch {seq} is wrong")
                yield data

    # --- writing ----------------------------------------------------------------------------------

    def set_meta(self, values: dict[str, bytes]) -> None:
        """Set properties of the whole file.

        Raises:
            StoreBusy: The file cannot be written now.
        """
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def append(self, data: bytes) -> None:
        """Append a batch. If this returns, the batch is on disk; if it raises, nothing was added.

        Raises:
            StoreBusy: The file cannot be written now.
            JournalError: The file is damaged.
        """
        with _told(self.path):  # a single statement is a transaction
            self._connection.execute("INSERT INTO log (crc, data) VALUES (?, ?)", (zlib.crc32(data), data))

    def add_snapshot(self, data: bytes, label: str) -> None:
        """Store a snapshot, the combined result of all batches so far, and drop the batches. Raises like `append`."""
        with self._transaction():
            run = self._connection.execute
            (seq,) = run("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'log'), 0)").fetchone()
            run(
                "INSERT INTO snapshot (seq, label, time, crc, data) VALUES (?, ?, ?, ?, ?)",
                (seq, label, time.time(), zlib.crc32(data), data),
            )
            run("DELETE FROM log WHERE seq <= ?", (seq,))
            run("DELETE FROM snapshot WHERE number <= (SELECT max(number) FROM snapshot) - ?", (KEPT,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


_HEADER = struct.Struct(">16s44xI4xI")
"""Header of an SQLite file: its magic, the application's version and the application id."""

_MAGIC = b"SQLite format 3\x00"


def _check_header(path: Path) -> None:
    """Check without SQLite that the file is a journal: SQLite might write to it, or accept a text as a database."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
    except FileNotFoundError:
        raise JournalError(f"there is no journal {path}: check the path") from None
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be read: {error.strerror}") from error
    magic, version, mark = _HEADER.unpack(header.ljust(_HEADER.size))
    if magic != _MAGIC:
        raise JournalError(
            f"{path} is not a journal: expected an SQLite file, got another format. Use another path, or remove the "
            "file"
        )
    if mark != APPLICATION_ID:
        raise JournalError(f"{path} is not a journal: it is the database of another program. Use another path")
    if version > SCHEMA:
        raise JournalError(
            f"the journal {path} was written by a newer version of lightwork than this one, {__version__}: expected at "
            f"most format {SCHEMA}, got format {version}. Install the newer version, or use another path"
        )


def _damaged(path: Path, problem: str) -> JournalError:
    return JournalError(
        f"the journal {path} is damaged: {problem.splitlines()[-1]}. Nothing was changed. List its checkpoints with "
        f"`lightwork checkpoint ls {path}` and continue from one with `lightwork checkpoint restore`, or start again "
        "with another path"
    )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Translate SQLite's errors to errors of the journal."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreBusy(
            f"the journal {path} cannot be read or written: {error}. Nothing in it is lost; check the disk"
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
