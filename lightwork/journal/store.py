"""The journal's file: an SQLite database in WAL mode that grows by batches and begins anew from snapshots.

Table ``log`` has a row for each batch, ``snapshot`` what all batches up to one come to, ``meta`` what is true of the
whole file. What a batch or a snapshot says is the caller's business. Each has a checksum, because SQLite notices damage
to its own pages only where that happens to confuse it.

Written with ``synchronous=FULL``: a commit that has returned survives a power cut.
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
"""Marks an SQLite file as one of ours: "LWJL"."""

SCHEMA = 2
"""Version of the tables and of what is in them."""

KEPT = 20
"""Snapshots that are kept; the oldest goes first."""

_TABLES = """
CREATE TABLE log (seq INTEGER PRIMARY KEY AUTOINCREMENT, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE snapshot (
    number INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, label TEXT NOT NULL, time REAL NOT NULL,
    crc INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
"""

_BUSY_TIMEOUT = 10.0
"""Seconds to wait for somebody who reads the file in a way that keeps writers out."""


class StoreBusy(JournalError):
    """The file cannot be written now: the disk is full, or out of reach. Trying again later may work."""


class StoredSnapshot(NamedTuple):
    """What is known of a snapshot without reading it.

    Attributes:
        number: Counts the snapshots of the file.
        label: Why it was made.
        time: When, in seconds since the epoch.
        size: Of its data, in bytes.
    """

    number: int
    label: str
    time: float
    size: int


class Store:
    """An open journal. `create` or `open` one. Belongs to one thread at a time.

    Args:
        path: The file.
        connection: To it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    # --- opening ----------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path) -> Store:
        """Make the file, which does not exist or is empty; nobody else can read it.

        Raises:
            JournalError: It cannot be made.
        """
        try:
            # Before SQLite makes it with whatever mask there is: what is in it lets one pass for the scheduler.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.chmod(path, 0o600)
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be made: {error.strerror}. Use another path") from error
        with _told(path):
            store = cls._connected(path)
            try:
                # Before WAL mode, in which the header that marks the file might not be in it for a long time.
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
        """Open a journal that exists. With `readonly` also while an app writes to it.

        Raises:
            JournalError: It is none, is of a newer version, is damaged, or cannot be read or written.
        """
        _check_header(path)
        if not readonly and not os.access(path, os.W_OK):
            raise JournalError(
                f"the journal {path} cannot be written: permission denied. Mend that, or use another path"
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
        """Whether there is something at the path: an empty file, as one that was just made, is nothing."""
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
        """Let go of the file. May be repeated."""
        self._connection.close()

    # --- reading ----------------------------------------------------------------------------------

    def meta(self) -> dict[str, bytes]:
        """What is true of the whole file."""
        with _told(self.path):
            return dict(self._connection.execute("SELECT key, value FROM meta"))

    def snapshots(self) -> list[StoredSnapshot]:
        """All of them, the oldest first."""
        with _told(self.path):
            rows = self._connection.execute("SELECT number, label, time, length(data) FROM snapshot ORDER BY number")
            return [StoredSnapshot(*row) for row in rows]

    def snapshot(self, number: int | None = None) -> tuple[int, bytes] | None:
        """The batch that a snapshot was made after, and its data; the latest one by default, None if there is none.

        Raises:
            JournalError: It is damaged.
        """
        which = "ORDER BY number DESC LIMIT 1" if number is None else "WHERE number = ?"
        with _told(self.path):
            row = self._connection.execute(
                f"SELECT seq, crc, data FROM snapshot {which}", () if number is None else (number,)
            ).fetchone()
        if row is None:
            return None
        if zlib.crc32(row[2]) != row[1]:
            raise _damaged(self.path, "a snapshot is not what was written")
        return row[0], row[2]

    def batches(self, after: int = 0) -> Generator[bytes, None, None]:
        """The batches after one, in order.

        Raises:
            JournalError: One is damaged, or missing.
        """
        with _told(self.path), closing(self._connection.cursor()) as cursor:
            for seq, crc, data in cursor.execute("SELECT seq, crc, data FROM log WHERE seq > ? ORDER BY seq", (after,)):
                if zlib.crc32(data) != crc:
                    raise _damaged(self.path, f"batch {seq} is not what was written")
                yield data

    # --- writing ----------------------------------------------------------------------------------

    def set_meta(self, values: dict[str, bytes]) -> None:
        """Set what is true of the whole file.

        Raises:
            StoreBusy: It cannot be written now.
        """
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def append(self, data: bytes) -> None:
        """Add a batch. When this returns it is on disk; when it raises nothing was added.

        Raises:
            StoreBusy: It cannot be written now.
            JournalError: The file is damaged.
        """
        with _told(self.path):  # one statement is a transaction of its own
            self._connection.execute("INSERT INTO log (crc, data) VALUES (?, ?)", (zlib.crc32(data), data))

    def add_snapshot(self, data: bytes, label: str) -> None:
        """Keep what all batches up to now come to, and drop those. Raises as `append`."""
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
"""Of an SQLite file: what marks it, and the application's version and mark."""

_MAGIC = b"SQLite format 3\x00"


def _check_header(path: Path) -> None:
    """See whether the file is one of ours without SQLite, which would write to it, or take a text for a database."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
    except FileNotFoundError:
        raise JournalError(f"there is no journal {path}") from None
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be read: {error.strerror}") from error
    magic, version, mark = _HEADER.unpack(header.ljust(_HEADER.size))
    if magic != _MAGIC:
        raise JournalError(f"{path} is no journal: it is not a file of SQLite. Use another path, or remove the file")
    if mark != APPLICATION_ID:
        raise JournalError(f"{path} is the database of another program, and no journal: use another path")
    if version > SCHEMA:
        raise JournalError(
            f"the journal {path} was written by a newer version of lightwork than this one, {__version__} (its format "
            f"is {version}, and this one knows up to {SCHEMA}): install that version, or use another path"
        )


def _damaged(path: Path, problem: str) -> JournalError:
    return JournalError(
        f"the journal {path} is damaged: {problem.splitlines()[-1]}. Nothing was changed. See what is left with "
        f"`lightwork checkpoint ls {path}` and go on from a checkpoint with `lightwork checkpoint restore`, or begin "
        "anew with another path"
    )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say what SQLite's errors mean for whoever uses the journal."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreBusy(
            f"the journal {path} cannot be read or written: {error}. Nothing in it is lost; see to the disk"
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
