"""Keeps a second process away from a file, as long as this process lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lightwork.errors import JournalError

__all__ = ["FileLock"]


class FileLock:
    """A lock on a file beside the journal. The lock file contains the pid of its holder.

    The kernel releases the lock when the process ends, however it ends; the file stays. The journal itself cannot be
    locked, because SQLite uses its own locks on it.

    Args:
        path: The journal.

    Raises:
        JournalError: Another process, or another app of this process, holds the lock, or the lock file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        beside = path.with_name(f"{path.name}-lock")
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(
                f"the journal {path} cannot be written: its lock {beside} cannot be opened: {error.strerror}. Use "
                "another path"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise JournalError(
                f"the journal {path} is in use by the scheduler with pid {holder}, and only one can write to it. Wait "
                "until that scheduler has ended, or use another path"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
